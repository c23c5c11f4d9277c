//! Which parts a family's models have, and where each may lie. Finding, fetching and the flags of the command line follow from
//! this one description.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::{
    base::json::read_json,
    error::{Error, Result},
    weights::{Files, Stored, TensorSource, has_weights_ending, is_later_part, names_in},
};

/// What a part is, as far as its files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// The transformer: what `--model` names where it is a single file.
    Denoiser,
    /// Another network: `config.json` and weights.
    Network,
    /// A tokenizer.
    Tokenizer,
    /// The scheduler's config, which a model can do without.
    Scheduler,
}

/// Whether a file that holds a part, the first, goes with a transformer, the second; the reason where it does not.
pub type Fits = fn(&Arc<dyn TensorSource>, &Arc<dyn TensorSource>) -> Result<(), String>;

/// One part of the models of a family.
#[derive(Debug)]
pub struct PartSpec {
    /// Its name, which is its folder in diffusers layout, and its word in `--part` and in provenance.
    pub name: &'static str,
    /// What it is.
    pub kind: PartKind,
    /// Its own flag without dashes, where it has one besides `--part`.
    pub flag: Option<&'static str>,
    /// What the flag's help says.
    pub help: &'static str,
    /// What its config's `_class_name` is, where families have parts of one name and different classes.
    pub class: Option<&'static str>,
    /// Files of any of these sets make it, in its folder; where several are there, the last is the one that is read.
    pub files: &'static [&'static [&'static str]],
    /// Names of files beside a single-file transformer that are this part, the best first; a `*` stands for any letters.
    pub beside: &'static [&'static str],
    /// Whether a single file, of the transformer or of this part, holds this part.
    pub is_inside: fn(&Arc<dyn TensorSource>) -> bool,
    /// Folders of ComfyUI's layout that hold such parts.
    pub folders: &'static [&'static str],
    /// Whether a file that holds this part goes with a transformer.
    pub fits: Fits,
    /// Repositories of the Hub that hold this part for single files, the best first.
    pub lenders: &'static [Lender],
}

/// A repository of the Hub that holds a part which a single file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lender {
    /// `owner/name`.
    pub repo: &'static str,
    /// The part's files by their paths there; none for the part's own folder in diffusers layout, or, where there is no such folder,
    /// the files in the root.
    pub files: &'static [&'static str],
    /// Whether anybody may fetch them. Of a repository whose licence has to be accepted first only a copy that is on this disk
    /// serves.
    pub is_open: bool,
}

/// For parts that no single file holds.
pub fn never_inside(_: &Arc<dyn TensorSource>) -> bool {
    false
}

/// A network's config, in its folder.
const CONFIG: &str = "config.json";

/// Whether a name is like a pattern of one `*` at most; in names of files case is of no account.
fn is_like(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_ascii_lowercase(), pattern.to_ascii_lowercase());
    match pattern.split_once('*') {
        None => name == pattern,
        Some((head, tail)) => name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail),
    }
}

/// Whether a file's name ends as those of weights in forms that are not read.
fn is_pickle(name: &str) -> bool {
    [".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx"].iter().any(|ending| name.ends_with(ending))
}

/// What is of use of a part's folder.
pub(crate) struct PartFiles<'a> {
    /// Names in the folder.
    pub(crate) files: Vec<&'a str>,
    /// The variant of the weights among them, where they are none of the plain ones.
    pub(crate) variant: Option<String>,
}

/// The part of a shard index that matters here: tensor name -> file name.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl PartSpec {
    /// A model's transformer.
    pub const TRANSFORMER: Self = Self {
        name: "transformer",
        kind: PartKind::Denoiser,
        help: "Transformer",
        folders: &["diffusion_models", "unet", "checkpoints"],
        ..Self::BARE
    };

    /// A model's schedule.
    pub const SCHEDULER: Self = Self {
        name: "scheduler",
        kind: PartKind::Scheduler,
        help: "Scheduler's config",
        files: &[&["scheduler_config.json"]],
        ..Self::BARE
    };

    /// A network about which nothing is said: what a family's own parts say more than.
    pub const BARE: Self = Self {
        name: "",
        kind: PartKind::Network,
        flag: None,
        help: "",
        class: None,
        files: &[&[CONFIG]],
        beside: &[],
        is_inside: never_inside,
        folders: &[],
        fits: |_, _| Ok(()),
        lenders: &[],
    };

    /// Whether its files are a network's: a config and weights.
    pub(crate) fn has_weights(&self) -> bool {
        matches!(self.kind, PartKind::Denoiser | PartKind::Network)
    }

    /// The flag that gives it: `--vae`, or `--part NAME=PATH`; for the transformer `--model`.
    pub(crate) fn flag(&self) -> String {
        match (self.kind, self.flag) {
            (PartKind::Denoiser, _) => "--model".into(),
            (_, Some(flag)) => format!("--{flag}"),
            (_, None) => format!("--part {}=PATH", self.name),
        }
    }

    /// The flag that gave it, where one did: a transformer beside a model comes from `--part` too.
    pub(crate) fn given_by(&self) -> String {
        match self.kind {
            PartKind::Denoiser => format!("--part {}", self.name),
            _ => self.flag(),
        }
    }

    /// Whether `folder` holds this part (or at least says that it does).
    pub(crate) fn is_in(&self, folder: &Path, files: &Files) -> bool {
        self.set_in(folder, files).is_some()
    }

    /// The set of files in `folder` that is read.
    pub(crate) fn set_in(&self, folder: &Path, files: &Files) -> Option<&'static [&'static str]> {
        self.files.iter().rev().find(|set| set.iter().all(|file| files.is_file(&folder.join(file)))).copied()
    }

    /// Whether a file of this name beside a single-file transformer is this part.
    pub(crate) fn is_beside(&self, name: &str) -> bool {
        self.usual_name(name).is_some()
    }

    /// Which of the usual names a file has, the best first.
    pub(crate) fn usual_name(&self, name: &str) -> Option<usize> {
        self.beside.iter().position(|pattern| is_like(name, pattern))
    }

    /// The file of this part in a folder of files, by its name.
    ///
    /// # Errors
    /// [`Error::Model`] when several are equally good.
    pub(crate) fn file_in(&self, folder: &Path, files: &Files) -> Result<Option<PathBuf>> {
        let names = files.names_in(folder);
        for pattern in self.beside {
            let found: Vec<&String> =
                names.iter().filter(|name| is_like(name, pattern) && !is_later_part(name)).collect();
            match found.as_slice() {
                [] => {}
                [one] => return Ok(Some(folder.join(one))),
                several => return Err(self.several(folder, several)),
            }
        }
        Ok(None)
    }

    /// The one file in a folder that holds this part, by its tensors: names are anybody's choice.
    pub(crate) fn file_by_contents(&self, folder: &Path, files: &Files) -> Result<Option<PathBuf>> {
        // Of shards no one is the part.
        if files.stored(folder)?.is_some_and(|stored| stored.is_sharded) {
            return Ok(None);
        }
        let mut names: Vec<String> = files
            .names_in(folder)
            .into_iter()
            .filter(|name| has_weights_ending(name) && !is_later_part(name))
            .collect();
        if names.len() > 1 {
            names.retain(|name| {
                let opened = files.open(&[folder.join(name)]).map(|source| Arc::new(source) as Arc<dyn TensorSource>);
                opened.is_ok_and(|source| (self.is_inside)(&source))
            });
        }
        match names.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(folder.join(one))),
            several => Err(self.several(folder, &several.iter().collect::<Vec<_>>())),
        }
    }

    /// The error of a folder in which several files may be this part.
    pub(crate) fn several(&self, folder: &Path, names: &[&String]) -> Error {
        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        let what = format!("{} holds several files for the {}: {}", folder.display(), self.name, names.join(", "));
        Error::model(what, format!("give the one that is meant with {}", self.flag()))
    }

    /// "vae (looked for vae/config.json or ae.safetensors in DIR)", and in trees of folders.
    pub(crate) fn missing_from(&self, root: &Path, trees: &[PathBuf]) -> String {
        let sets = self.files.iter().map(|set| {
            let files: Vec<_> = set.iter().map(|file| format!("{}/{file}", self.name)).collect();
            files.join(" and ")
        });
        let looked: Vec<_> = sets.chain(self.beside.iter().map(|name| (*name).to_owned())).collect();
        let mut folders = vec![root.display().to_string()];
        for tree in trees {
            let inside = self.folders.iter().map(|folder| tree.join(folder));
            let inside: Vec<_> = inside.filter(|folder| folder.is_dir()).collect();
            folders.extend(inside.iter().map(|folder| folder.display().to_string()));
            if inside.is_empty() {
                folders.push(tree.display().to_string());
            }
        }
        format!("{} (looked for {} in {})", self.name, looked.join(" or "), folders.join(", "))
    }

    /// "clip_l.safetensors of OWNER/NAME into ROOT": what anybody can fetch, and where it is found.
    pub(crate) fn put_into(&self, root: &Path) -> Option<String> {
        let lender = self.lenders.iter().find(|lender| lender.is_open)?;
        if lender.files.is_empty() {
            return Some(format!("{}/ of {} into {}", self.name, lender.repo, root.display()));
        }
        let folder = if self.kind == PartKind::Tokenizer { root.join(self.name) } else { root.to_path_buf() };
        let needed: Vec<_> = lender.files.iter().filter(|file| !file.ends_with("tokenizer_config.json")).collect();
        let files: Vec<_> = needed.iter().map(|file| **file).collect();
        Some(format!("{} of {} into {}", files.join(" and "), lender.repo, folder.display()))
    }

    /// Which files of its folder in a repository are of use, among all `names` in the folder, and which variant its weights
    /// are; `wanted` is the one that was asked for.
    ///
    /// # Errors
    /// What is wrong with the folder, in words.
    pub(crate) fn select<'a>(&self, names: &BTreeSet<&'a str>, wanted: Option<&str>) -> Result<PartFiles<'a>, String> {
        let all = names.iter().copied();
        let of = |files: Vec<&'a str>| Ok(PartFiles { files, variant: None });
        match self.kind {
            PartKind::Scheduler => of(all.filter(|name| name.ends_with(".json")).collect()),
            // The sentencepiece model holds what tokenizer.json holds.
            PartKind::Tokenizer => of(all
                .filter(|name| {
                    name.ends_with(".json")
                        || name.ends_with(".txt")
                        || (*name == "spiece.model" && !names.contains("tokenizer.json"))
                })
                .collect()),
            PartKind::Denoiser | PartKind::Network => {
                let stored = Stored::among(all.clone(), wanted).map_err(|variants| self.ambiguous(&variants))?;
                if let Some(pickle) = all.clone().find(|name| is_pickle(name)).filter(|_| stored.is_none()) {
                    return Err(format!("no .safetensors weights in {}/, but {pickle}, which is not read", self.name));
                }
                let is_taken =
                    |name: &&str| *name == CONFIG || stored.as_ref().is_some_and(|stored| stored.takes(name));
                let files = all.filter(is_taken).collect();
                Ok(PartFiles { files, variant: stored.and_then(|stored| stored.variant) })
            }
        }
    }

    fn ambiguous(&self, variants: &BTreeSet<String>) -> String {
        let variants: Vec<_> = variants.iter().map(String::as_str).collect();
        format!(
            "several variants of weights in {}/ and no plain ones (say which with --variant: {})",
            self.name,
            variants.join(", ")
        )
    }

    /// The first file that `folder`, its folder in a local copy of a repository, lacks.
    pub(crate) fn lacking(&self, folder: &Path, wanted: Option<&str>) -> Option<String> {
        let absent = |file: &&&str| !folder.join(file).is_file();
        let sets: Vec<Option<&str>> = self.files.iter().map(|set| set.iter().find(absent).copied()).collect();
        if !sets.contains(&None) {
            // The last set is the least demanding a file at a time.
            return sets.last().copied().flatten().map(|file| format!("{}/{file}", self.name));
        }
        self.has_weights().then(|| self.lacking_weights(folder, wanted)).flatten()
    }

    /// The first weight file this folder lacks: a single file needs nothing else, an index all its shards.
    fn lacking_weights(&self, folder: &Path, wanted: Option<&str>) -> Option<String> {
        let names: Vec<_> = names_in(folder).collect();
        let stored = match Stored::among(names.iter().map(String::as_str), wanted) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Some(format!("the weights of {}/", self.name)),
            // Which of them it is to be is asked when they are opened.
            Err(_) => return None,
        };
        if !stored.is_sharded {
            return None;
        }
        let index = stored.main;
        let Ok(parsed) = read_json::<Index>(&folder.join(&index)) else {
            return Some(format!("a readable {}/{index}", self.name));
        };
        let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
        let absent = shards.into_iter().find(|shard| !folder.join(shard).is_file());
        absent.map(|shard| format!("{}/{shard}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn a_star_stands_for_any_letters() {
        for name in ["t5xxl.safetensors", "t5xxl_fp16.safetensors", "T5XXL_fp8_e4m3fn.SafeTensors"] {
            assert!(is_like(name, "t5xxl*.safetensors"), "{name}");
        }
        for name in ["t5xxl.sft", "a_t5xxl.safetensors", "t5xxl.safetensors.bak", "safetensors"] {
            assert!(!is_like(name, "t5xxl*.safetensors"), "{name}");
        }
        assert!(is_like("AE.safetensors", "ae.safetensors") && !is_like("a.safetensors", "ae.safetensors"));
        assert!(!is_like("ab", "ab*b"), "nothing counts twice");
    }
}
