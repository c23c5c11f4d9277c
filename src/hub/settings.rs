//! Where the Hub is, who asks, where files are kept, and how patient we are.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use super::expand::expand;
use crate::{
    base::home,
    error::{Error, Result},
};

/// The Hub itself.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// An access token. It never shows in messages: its `Debug` is a row of stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token such as `hf_...`; `None` when there is nothing but white space.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// How to reach the Hub and where to keep what comes from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The Hub's address, without a slash at its end.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<Token>,
    /// The folder of `models--owner--name` folders, shared with Python's `huggingface_hub`.
    pub cache_dir: PathBuf,
    /// Use the network for nothing.
    pub offline: bool,
    /// How often one request may fail in a row, without any progress, before it is given up; at least 1.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one, up to [`HubSettings::longest_wait`].
    pub backoff: Duration,
    /// The longest pause between two attempts, also when the Hub names one itself.
    pub longest_wait: Duration,
    /// How long a connection may stay silent before it counts as cut.
    pub stall: Duration,
}

impl HubSettings {
    /// The public Hub with this cache folder, without a token.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.into(),
            token: None,
            cache_dir: cache_dir.into(),
            offline: false,
            attempts: 6,
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_secs(120),
            stall: Duration::from_secs(30),
        }
    }

    /// The settings Python's `huggingface_hub` would take from this process's environment: `HF_ENDPOINT`, `HF_TOKEN`
    /// or the file of `hf auth login` (`HF_TOKEN_PATH`, else `token` in `HF_HOME`), `HF_HUB_CACHE`, `HF_HOME`,
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`Error::Request`] where nothing says which folder the cache is in.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var_os(name), home::folder())
    }

    /// [`HubSettings::from_env`] with another environment, of a user with this folder.
    fn from_vars(raw: impl Fn(&str) -> Option<OsString>, user: Option<PathBuf>) -> Result<Self> {
        let is_said = |value: &OsString| !value.as_encoded_bytes().trim_ascii().is_empty();
        let path_of = |name: &str| raw(name).filter(is_said);
        let var = |name: &str| path_of(name)?.into_string().ok();
        // Without a user `~` stays what it is, as in Python.
        let tilde = user.clone().unwrap_or_else(|| "~".into());
        let path = |text: OsString| PathBuf::from(expand(&text, tilde.as_os_str(), &raw));
        let caches = || path_of("XDG_CACHE_HOME").map(path).or_else(|| Some(user?.join(".cache")));
        let home = path_of("HF_HOME").map(path).or_else(|| Some(caches()?.join("huggingface")));
        let cache_dir = path_of("HF_HUB_CACHE").or_else(|| path_of("HUGGINGFACE_HUB_CACHE")).map(path);
        let cache_dir = cache_dir.or_else(|| Some(home.as_ref()?.join("hub"))).ok_or_else(no_folder)?;
        let token_file = path_of("HF_TOKEN_PATH").map(path).or_else(|| Some(home?.join("token")));
        let token = || {
            let given = var("HF_TOKEN").or_else(|| var("HUGGING_FACE_HUB_TOKEN"));
            Token::new(&given.or_else(|| std::fs::read_to_string(token_file?).ok())?)
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            token: if is_on(var("HF_HUB_DISABLE_IMPLICIT_TOKEN")) { None } else { token() },
            offline: is_on(var("HF_HUB_OFFLINE")) || is_on(var("TRANSFORMERS_OFFLINE")),
            ..Self::new(cache_dir)
        })
    }
}

fn no_folder() -> Error {
    let what =
        "nothing says where the cache of the Hub is: HOME is not set, and the system knows no folder of this user";
    Error::request(what, "set HF_HOME to a folder with room for the model, or give --model a folder")
}

/// What `huggingface_hub` takes for a yes (`constants.py`, `ENV_VARS_TRUE_VALUES`).
fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.trim().to_ascii_uppercase().as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Of a user whose folder is `HOME`, else `/db`, where the system's list of users has it.
    fn settings(vars: &[(&str, &str)]) -> HubSettings {
        let variable = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        let user = variable("HOME").unwrap_or("/db".into());
        HubSettings::from_vars(variable, Some(user.into())).expect("a folder")
    }

    #[test]
    fn folders_follow_pythons_order() {
        let cases: [(&[(&str, &str)], &str); 11] = [
            (&[], "/db/.cache/huggingface/hub"),
            (&[("HOME", "/u")], "/u/.cache/huggingface/hub"),
            (&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")], "/u/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/cache")], "/cache"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")], "/hf/hub"),
            (&[("HOME", "/u"), ("HF_HOME", "$HOME/hf")], "/u/hf/hub"),
            (&[("DISK", "/d"), ("HF_HUB_CACHE", "${DISK}/hub")], "/d/hub"),
            (&[("HOME", "/u"), ("DISK", "d"), ("XDG_CACHE_HOME", "~/$DISK")], "/u/d/huggingface/hub"),
            (&[("HOME", "/u"), ("HF_HOME", "~/hf"), ("HF_HUB_CACHE", "$NO/hub")], "$NO/hub"),
        ];
        for (vars, folder) in cases {
            assert_eq!(settings(vars).cache_dir, Path::new(folder), "{vars:?}");
        }
    }

    #[test]
    fn without_any_home_a_folder_must_be_named() {
        let of = |vars: &[(&str, &str)]| {
            let find = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            HubSettings::from_vars(find, None)
        };
        let error = of(&[]).expect_err("no folder");
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint().expect("advice").contains("HF_HOME"), "never a folder beside the pictures");
        for vars in [[("HF_HOME", "/hf")], [("HF_HUB_CACHE", "/hf/hub")], [("XDG_CACHE_HOME", "/x")]] {
            assert!(of(&vars).expect("named").cache_dir.ends_with("hub"), "{vars:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn folders_whose_names_are_no_text_are_folders() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let odd = OsStr::from_bytes(b"/l\xe9");
        for (name, below) in [("HF_HOME", "hub"), ("HF_HUB_CACHE", ""), ("XDG_CACHE_HOME", "huggingface/hub")] {
            let found = HubSettings::from_vars(|asked| (asked == name).then(|| odd.into()), Some("/u".into()));
            assert_eq!(found.expect("named").cache_dir, Path::new(odd).join(below), "{name}");
        }
        let found = HubSettings::from_vars(|_| None, Some(odd.into())).expect("a home");
        assert_eq!(found.cache_dir, Path::new(odd).join(".cache/huggingface/hub"));
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_login_file_and_never_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("a plain path");
        assert_eq!(settings(&[("HF_HOME", home)]).token, None);
        std::fs::write(folder.path().join("token"), "hf_file\n").expect("a token file");
        assert_eq!(settings(&[("HF_HOME", home)]).token, Token::new("hf_file"));
        assert_eq!(settings(&[("HF_HOME", home), ("HF_TOKEN", " hf_env ")]).token, Token::new("hf_env"));
        assert_eq!(settings(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other").expect("another token file");
        assert_eq!(settings(&[("T", home), ("HF_TOKEN_PATH", "$T/other")]).token, Token::new("hf_other"));
        let other = other.to_str().expect("a plain path");
        assert_eq!(settings(&[("HF_HOME", home), ("HF_TOKEN_PATH", other)]).token, Token::new("hf_other"));
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "hf_env")]));
        assert!(!shown.contains("hf_env") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn offline_and_endpoint_are_read_as_python_reads_them() {
        for (value, offline) in [("1", true), ("true", true), ("YES", true), ("on", true), ("0", false), ("no", false)]
        {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        assert_eq!(settings(&[("HF_ENDPOINT", "https://mirror.example/")]).endpoint, "https://mirror.example");
    }
}
