//! What the loaders ask for is what the real models' files hold, in both layouts; models are known by what they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dype::testing::{
    base::json::read_json,
    models::{
        ModelRequest, Registry,
        flux2::{Flux2Config, Flux2VaeConfig, encoder_tensors, transformer_names, transformer_tensors, vae_tensors},
        parts::{Qwen3Config, kl::Side, vae_names},
    },
    weights::{Renamed, TensorSource, check_all},
};
use serde_json::Value;

use super::{fixture, tiny_base};
use crate::support::{self, manifest::ManifestSource};

type Shapes = BTreeMap<String, Vec<usize>>;

fn real() -> Value {
    read_json(&fixture("real_tensors.json")).expect("the real models' lists")
}

fn shapes(list: &Value) -> Shapes {
    serde_json::from_value(list.clone()).expect("names and shapes")
}

fn source(list: &Value) -> Arc<dyn TensorSource> {
    Arc::new(ManifestSource::new(shapes(list)))
}

fn config<C>(value: &Value, read: impl Fn(&std::path::Path) -> dype::testing::Result<C>) -> C {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    std::fs::write(&path, value.to_string()).expect("written");
    read(&path).expect("the real config")
}

/// Every tensor of a transformer is asked for, whole or in parts that cover it, and nothing else.
fn assert_covers(named: &Renamed, expected: &[(String, Vec<usize>)]) {
    check_all(named, expected).expect("every tensor is there, in its shape");
    assert_eq!(named.unused(), Vec::<String>::new());
    let asked: BTreeSet<_> = expected.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(asked, named.names().into_iter().collect());
}

#[test]
fn the_transformers_loader_asks_for_exactly_the_real_tensors_in_both_layouts() {
    let real = real();
    for size in ["4B", "9B"] {
        let config = config(&real[size]["config"], Flux2Config::read);
        let expected = transformer_tensors(&config).expect("a list");
        for layout in ["transformer", "single_file"] {
            let named = transformer_names(source(&real[size][layout])).expect("a FLUX.2 transformer");
            assert_covers(&named, &expected);
        }
    }
    assert_eq!(config(&real["4B"]["config"], Flux2Config::read), Flux2Config::klein_4b());
}

#[test]
fn of_the_text_encoder_nothing_behind_layer_27_is_asked_for() {
    let real = real();
    for size in ["4B", "9B"] {
        let config = config(&real[size]["text_config"], Qwen3Config::read);
        let expected = encoder_tensors(&config).expect("a list");
        let tensors = source(&real[size]["text_encoder"]);
        check_all(&*tensors, &expected).expect("every tensor is there");
        let asked: BTreeSet<_> = expected.into_iter().map(|(name, _)| name).collect();
        let is_needed = |name: &str| match name.strip_prefix("model.layers.") {
            Some(rest) => rest.split('.').next().and_then(|i| i.parse().ok()).is_some_and(|i: usize| i < 27),
            None => name == "model.embed_tokens.weight",
        };
        assert_eq!(asked, tensors.names().into_iter().filter(|name| is_needed(name)).collect());
    }
}

#[test]
fn the_autoencoders_loaders_ask_for_exactly_the_real_tensors_in_both_layouts() {
    let real = real();
    let config: Flux2VaeConfig = serde_json::from_value(real["vae"]["config"].clone()).expect("the real config");
    let sides = [Side::Encoder, Side::Decoder].map(|side| vae_tensors(&config, side).expect("a list"));
    let diffusers = source(&real["vae"]["tensors"]);
    let single: Arc<dyn TensorSource> =
        Arc::new(vae_names::vae(source(&real["vae"]["single_file"])).expect("an autoencoder"));
    for tensors in [diffusers, single] {
        let mut asked = BTreeSet::new();
        for side in &sides {
            check_all(&*tensors, side).expect("every tensor is there");
            asked.extend(side.iter().map(|(name, _)| name.clone()));
        }
        let mut there: BTreeSet<_> = tensors.names().into_iter().collect();
        assert!(there.remove("bn.num_batches_tracked"), "a count of training");
        assert_eq!(asked, there);
    }
}

#[test]
fn the_small_decoder_is_one_of_other_widths() {
    let real = real();
    let mut said = real["vae"]["config"].clone();
    said["decoder_block_out_channels"] = serde_json::json!([96, 192, 384, 384]);
    let config: Flux2VaeConfig = serde_json::from_value(said).expect("a config");
    let decoder: Shapes = vae_tensors(&config, Side::Decoder)
        .expect("a list")
        .into_iter()
        .filter(|(n, _)| n.starts_with("decoder."))
        .collect();
    assert_eq!(decoder, shapes(&real["small_decoder"]));
    let encoder = vae_tensors(&config, Side::Encoder).expect("a list");
    check_all(&*source(&real["vae"]["tensors"]), &encoder).expect("the encoder is as it was");
}

#[test]
fn a_single_file_is_known_by_what_it_holds() {
    let real = real();
    for size in ["4B", "9B"] {
        let shapes = shapes(&real[size]["single_file"]);
        // Headers alone, without data: enough to be known by, and to say what else is needed.
        let named = shapes.iter().map(|(name, shape)| (format!("model.diffusion_model.{name}"), shape.clone()));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        support::write_hollow(&path, named);
        let refused = Registry::default().find(&ModelRequest::new(&path)).err().expect("it lacks its other parts");
        for part in ["--vae", "--text-encoder", "--tokenizer"] {
            assert!(refused.hint().is_some_and(|hint| hint.contains(part)), "{refused} {:?}", refused.hint());
        }
        let mut request = ModelRequest::new(&path);
        for part in ["vae", "text_encoder", "tokenizer"] {
            request = request.with(part, fixture(&format!("tiny/{part}")));
        }
        let (family, _) = Registry::default().find(&request).expect("found");
        assert_eq!(family.name(), "FLUX.2 [klein]");
        // The tiny text encoder is too narrow for it.
        let error = super::open(&request).err().expect("it does not fit");
        assert!(error.to_string().contains("width 84"), "{error}");
    }
}

#[test]
fn what_a_model_is_usually_made_with_follows_from_whether_it_is_distilled() {
    let facts = |path: &std::path::Path| Registry::default().facts(&ModelRequest::new(path)).expect("facts").recipe;
    let distilled = facts(&fixture("tiny"));
    assert_eq!((distilled.steps, distilled.cfg, distilled.base_resolution), (4, None, 1024));
    let folder = tiny_base();
    let base = facts(folder.path());
    assert_eq!((base.steps, base.cfg, base.negative_prompt), (50, Some(4.0), Some("")));
    // A transformer alone does not say which it is.
    let mut request = ModelRequest::new(fixture("tiny/transformer/diffusion_pytorch_model.safetensors"));
    for part in ["vae", "text_encoder", "tokenizer"] {
        request = request.with(part, fixture(&format!("tiny/{part}")));
    }
    let model = super::open(&request).expect("opens");
    assert_eq!(model.facts.recipe.steps, 4);
    assert!(model.remark.is_some_and(|remark| remark.contains("--cfg 4")));
}

#[test]
fn a_flux_2_dev_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    support::copy_folder(&fixture("tiny"), folder.path());
    let path = folder.path().join("transformer/config.json");
    let mut config: Value = read_json(&path).expect("a config");
    config["guidance_embeds"] = true.into();
    std::fs::write(&path, config.to_string()).expect("written");
    let error = super::open(&ModelRequest::new(folder.path())).err().expect("refused");
    assert!(error.to_string().contains("guidance_embeds true"), "{error}");
}
