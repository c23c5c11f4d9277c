//! The model inside this program: a small FLUX, trained at 512 px on procedural landscapes (`tools/demo-model`), so that
//! there is a picture without a licence and without a network.
//!
//! It is a FLUX repository in diffusers layout like any other. Its files are part of the binary and become a folder when
//! they are asked for, so that whatever reads a model's folder reads this one; nothing behind that knows its name.

mod private;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use sha2::{Digest, Sha256};

use crate::{
    base::{cache, hex::hex},
    error::{Error, Result},
    output,
};

/// What `--model` calls it.
pub const NAME: &str = "demo";

/// A file of the repository: where it stands in it, and what it holds.
type File = (&'static str, &'static [u8]);

#[cfg(feature = "demo")]
macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../assets/demo/", $path)))),+]
    };
}

#[cfg(feature = "demo")]
const FILES: &[File] = files![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];
#[cfg(not(feature = "demo"))]
const FILES: &[File] = &[];

/// Whether this program was built with it.
pub const fn is_built_in() -> bool {
    !FILES.is_empty()
}

/// The first 12 hexadecimal digits of the sha256 of all its files: which training it is of.
pub fn revision() -> &'static str {
    static REVISION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        for (path, bytes) in FILES {
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(path);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hex(&hash.finalize()[..6])
    });
    &REVISION
}

/// Whether `model` names it: `demo`, or `demo@REVISION` as pictures say it.
///
/// # Errors
/// [`Error::Model`] when another revision is asked for, or this program was built without it.
pub fn is_named_by(model: &str) -> Result<bool> {
    let (name, asked) = model.split_once('@').map_or((model, None), |(name, revision)| (name, Some(revision)));
    if name != NAME {
        return Ok(false);
    }
    if !is_built_in() {
        let hint = "build it with the default features, or name another model";
        return Err(Error::model("--model demo: this dype was built without the model inside", hint));
    }
    match asked.filter(|asked| *asked != revision()) {
        None => Ok(true),
        Some(asked) => {
            let what = format!("--model {model}: the model inside this dype is {NAME}@{}, not {asked}", revision());
            Err(Error::model(what, format!("use --model {NAME} for a similar picture, or the dype that made it")))
        }
    }
}

/// Its folder in the user's cache, written when it is not there or not as it should be; where there is no cache to write
/// to, in a folder for temporary files that is this user's alone.
///
/// # Errors
/// [`Error::Disk`] when none can be written.
pub fn folder() -> Result<PathBuf> {
    let name = format!("{NAME}-{}", revision());
    let Some(kept) = cache::folder().map(|cache| cache.join(&name)) else { return temporary(&name) };
    // What was wrong with the cache is what the user can mend.
    filled(kept).or_else(|error| temporary(&name).map_err(|_| error))
}

/// The same among temporary files, in memory where the system has such a folder.
fn temporary(name: &str) -> Result<PathBuf> {
    let folders = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let mut failed = None;
    for folder in &folders {
        match private::folder(folder).map_err(|e| Error::disk("cannot create a folder of our own in", folder, e)) {
            Ok(private) => match filled(private.join(name)) {
                Ok(filled) => return Ok(filled),
                Err(error) => failed.get_or_insert(error),
            },
            Err(error) => failed.get_or_insert(error),
        };
    }
    Err(failed.unwrap_or_else(|| Error::request("no folder for temporary files", "set DYPE_CACHE")))
}

fn filled(folder: PathBuf) -> Result<PathBuf> {
    if !is_whole(&folder) {
        write_all(&folder)?;
    }
    Ok(folder)
}

/// Writes it as a new folder that other programs can load.
///
/// # Errors
/// [`Error::Request`] when something is there already; [`Error::Disk`] when it cannot be written.
pub fn export(folder: &Path) -> Result<()> {
    let is_free = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_free {
        let what = format!("{} is there already, and is not an empty folder", folder.display());
        return Err(Error::request(what, "name a new folder"));
    }
    write_all(folder)
}

/// Whether the folder holds every file, byte for byte.
fn is_whole(folder: &Path) -> bool {
    FILES.iter().all(|(path, bytes)| fs::read(folder.join(path)).is_ok_and(|found| found == *bytes))
}

/// Writes every file; each is whole or not there, however many processes do this at once.
fn write_all(folder: &Path) -> Result<()> {
    for (path, bytes) in FILES {
        output::write_atomically(&folder.join(path), true, |file| file.write_all(bytes))?;
    }
    Ok(())
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;

    /// What the issue of a model inside a binary allows.
    const MOST_BYTES: usize = 16 << 20;

    #[test]
    fn it_is_small() {
        let bytes: usize = FILES.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!((1 << 20..=MOST_BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn every_file_of_the_asset_is_in_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
        let mut folders = vec![root.clone()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("assets/demo is readable") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&root).expect("below").to_string_lossy().replace('\\', "/"));
                }
            }
        }
        found.sort();
        let listed: Vec<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn a_damaged_file_is_written_again_and_a_whole_folder_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = filled(folder.path().join("demo")).expect("written");
        let index = folder.join("model_index.json");
        let written = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).expect("a file");
        let before = written(&index);
        filled(folder.clone()).expect("there");
        assert_eq!(written(&index), before);
        fs::write(&index, "{").expect("damaged");
        assert!(!is_whole(&folder));
        filled(folder.clone()).expect("mended");
        assert!(is_whole(&folder));
    }

    /// Pictures say this revision, and are replayed and resumed by it: it changes with a new training alone.
    #[test]
    fn its_revision_is_the_one_that_its_pictures_say() {
        assert_eq!(revision(), "203f2abcac17");
    }

    /// transformers computes in what a config says where nobody says another, diffusers in float32: `from_pretrained` without
    /// a number type must not mix them.
    #[test]
    fn plain_from_pretrained_gets_one_number_type() {
        for part in ["text_encoder/config.json", "text_encoder_2/config.json"] {
            let (_, config) = FILES.iter().find(|(path, _)| *path == part).expect("a config");
            let config: serde_json::Value = serde_json::from_slice(config).expect("JSON");
            assert_eq!(config["dtype"], "float32", "{part}");
            assert!(config.get("torch_dtype").is_none(), "{part}");
        }
    }

    #[test]
    fn its_name_and_its_own_revision_mean_it() {
        assert!(is_named_by("demo").expect("its name"));
        assert!(is_named_by(&format!("demo@{}", revision())).expect("its revision"));
        assert!(!is_named_by("./demo").expect("a path"));
        assert!(!is_named_by("black-forest-labs/FLUX.1-dev").expect("a Hub id"));
        let error = is_named_by("demo@000000000000").expect_err("another revision");
        assert!(error.to_string().contains(revision()), "{error}");
    }

    #[test]
    fn it_is_exported_to_new_folders_only() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("new/demo");
        export(&folder).expect("exported");
        assert!(is_whole(&folder));
        assert_eq!(export(&folder).expect_err("there already").exit_code(), 2);
    }
}
