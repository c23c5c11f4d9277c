//! Which parts a family's models have, and where each may lie. Finding, fetching and the flags of the command line follow from
//! this one description.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde::Deserialize;

use crate::{
    base::json::read_json,
    weights::{Files, TensorSource},
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
    /// Files of any of these sets make it, in its folder.
    pub files: &'static [&'static [&'static str]],
    /// A file beside a single-file transformer that is this part.
    pub beside: Option<&'static str>,
    /// Whether a single file that holds the transformer holds this part too.
    pub is_inside: fn(&Arc<dyn TensorSource>) -> bool,
}

/// For parts that no single file holds.
pub fn never_inside(_: &Arc<dyn TensorSource>) -> bool {
    false
}

/// The part of a shard index that matters here: tensor name -> file name.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl PartSpec {
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

    /// Whether `folder` holds this part (or at least says that it does).
    pub(crate) fn is_in(&self, folder: &Path, files: &Files) -> bool {
        self.files.iter().any(|set| set.iter().all(|file| files.is_file(&folder.join(file))))
    }

    /// "vae (looked for vae/config.json or ae.safetensors in DIR)"
    pub(crate) fn missing_from(&self, root: &Path) -> String {
        let sets = self.files.iter().map(|set| {
            let files: Vec<_> = set.iter().map(|file| format!("{}/{file}", self.name)).collect();
            files.join(" and ")
        });
        let looked: Vec<_> = sets.chain(self.beside.map(str::to_owned)).collect();
        format!("{} (looked for {} in {})", self.name, looked.join(" or "), root.display())
    }

    /// Whether the file `name` of its folder in a repository is of use; `siblings` are all names in the folder.
    pub(crate) fn wants(&self, name: &str, siblings: &BTreeSet<&str>) -> bool {
        match self.kind {
            PartKind::Scheduler => name.ends_with(".json"),
            // The sentencepiece model holds what tokenizer.json holds, in a form nothing here reads.
            PartKind::Tokenizer => {
                name.ends_with(".json")
                    || name.ends_with(".txt")
                    || (name == "spiece.model" && !siblings.contains("tokenizer.json"))
            }
            PartKind::Denoiser | PartKind::Network => name == "config.json" || is_plain_weights(name),
        }
    }

    /// The first file that `folder`, its folder in a local copy of a repository, lacks.
    pub(crate) fn lacking(&self, folder: &Path) -> Option<String> {
        let absent = |file: &&&str| !folder.join(file).is_file();
        let sets: Vec<Option<&str>> = self.files.iter().map(|set| set.iter().find(absent).copied()).collect();
        if !sets.contains(&None) {
            // The last set is the least demanding a file at a time.
            return sets.last().copied().flatten().map(|file| format!("{}/{file}", self.name));
        }
        self.has_weights().then(|| self.lacking_weights(folder)).flatten()
    }

    /// The first weight file this folder lacks: a single file needs nothing else, an index all its shards.
    fn lacking_weights(&self, folder: &Path) -> Option<String> {
        let names = names_in(folder);
        let is_single = |name: &String| name.ends_with(".safetensors") && !name.contains("-of-");
        if names.iter().any(|name| is_plain_weights(name) && is_single(name)) {
            return None;
        }
        let Some(index) = names.iter().find(|name| is_plain_weights(name) && name.ends_with(".json")) else {
            return Some(format!("the weights of {}/", self.name));
        };
        let Ok(parsed) = read_json::<Index>(&folder.join(index)) else {
            return Some(format!("a readable {}/{index}", self.name));
        };
        let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
        let absent = shards.into_iter().find(|shard| !folder.join(shard).is_file());
        absent.map(|shard| format!("{}/{shard}", self.name))
    }
}

/// Weights in safetensors form, or their index, in no variant: a variant stands behind a dot, as in
/// `model.fp16.safetensors` and `model.safetensors.index.fp16.json`.
fn is_plain_weights(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors.index.json").or_else(|| name.strip_suffix(".safetensors"));
    stem.is_some_and(|stem| !stem.is_empty() && !stem.contains('.'))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A link whose blob is gone is no file.
    let files = entries.filter(|entry| entry.path().is_file());
    files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
