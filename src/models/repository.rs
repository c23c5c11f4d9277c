//! Which files of a repository a run needs, and whether a local copy holds them all: diffusers layout, `model_index.json` and
//! the folders of some parts. Single-file checkpoints at the root and variants such as `*.fp16.safetensors` are never taken.

use std::{collections::BTreeSet, path::Path};

use super::{Family, PartKind, PartSpec};
use crate::hub::FileSet;

/// What says which pipeline a repository in diffusers layout holds.
pub(crate) const PIPELINE_INDEX: &str = "model_index.json";

/// Files of a repository that holds a model of one of some families.
pub struct RepositoryFiles {
    /// For each family the parts that are wanted of it.
    families: Vec<Vec<&'static PartSpec>>,
    takes: Takes,
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
        Self { families: families.iter().map(parts).collect(), takes }
    }

    /// What is taken of one family's parts.
    fn select_parts(&self, parts: &[&'static PartSpec], listing: &[String]) -> Result<Vec<String>, String> {
        if self.takes == Takes::Configs {
            return configs(parts, listing);
        }
        if !listing.iter().any(|path| path == PIPELINE_INDEX) {
            return Err(format!("no {PIPELINE_INDEX}, so it is no pipeline in diffusers layout"));
        }
        let mut selected = vec![PIPELINE_INDEX.to_owned()];
        for part in parts {
            let folder = part.name;
            let inside = listing.iter().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
            let names: BTreeSet<&str> = inside.filter(|name| !name.contains('/')).collect();
            let before = selected.len();
            selected
                .extend(names.iter().filter(|name| part.wants(name, &names)).map(|name| format!("{folder}/{name}")));
            if selected.len() == before {
                return Err(format!("nothing usable in {folder}/"));
            }
        }
        Ok(selected)
    }

    fn lacking(&self, parts: &[&'static PartSpec], snapshot: &Path) -> Option<String> {
        if self.takes == Takes::Configs {
            return config_names(parts).find(|file| !snapshot.join(file).is_file());
        }
        if !snapshot.join(PIPELINE_INDEX).is_file() {
            return Some(PIPELINE_INDEX.into());
        }
        parts.iter().find_map(|part| part.lacking(&snapshot.join(part.name)))
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
        let part = |missing: &str| assert_eq!(spec.lacking(&transformer).as_deref(), Some(missing));
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
        assert_eq!(spec.lacking(&transformer), None);
    }
}
