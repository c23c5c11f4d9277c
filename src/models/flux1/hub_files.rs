//! Which files of a repository a run needs, and whether a local copy holds them all.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use crate::{base::json::read_json, hub::FileSet};

/// A folder of a FLUX repository in diffusers layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FluxPart {
    /// `scheduler/`
    Scheduler,
    /// `text_encoder/`: CLIP.
    TextEncoder,
    /// `text_encoder_2/`: T5.
    TextEncoder2,
    /// `tokenizer/`: CLIP's.
    Tokenizer,
    /// `tokenizer_2/`: T5's.
    Tokenizer2,
    /// `transformer/`
    Transformer,
    /// `vae/`
    Vae,
}

impl FluxPart {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Scheduler,
        Self::TextEncoder,
        Self::TextEncoder2,
        Self::Tokenizer,
        Self::Tokenizer2,
        Self::Transformer,
        Self::Vae,
    ];

    /// The folder's name.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::Tokenizer => "tokenizer",
            Self::Tokenizer2 => "tokenizer_2",
            Self::Transformer => "transformer",
            Self::Vae => "vae",
        }
    }

    /// Whether the file `name` of this folder is of use; `siblings` are all names in the folder.
    fn wants(self, name: &str, siblings: &BTreeSet<&str>) -> bool {
        match self {
            Self::Scheduler => name.ends_with(".json"),
            // The sentencepiece model holds what tokenizer.json holds, in a form nothing here reads.
            Self::Tokenizer | Self::Tokenizer2 => {
                name.ends_with(".json")
                    || name.ends_with(".txt")
                    || (name == "spiece.model" && !siblings.contains("tokenizer.json"))
            }
            _ => name == "config.json" || is_plain_weights(name),
        }
    }

    /// The first file this folder of a local copy lacks.
    fn missing(self, folder: &Path) -> Option<String> {
        let lacks = |name: &str| (!folder.join(name).is_file()).then(|| format!("{}/{name}", self.folder()));
        match self {
            Self::Scheduler => lacks("scheduler_config.json"),
            Self::Tokenizer => {
                lacks("tokenizer.json").and_then(|_| lacks("vocab.json").or_else(|| lacks("merges.txt")))
            }
            Self::Tokenizer2 => lacks("tokenizer.json"),
            _ => lacks("config.json").or_else(|| self.missing_weights(folder)),
        }
    }

    /// The first weight file this folder lacks: a single file needs nothing else, an index all its shards.
    fn missing_weights(self, folder: &Path) -> Option<String> {
        let names = names_in(folder);
        let shards = |name: &String| name.ends_with(".safetensors") && !name.contains("-of-");
        if names.iter().any(|name| is_plain_weights(name) && shards(name)) {
            return None;
        }
        let Some(index) = names.iter().find(|name| is_plain_weights(name) && name.ends_with(".json")) else {
            return Some(format!("the weights of {}/", self.folder()));
        };
        let Ok(parsed) = read_json::<Index>(&folder.join(index)) else {
            return Some(format!("a readable {}/{index}", self.folder()));
        };
        let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
        let absent = shards.into_iter().find(|shard| !folder.join(shard).is_file());
        absent.map(|shard| format!("{}/{shard}", self.folder()))
    }
}

/// The part of a shard index that matters here: tensor name -> file name.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// A FLUX pipeline in diffusers layout: `model_index.json` and the folders of some parts. Single-file checkpoints at
/// the root and variants such as `*.fp16.safetensors` are never taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluxFiles {
    parts: Vec<FluxPart>,
}

impl FluxFiles {
    /// Everything a picture needs.
    pub fn all() -> Self {
        Self { parts: FluxPart::ALL.to_vec() }
    }

    /// Everything but some parts, because they come from elsewhere.
    pub fn without(parts: &[FluxPart]) -> Self {
        Self { parts: FluxPart::ALL.into_iter().filter(|part| !parts.contains(part)).collect() }
    }
}

impl FileSet for FluxFiles {
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String> {
        let index = "model_index.json";
        if !listing.iter().any(|path| path == index) {
            return Err(format!("no {index}, so it is no pipeline in diffusers layout"));
        }
        let mut selected = vec![index.to_owned()];
        for part in &self.parts {
            let folder = part.folder();
            let inside = |path: &&String| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            let names: BTreeSet<&str> = listing
                .iter()
                .filter(inside)
                .map(|path| &path[folder.len() + 1..])
                .filter(|n| !n.contains('/'))
                .collect();
            let before = selected.len();
            selected
                .extend(names.iter().filter(|name| part.wants(name, &names)).map(|name| format!("{folder}/{name}")));
            if selected.len() == before {
                return Err(format!("nothing usable in {folder}/"));
            }
        }
        Ok(selected)
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        if !snapshot.join("model_index.json").is_file() {
            return Some("model_index.json".into());
        }
        self.parts.iter().find_map(|part| part.missing(&snapshot.join(part.folder())))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &str) -> Vec<String> {
        paths.split_whitespace().map(str::to_owned).collect()
    }

    /// FLUX.1-dev's own files, with variants and strangers added.
    const PATHS: &str = "
        .gitattributes LICENSE.md README.md ae.safetensors flux1-dev.safetensors dev_grid.jpg model_index.json
        scheduler/scheduler_config.json
        text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors
        text_encoder/pytorch_model.bin
        text_encoder_2/config.json text_encoder_2/model-00001-of-00002.safetensors
        text_encoder_2/model-00002-of-00002.safetensors text_encoder_2/model.safetensors.index.json
        text_encoder_2/model.fp16-00001-of-00002.safetensors text_encoder_2/model.safetensors.index.fp16.json
        tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
        tokenizer_2/special_tokens_map.json tokenizer_2/spiece.model tokenizer_2/tokenizer.json
        transformer/config.json transformer/diffusion_pytorch_model-00001-of-00001.safetensors
        transformer/diffusion_pytorch_model.safetensors.index.json transformer/old/config.json
        vae/config.json vae/diffusion_pytorch_model.safetensors";

    #[test]
    fn only_what_a_picture_needs_is_taken() {
        let expected = listing(
            "model_index.json scheduler/scheduler_config.json text_encoder/config.json text_encoder/model.safetensors
            text_encoder_2/config.json text_encoder_2/model-00001-of-00002.safetensors
            text_encoder_2/model-00002-of-00002.safetensors text_encoder_2/model.safetensors.index.json
            tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
            tokenizer_2/special_tokens_map.json tokenizer_2/tokenizer.json
            transformer/config.json transformer/diffusion_pytorch_model-00001-of-00001.safetensors
            transformer/diffusion_pytorch_model.safetensors.index.json
            vae/config.json vae/diffusion_pytorch_model.safetensors",
        );
        assert_eq!(FluxFiles::all().select(&listing(PATHS)).expect("a FLUX model"), expected);
        let without = FluxFiles::without(&[FluxPart::Vae, FluxPart::Transformer]);
        let kept: Vec<_> = expected.into_iter().filter(|p| !p.starts_with("vae") && !p.starts_with("transf")).collect();
        assert_eq!(without.select(&listing(PATHS)).expect("a FLUX model"), kept);
    }

    #[test]
    fn sentencepiece_is_taken_only_where_nothing_better_is() {
        let mut paths = listing(PATHS);
        paths.retain(|path| path != "tokenizer_2/tokenizer.json");
        let selected = FluxFiles::all().select(&paths).expect("a FLUX model");
        assert!(selected.iter().any(|path| path == "tokenizer_2/spiece.model"));
    }

    #[test]
    fn another_kind_of_repository_is_told_apart() {
        let lora = listing("README.md lora.safetensors");
        assert!(FluxFiles::all().select(&lora).expect_err("a LoRA").contains("model_index.json"));
        let mut paths = listing(PATHS);
        paths.retain(|path| !path.starts_with("vae/"));
        assert!(FluxFiles::all().select(&paths).expect_err("no vae").contains("vae/"));
    }

    #[test]
    fn a_local_copy_is_complete_with_all_its_shards() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux");
        assert_eq!(FluxFiles::all().missing(&fixture), None);
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(FluxFiles::all().missing(folder.path()).as_deref(), Some("model_index.json"));
        let transformer = folder.path().join("transformer");
        std::fs::create_dir(&transformer).expect("a folder");
        let part = |missing: &str| assert_eq!(FluxPart::Transformer.missing(&transformer).as_deref(), Some(missing));
        part("transformer/config.json");
        std::fs::write(transformer.join("config.json"), "{}").expect("a config");
        part("the weights of transformer/");
        let index = transformer.join("m.safetensors.index.json");
        std::fs::write(&index, "<html>").expect("a broken index");
        part("a readable transformer/m.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}"#)
            .expect("an index");
        std::fs::write(transformer.join("m-1-of-2.safetensors"), "").expect("a shard");
        part("transformer/m-2-of-2.safetensors");
        std::fs::write(transformer.join("m-2-of-2.safetensors"), "").expect("a shard");
        assert_eq!(FluxPart::Transformer.missing(&transformer), None);
    }
}
