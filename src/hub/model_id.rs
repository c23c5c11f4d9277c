//! The name of a model on the Hub: `owner/name[@revision]`.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// The revision of a name that gives none.
const DEFAULT_REVISION: &str = "main";

/// Digits of a commit that tell it from a branch or tag, as git shortens it.
const SHORTEST_COMMIT: usize = 7;

/// The longest owner or name the Hub gives out (`huggingface_hub`, `validate_repo_id`).
const LONGEST_NAME: usize = 96;

const HINT: &str = "give an existing folder or file, or a Hub id such as black-forest-labs/FLUX.1-Krea-dev";

/// A model on the Hub at a revision, as in `black-forest-labs/FLUX.1-dev@main`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubModel {
    owner: String,
    name: String,
    revision: String,
}

impl HubModel {
    /// The user or organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name without its owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, a tag or a full commit; `main` where none was given.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// `owner/name`.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Where the model's licence can be read and accepted.
    pub fn page(&self) -> String {
        format!("https://huggingface.co/{}/{}", self.owner, self.name)
    }

    /// The first digits of a commit, when the revision can be that (7 to 39 hexadecimal digits).
    pub fn short_commit(&self) -> Option<&str> {
        let is_short = (SHORTEST_COMMIT..40).contains(&self.revision.len());
        (is_short && self.revision.bytes().all(|b| b.is_ascii_hexdigit())).then_some(self.revision.as_str())
    }

    /// Whether any commit will do, the latest best: the revision is that of a name which gives none.
    pub fn is_default_revision(&self) -> bool {
        self.revision == DEFAULT_REVISION
    }

    /// The commit, when the revision is a full one (40 hexadecimal digits): what it names can never change.
    pub fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(self.revision.as_str())
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl FromStr for HubModel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if looks_like_a_path(text) {
            return Err(Error::request(format!("there is no file or folder {text:?}"), HINT));
        }
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, revision),
            None => (text, DEFAULT_REVISION),
        };
        let Some((owner, name)) = repo.split_once('/') else {
            let what = format!("{text:?} is no file or folder here, and no Hub id: that is OWNER/NAME[@REVISION]");
            return Err(Error::request(what, HINT));
        };
        let complaint = complain_of_name("owner", owner)
            .or_else(|| complain_of_name("name", name))
            .or_else(|| complain_of_revision(revision));
        match complaint {
            Some(complaint) => Err(Error::request(format!("{text:?} is no Hub id: {complaint}"), HINT)),
            None => Ok(Self { owner: owner.into(), name: name.into(), revision: revision.into() }),
        }
    }
}

/// Whether `text` is a full git commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether someone who wrote `text` meant a place on this machine.
fn looks_like_a_path(text: &str) -> bool {
    let repo = text.split('@').next().unwrap_or(text);
    let file_endings = [".safetensors", ".gguf", ".sft", ".ckpt", ".json"];
    text.starts_with(['.', '/', '~'])
        || text.contains('\\')
        || repo.matches('/').count() > 1
        || repo.ends_with('/')
        || file_endings.iter().any(|ending| repo.to_ascii_lowercase().ends_with(ending))
}

/// What the Hub would find wrong with an owner or a name (`huggingface_hub`, `validate_repo_id`).
fn complain_of_name(part: &str, text: &str) -> Option<String> {
    let odd = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c)));
    if text.is_empty() {
        Some(format!("its {part} is empty"))
    } else if let Some(c) = odd {
        Some(format!("its {part} has a {c:?}; letters, digits, '-', '_' and '.' can be there"))
    } else if text.len() > LONGEST_NAME {
        Some(format!("its {part} has {} characters, {LONGEST_NAME} is the most", text.len()))
    } else if text.contains("--") || text.contains("..") {
        Some(format!("its {part} has \"--\" or \"..\" in it"))
    } else if text.starts_with(['-', '.']) || text.ends_with(['-', '.']) {
        Some(format!("its {part} begins or ends with '-' or '.'"))
    } else {
        None
    }
}

/// What git would find wrong with a revision; it also becomes a path below `refs/`, which it must not leave.
fn complain_of_revision(text: &str) -> Option<String> {
    let odd = text.chars().find(|c| c.is_whitespace() || c.is_control() || "~^:?*[\\@\"<>|".contains(*c));
    if text.is_empty() {
        Some("nothing follows the '@'".into())
    } else if let Some(c) = odd {
        Some(format!("its revision has a {c:?}"))
    } else if text.split('/').any(|segment| segment.is_empty() || segment.starts_with('.') || segment.ends_with('.')) {
        Some(format!("{text:?} cannot be a revision"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> HubModel {
        text.parse().expect(text)
    }

    #[test]
    fn a_name_has_an_owner_and_perhaps_a_revision() {
        let model = parse("black-forest-labs/FLUX.1-Krea-dev");
        assert_eq!((model.owner(), model.name(), model.revision()), ("black-forest-labs", "FLUX.1-Krea-dev", "main"));
        assert_eq!(model.to_string(), "black-forest-labs/FLUX.1-Krea-dev");
        assert_eq!(model.commit(), None);
        let model = parse("a/b@refs/pr/3");
        assert_eq!((model.revision(), model.to_string().as_str()), ("refs/pr/3", "a/b@refs/pr/3"));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(parse(&format!("a/b@{commit}")).commit(), Some(commit));
    }

    #[test]
    fn what_cannot_be_a_name_is_told_apart() {
        let cases = [
            ("models/flux/dev", "no file or folder"),
            ("./flux", "no file or folder"),
            ("../a/b", "no file or folder"),
            ("/data/flux", "no file or folder"),
            ("~/flux", "no file or folder"),
            ("C:\\flux", "no file or folder"),
            ("models/", "no file or folder"),
            ("models/flux1-dev.safetensors", "no file or folder"),
            ("flux", "no Hub id: that is OWNER/NAME"),
            ("", "no Hub id: that is OWNER/NAME"),
            ("a/", "no file or folder"),
            ("a b/c", "its owner has a ' '"),
            ("a/b@", "nothing follows"),
            ("a/b@x y", "its revision has a ' '"),
            ("a/b@../../x", "cannot be a revision"),
            ("a/b@/x", "cannot be a revision"),
            ("a/b--c", "\"--\""),
            ("a/-b", "begins or ends"),
            ("a/b?c", "its name has a '?'"),
        ];
        for (text, says) in cases {
            let error = text.parse::<HubModel>().expect_err(text);
            assert!(error.to_string().contains(says), "{text:?}: {error}");
            assert_eq!(error.exit_code(), 2, "{text:?}");
            assert!(error.hint().is_some(), "{text:?}");
        }
        let long = format!("a/{}", "x".repeat(97));
        assert!(long.parse::<HubModel>().expect_err("too long").to_string().contains("97 characters"));
    }
}
