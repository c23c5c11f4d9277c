//! Parts that come from a repository of the Hub of their own: which files of it, and where they then lie.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Lender, PartKind, PartSpec, Place};
use crate::{
    hub::FileSet,
    weights::{Files, all_parts, has_weights_ending, missing_part},
};

/// A tokenizer's settings, which it can do without.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// A part from elsewhere that is no path of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    /// Its file or folder, or where that will be.
    pub path: PathBuf,
    /// What to call its origin: `owner/name@commit:path`.
    pub from: String,
}

impl Lent {
    /// Where it is, among these files.
    pub(super) fn place(&self, files: &Files) -> Place {
        if files.is_dir(&self.path) { Place::Folder(self.path.clone()) } else { self.path.clone().into() }
    }
}

/// The files of a part in a repository.
pub struct LentFiles {
    /// What the part may be, as the families say it.
    specs: Vec<&'static PartSpec>,
    within: Within,
}

/// Where in a repository.
enum Within {
    /// These files.
    Files(&'static [&'static str]),
    /// The file or folder of this path.
    Path(String),
    /// Its own folder, or the root of the repository.
    Anywhere,
}

impl LentFiles {
    /// What a lender has of a part.
    pub fn of(part: &'static PartSpec, lender: &Lender) -> Self {
        let within = match lender.files {
            [] => Within::Anywhere,
            files => Within::Files(files),
        };
        Self { specs: vec![part], within }
    }

    /// What is at a path of a repository, as one of these parts.
    pub fn at(specs: Vec<&'static PartSpec>, path: Option<&str>) -> Self {
        Self { specs, within: path.map_or(Within::Anywhere, |path| Within::Path(path.to_owned())) }
    }

    /// The part's path in the repository, of which these files are taken; empty for the repository itself.
    pub fn path(&self, taken: &[String]) -> String {
        let folder = |file: &str| file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let is_tokenizer = self.specs.iter().any(|part| part.kind == PartKind::Tokenizer);
        match (&self.within, taken) {
            (Within::Files([file, ..]), _) if is_tokenizer => folder(file),
            (Within::Files([file, ..]), _) => (*file).to_owned(),
            (Within::Path(path), _) => path.clone(),
            (_, [file, ..]) => folder(file),
            (_, []) => String::new(),
        }
    }

    /// The folders of a repository that the part may be in.
    fn folders(&self, part: &PartSpec) -> Vec<String> {
        match &self.within {
            Within::Files(_) => Vec::new(),
            Within::Path(path) => vec![path.clone()],
            Within::Anywhere => vec![part.name.to_owned(), String::new()],
        }
    }

    /// What is taken of one folder.
    fn in_folder(part: &PartSpec, folder: &str, listing: &[String]) -> Result<Vec<String>, String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let inside = listing.iter().filter_map(|path| path.strip_prefix(&prefix));
        let names: BTreeSet<&str> = inside.filter(|name| !name.contains('/')).collect();
        let files = part.select(&names, None)?.files;
        let is_whole = match part.kind {
            PartKind::Denoiser | PartKind::Network => files.iter().any(|name| has_weights_ending(name)),
            _ => part.files.iter().any(|set| set.iter().all(|file| files.contains(file))),
        };
        if !is_whole {
            return Err(format!("no {} in {}", part.name, if folder.is_empty() { "its root" } else { folder }));
        }
        Ok(files.iter().map(|name| format!("{prefix}{name}")).collect())
    }
}

impl FileSet for LentFiles {
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String> {
        match &self.within {
            Within::Files(files) => {
                let here = |file: &&&str| listing.iter().any(|path| path == **file);
                match files.iter().find(|file| !here(file) && !file.ends_with(TOKENIZER_CONFIG)) {
                    Some(absent) => Err(format!("no file {absent}")),
                    None => Ok(files.iter().filter(here).map(|file| (*file).to_owned()).collect()),
                }
            }
            Within::Path(path) if listing.contains(path) => all_parts(path, listing),
            _ => {
                let mut lacks = "nothing of the kind".to_owned();
                for part in &self.specs {
                    for folder in self.folders(part) {
                        match Self::in_folder(part, &folder, listing) {
                            Ok(files) => return Ok(files),
                            Err(why) => lacks = why,
                        }
                    }
                }
                Err(lacks)
            }
        }
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        match &self.within {
            Within::Files(files) => {
                let absent = |file: &&&str| !file.ends_with(TOKENIZER_CONFIG) && !snapshot.join(file).is_file();
                files.iter().find(absent).map(|file| (*file).to_owned())
            }
            Within::Path(path) if snapshot.join(path).is_file() => missing_part(snapshot, path),
            _ => {
                let folders = self.specs.iter().flat_map(|part| {
                    self.folders(part).into_iter().map(|folder| part.lacking(&snapshot.join(folder), None))
                });
                let mut lacking: Vec<_> = folders.collect();
                if lacking.contains(&None) { None } else { lacking.pop().flatten() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::BUILT_IN;

    fn part(name: &str) -> &'static PartSpec {
        BUILT_IN[0].parts().iter().find(|part| part.name == name).expect("a part")
    }

    fn listing(paths: &str) -> Vec<String> {
        paths.split_whitespace().map(str::to_owned).collect()
    }

    const CLIP: &str = "README.md merges.txt model.safetensors tokenizer_config.json vocab.json";

    #[test]
    fn of_a_lender_the_files_of_the_part_are_taken_and_no_more() {
        let of = |name: &str, repo: &str| {
            let lender = part(name).lenders.iter().find(|lender| lender.repo == repo).expect("a lender");
            LentFiles::of(part(name), lender)
        };
        let clip = of("tokenizer", "openai/clip-vit-large-patch14");
        let taken = clip.select(&listing(CLIP)).expect("a tokenizer");
        assert_eq!(
            (taken.join(" ").as_str(), clip.path(&taken).as_str()),
            ("vocab.json merges.txt tokenizer_config.json", "")
        );
        assert_eq!(clip.select(&listing("vocab.json")), Err("no file merges.txt".to_owned()));
        assert_eq!(clip.select(&listing("vocab.json merges.txt")).map(|taken| taken.len()), Ok(2), "settings may lack");
        let t5 = of("text_encoder_2", "comfyanonymous/flux_text_encoders");
        let taken = t5.select(&listing("clip_l.safetensors t5xxl_fp16.safetensors")).expect("an encoder");
        assert_eq!(t5.path(&taken), "t5xxl_fp16.safetensors");
        let own = of("tokenizer", "black-forest-labs/FLUX.1-dev");
        let taken =
            own.select(&listing("ae.safetensors tokenizer/vocab.json tokenizer/merges.txt")).expect("a tokenizer");
        assert_eq!((taken.len(), own.path(&taken).as_str()), (2, "tokenizer"));
    }

    #[test]
    fn a_part_is_at_a_path_in_its_own_folder_or_in_the_root() {
        let at = |path: Option<&str>, paths: &str| {
            let files = LentFiles::at(vec![part("text_encoder")], path);
            files.select(&listing(paths)).map(|taken| files.path(&taken))
        };
        let own = "text_encoder/config.json text_encoder/model.safetensors";
        assert_eq!(at(None, own), Ok("text_encoder".to_owned()));
        assert_eq!(at(None, "config.json model.safetensors"), Ok(String::new()));
        assert_eq!(at(Some("a/clip.safetensors"), "a/clip.safetensors"), Ok("a/clip.safetensors".to_owned()));
        assert_eq!(at(Some("a"), "a/config.json a/model.safetensors"), Ok("a".to_owned()));
        assert!(at(None, "README.md").is_err() && at(Some("b"), own).is_err());
    }

    #[test]
    fn a_copy_on_this_disk_is_complete_or_lacks_something() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux");
        let missing = |files: LentFiles| files.missing(&root);
        assert_eq!(missing(LentFiles::at(vec![part("tokenizer")], None)), None);
        assert_eq!(missing(LentFiles::at(vec![part("tokenizer")], Some("tokenizer"))), None);
        assert_eq!(
            missing(LentFiles::at(vec![part("vae")], Some("vae/config.json"))),
            None,
            "a file is what was asked"
        );
        assert!(missing(LentFiles::at(vec![part("tokenizer")], Some("text_encoder"))).is_some());
        let openai = part("tokenizer").lenders.last().expect("a lender");
        assert_eq!(missing(LentFiles::of(part("tokenizer"), openai)).as_deref(), Some("vocab.json"));
    }
}
