//! The configs of published models against the lists of their real tensors.

use std::collections::BTreeMap;

use dype::testing::{base::json::read_json, models::Registry, weights::TensorSource};
use serde_json::Value;

use super::{published, support::fixture};

/// Names and shapes.
type Shapes = BTreeMap<String, Vec<usize>>;

/// What a file of the fixtures lists at a path of keys.
fn list(file: &str, keys: &[&str]) -> Shapes {
    let whole: Value = read_json(&fixture(file)).expect("fixture");
    let part = keys.iter().fold(&whole, |value, key| &value[*key]);
    serde_json::from_value(part.clone()).expect("names and shapes")
}

/// Each part of each repository whose real tensors are listed.
fn lists() -> Vec<(&'static str, &'static str, Shapes)> {
    let klein = "flux2-klein/real_tensors.json";
    let mut all = Vec::new();
    for part in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
        all.push(("black-forest-labs/FLUX.1-dev", part, list("flux1_dev_tensors.json", &[part])));
    }
    for (repo, size) in [("black-forest-labs/FLUX.2-klein-4B", "4B"), ("black-forest-labs/FLUX.2-klein-base-9B", "9B")]
    {
        all.push((repo, "transformer", list(klein, &[size, "transformer"])));
        all.push((repo, "text_encoder", list(klein, &[size, "text_encoder"])));
        all.push((repo, "vae", list(klein, &["vae", "tensors"])));
    }
    for part in ["transformer", "vae"] {
        all.push(("Tongyi-MAI/Z-Image", part, list("z-image/real_tensors.json", &[part])));
    }
    all.push(("Tongyi-MAI/Z-Image", "text_encoder", list("qwen3_4b_tensors.json", &[])));
    for part in ["transformer", "vae", "text_encoder"] {
        all.push(("Qwen/Qwen-Image", part, list("qwen-image/real_tensors.json", &[part])));
    }
    all
}

fn numbers<'a>(shapes: impl IntoIterator<Item = &'a Vec<usize>>) -> u64 {
    shapes.into_iter().map(|shape| shape.iter().product::<usize>() as u64).sum()
}

#[test]
fn sizes_are_those_of_the_real_tensors() {
    for (repo, part, real) in lists() {
        let (_, known) = published(repo);
        let weights = known.weights.iter().find(|weights| weights.part == part).expect("a part");
        assert_eq!(weights.parameters, numbers(real.values()), "{repo} {part}");
    }
    let (_, krea) = published("black-forest-labs/FLUX.1-Krea-dev");
    assert_eq!(krea.bytes() / 100_000_000, 337, "the 34 GB of the README");
    let (_, turbo) = published("Tongyi-MAI/Z-Image-Turbo");
    assert_eq!(turbo.weights[0].bytes() / 100_000_000, 246, "stored in f32");
}

/// What no run reads: of one layer and the norm behind what is read of a text encoder on, what sees pictures, a head, convolutions
/// between frames, a counter.
fn is_unread(name: &str) -> bool {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    layer.is_some_and(|layer| layer >= 27)
        || name.starts_with("visual.")
        || name.contains("time_conv")
        || ["model.norm.weight", "lm_head.weight", "bn.num_batches_tracked"].contains(&name)
        // CLIP's and T5's tables have two names.
        || name.ends_with("embed_tokens.weight")
        || name.ends_with("position_ids")
}

#[test]
fn what_the_configs_describe_are_the_real_tensors() {
    for (repo, part, real) in lists() {
        let (family, known) = published(repo);
        let request = known.request(family).expect("configs");
        let source = request.files.open_folder(&request.model.join(part)).expect("a header");
        let described: Shapes =
            source.names().into_iter().map(|name| (name.clone(), source.shape(&name).expect("there"))).collect();
        // Layers that are stored in one piece are asked for in parts.
        let is_in_parts = |name: &String| name.contains(".linear_in") || name.contains("to_qkv_mlp_proj");
        for (name, shape) in described.iter().filter(|(name, _)| !is_in_parts(name)) {
            assert_eq!(real.get(name), Some(shape), "{repo} {part} {name}");
        }
        let of_parts =
            |shapes: &Shapes| numbers(shapes.iter().filter(|(name, _)| is_in_parts(name)).map(|(_, shape)| shape));
        assert_eq!(of_parts(&described), of_parts(&real), "{repo} {part}");
        let mut unread = real.keys().filter(|name| !described.contains_key(*name) && !is_in_parts(name));
        assert_eq!(unread.find(|name| !is_unread(name)), None, "{repo} {part}");
    }
}

#[test]
fn every_published_model_opens_by_its_configs() {
    let registry = Registry::default();
    let mut steps = BTreeMap::new();
    for (family, known) in registry.published() {
        let model = registry.open(&known.request(family).expect("configs")).expect(known.repo);
        let recipe = &model.facts().recipe;
        steps.insert(known.repo, (recipe.steps, recipe.cfg.is_some()));
    }
    let expected = [
        ("Qwen/Qwen-Image", (40, true)),
        ("Tongyi-MAI/Z-Image", (50, true)),
        ("Tongyi-MAI/Z-Image-Turbo", (8, false)),
        ("black-forest-labs/FLUX.1-Krea-dev", (28, false)),
        ("black-forest-labs/FLUX.1-dev", (28, false)),
        ("black-forest-labs/FLUX.1-schnell", (4, false)),
        ("black-forest-labs/FLUX.2-klein-4B", (4, false)),
        ("black-forest-labs/FLUX.2-klein-9B", (4, false)),
        ("black-forest-labs/FLUX.2-klein-base-4B", (50, true)),
        ("black-forest-labs/FLUX.2-klein-base-9B", (50, true)),
    ];
    assert_eq!(steps, BTreeMap::from(expected));
}
