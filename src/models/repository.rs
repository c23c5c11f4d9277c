//! Which files of a repository a run needs, and whether a local copy holds them all: diffusers layout, `model_index.json` and
//! the folders of some parts. Single-file checkpoints at the root are never taken, variants such as `*.fp16.safetensors` where they
//! are asked for or there is nothing else.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{Family, PartKind, PartSpec, part::PartFiles};
use crate::{hub::FileSet, weights::Files};

/// What says which pipeline a repository in diffusers layout holds.
pub(crate) const PIPELINE_INDEX: &str = "model_index.json";

/// The class of the pipeline that the folder around a part's folder says it is, of which `file` is one.
pub(crate) fn pipeline_around(file: &Path, files: &Files) -> Option<String> {
    let root = file.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    let index: Value = files.read_json(&root.join(PIPELINE_INDEX)).ok()?;
    Some(index.get("_class_name")?.as_str()?.to_owned())
}

/// Files of a repository that holds a model of one of some families.
#[derive(Clone)]
pub struct RepositoryFiles {
    /// For each family the parts that are wanted of it.
    families: Vec<Vec<&'static PartSpec>>,
    takes: Takes,
    /// The variant of weights that is taken where it is there.
    variant: Option<String>,
}

/// What of each part is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// All that a picture needs.
    Everything,
    /// Its config alone.
    Configs,
}

impl RepositoryFiles {
    /// Everything a picture needs, but for parts that come from elsewhere.
    pub fn without(families: &[&'static dyn Family], elsewhere: impl Fn(&PartSpec) -> bool) -> Self {
        Self::of(families, Takes::Everything, |part| !elsewhere(part))
    }

    /// The parts that `wanted` takes.
    pub fn only(families: &[&'static dyn Family], wanted: impl Fn(&PartSpec) -> bool) -> Self {
        Self::of(families, Takes::Everything, wanted)
    }

    /// What tells a model's dimensions and its schedule: two small files.
    pub fn dimensions(families: &[&'static dyn Family]) -> Self {
        let wanted = |part: &PartSpec| matches!(part.kind, PartKind::Denoiser | PartKind::Scheduler);
        Self::of(families, Takes::Configs, wanted)
    }

    fn of(families: &[&'static dyn Family], takes: Takes, wanted: impl Fn(&PartSpec) -> bool) -> Self {
        let parts = |family: &&'static dyn Family| family.parts().iter().filter(|part| wanted(part)).collect();
        Self { families: families.iter().map(parts).collect(), takes, variant: None }
    }

    /// The same files, of which weights are taken in this variant where the repository has it.
    #[must_use]
    pub fn in_variant(self, variant: Option<String>) -> Self {
        Self { variant, ..self }
    }

    /// What is taken of one family's parts.
    fn select_parts(&self, parts: &[&'static PartSpec], listing: &[String]) -> Result<Vec<String>, String> {
        if self.takes == Takes::Configs {
            return configs(parts, listing);
        }
        if !listing.iter().any(|path| path == PIPELINE_INDEX) {
            return Err(format!("no {PIPELINE_INDEX}, so it is no pipeline in diffusers layout"));
        }
        let (mut selected, mut has_variant) = (vec![PIPELINE_INDEX.to_owned()], false);
        for part in parts {
            let folder = part.name;
            let inside = listing.iter().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
            let names: BTreeSet<&str> = inside.filter(|name| !name.contains('/')).collect();
            let PartFiles { files, variant } = part.select(&names, self.variant.as_deref())?;
            if files.is_empty() {
                return Err(format!("nothing usable in {folder}/"));
            }
            selected.extend(files.iter().map(|name| format!("{folder}/{name}")));
            has_variant |= variant.is_some() && variant == self.variant;
        }
        match &self.variant {
            Some(variant) if !has_variant => Err(format!("no weights in the variant {variant}")),
            _ => Ok(selected),
        }
    }

    fn lacking(&self, parts: &[&'static PartSpec], snapshot: &Path) -> Option<String> {
        if self.takes == Takes::Configs {
            return config_names(parts).find(|file| !snapshot.join(file).is_file());
        }
        if !snapshot.join(PIPELINE_INDEX).is_file() {
            return Some(PIPELINE_INDEX.into());
        }
        let wanted = self.variant.as_deref();
        let lacking = parts.iter().find_map(|part| part.lacking(&snapshot.join(part.name), wanted));
        let has = |variant: &str| {
            let files = Files::default().in_variant(Some(variant.to_owned()));
            let stored = |part: &&&PartSpec| files.stored(&snapshot.join(part.name)).ok().flatten();
            parts
                .iter()
                .filter(|part| part.has_weights())
                .any(|part| stored(&part).is_some_and(|stored| stored.variant.as_deref() == Some(variant)))
        };
        lacking.or_else(|| {
            wanted.filter(|variant| !has(variant)).map(|variant| format!("weights in the variant {variant}"))
        })
    }
}

/// The config of each part, by its path in the repository.
fn config_names(parts: &[&'static PartSpec]) -> impl Iterator<Item = String> {
    parts
        .iter()
        .flat_map(|part| part.files.first().into_iter().copied().flatten().map(|file| format!("{}/{file}", part.name)))
}

fn configs(parts: &[&'static PartSpec], listing: &[String]) -> Result<Vec<String>, String> {
    let wanted: Vec<String> = config_names(parts).collect();
    let found: Vec<String> = listing.iter().filter(|path| wanted.contains(path)).cloned().collect();
    if found.len() == wanted.len() { Ok(found) } else { Err(format!("not both of {}", wanted.join(" and "))) }
}

impl FileSet for RepositoryFiles {
    /// The files of the family of which the repository holds most; what the first family lacks where it holds none.
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String> {
        let mut best: Result<Vec<String>, String> = Err("no known model".into());
        for (index, parts) in self.families.iter().enumerate() {
            match (self.select_parts(parts, listing), &best) {
                (Ok(found), Ok(known)) if found.len() <= known.len() => {}
                (Ok(found), _) => best = Ok(found),
                (Err(lacks), _) if index == 0 => best = Err(lacks),
                (Err(_), _) => {}
            }
        }
        best
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        let mut lacking = self.families.iter().map(|parts| self.lacking(parts, snapshot));
        let first = lacking.next().flatten()?;
        if lacking.any(|lacks| lacks.is_none()) { None } else { Some(first) }
    }

    fn instead(&self) -> &'static str {
        "name a model in diffusers layout, or one of its files behind a colon: OWNER/NAME:FILE"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::BUILT_IN;

    fn listing(paths: &str) -> Vec<String> {
        paths.split_whitespace().map(str::to_owned).collect()
    }

    fn all() -> RepositoryFiles {
        RepositoryFiles::without(&BUILT_IN, |_| false)
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
        let sorted = |mut paths: Vec<String>| {
            paths.sort();
            paths
        };
        assert_eq!(sorted(all().select(&listing(PATHS)).expect("a FLUX model")), expected);
        let elsewhere = |part: &PartSpec| ["vae", "transformer"].contains(&part.name);
        let without = RepositoryFiles::without(&BUILT_IN, elsewhere);
        let kept: Vec<_> = expected.into_iter().filter(|p| !p.starts_with("vae") && !p.starts_with("transf")).collect();
        assert_eq!(sorted(without.select(&listing(PATHS)).expect("a FLUX model")), kept);
    }

    #[test]
    fn a_variant_is_taken_where_it_is_asked_for_or_there_is_nothing_else() {
        let of = |paths: &[String], variant: Option<&str>| {
            let files = all().in_variant(variant.map(str::to_owned)).select(paths);
            files.map(|files| files.into_iter().filter(|path| path.contains("text_encoder")).collect::<Vec<_>>())
        };
        let expected = listing(
            "text_encoder/config.json text_encoder/model.fp16.safetensors text_encoder_2/config.json
            text_encoder_2/model.fp16-00001-of-00002.safetensors text_encoder_2/model.safetensors.index.fp16.json",
        );
        assert_eq!(of(&listing(PATHS), Some("fp16")).as_ref(), Ok(&expected));
        let mut only = listing(PATHS);
        only.retain(|path| {
            !path.starts_with("text_encoder") || path.contains("fp16") || path.ends_with("/config.json")
        });
        assert_eq!(of(&only, None).as_ref(), Ok(&expected));
        let lacks = of(&listing(PATHS), Some("bf16")).expect_err("no such variant");
        assert_eq!(lacks, "no weights in the variant bf16");
        only.push("text_encoder/model.bf16.safetensors".into());
        let lacks = of(&only, None).expect_err("two variants");
        assert!(lacks.contains("text_encoder/") && lacks.contains("--variant: bf16, fp16"), "{lacks}");
    }

    #[test]
    fn dimensions_take_two_configs() {
        let configs = listing("scheduler/scheduler_config.json transformer/config.json");
        let dimensions = RepositoryFiles::dimensions(&BUILT_IN);
        assert_eq!(dimensions.select(&listing(PATHS)), Ok(configs));
        let lacks = dimensions.select(&listing("transformer/config.json")).expect_err("no scheduler");
        assert!(lacks.contains("scheduler/scheduler_config.json"), "{lacks}");
    }

    #[test]
    fn sentencepiece_is_taken_only_where_nothing_better_is() {
        let mut paths = listing(PATHS);
        paths.retain(|path| path != "tokenizer_2/tokenizer.json");
        let selected = all().select(&paths).expect("a FLUX model");
        assert!(selected.iter().any(|path| path == "tokenizer_2/spiece.model"));
    }

    #[test]
    fn another_kind_of_repository_is_told_apart() {
        let lora = listing("README.md lora.safetensors");
        assert!(all().select(&lora).expect_err("a LoRA").contains("model_index.json"));
        let mut paths = listing(PATHS);
        paths.retain(|path| !path.starts_with("vae/"));
        assert!(all().select(&paths).expect_err("no vae").contains("vae/"));
        paths.extend(listing("vae/config.json vae/diffusion_pytorch_model.bin"));
        let lacks = all().select(&paths).expect_err("only a pickle");
        assert!(lacks.contains("vae/") && lacks.contains("diffusion_pytorch_model.bin"), "{lacks}");
    }

    #[test]
    fn a_local_copy_is_complete_with_all_its_shards() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux");
        assert_eq!(all().missing(&fixture), None);
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(all().missing(folder.path()).as_deref(), Some("model_index.json"));
        let transformer = folder.path().join("transformer");
        std::fs::create_dir(&transformer).expect("a folder");
        let spec = BUILT_IN[0].parts().iter().find(|part| part.name == "transformer").expect("a transformer");
        let part = |missing: &str| assert_eq!(spec.lacking(&transformer, None).as_deref(), Some(missing));
        part("transformer/config.json");
        std::fs::write(transformer.join("config.json"), "{}").expect("a config");
        part("the weights of transformer/");
        let index = transformer.join("model.safetensors.index.json");
        std::fs::write(&index, "<html>").expect("a broken index");
        part("a readable transformer/model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#)
            .expect("an index");
        std::fs::write(transformer.join("model-1-of-2.safetensors"), "").expect("a shard");
        part("transformer/model-2-of-2.safetensors");
        std::fs::write(transformer.join("model-2-of-2.safetensors"), "").expect("a shard");
        assert_eq!(spec.lacking(&transformer, None), None);
    }
}
