//! What each file adds to each layer.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::json::read_json,
    models::{
        self, Model,
        flux1::{Compute, Flux1},
    },
    nn::{Array, Parameters},
    weights::{TensorSource, Weights},
};
use serde::Deserialize;

use super::{
    lora,
    support::{self, fixture},
    tiny_flux,
};

/// Of the norm of a layer's change.
const TOLERANCE: f64 = 1e-5;

/// A file, as the fixtures tell of it.
#[derive(Deserialize)]
struct Golden {
    file: String,
    expect: String,
    unused_keys: Vec<String>,
    tensors_changed: Vec<Changed>,
}

/// The difference of one tensor.
#[derive(Deserialize)]
struct Changed {
    tensor: String,
    shape: Vec<usize>,
    norm: f64,
    probes: Vec<(usize, f64)>,
}

fn golden() -> Vec<Golden> {
    read_json(&fixture("lora/files.json")).expect("a list of files")
}

/// W and b of a layer, as it computes with them: of its outputs for the columns of one, and for nothing.
pub fn weight_and_bias(source: &std::sync::Arc<dyn TensorSource>, layer: &str) -> [Tensor; 2] {
    let weights = Weights::new(source.clone(), DType::F32, Device::Cpu);
    let shape = source.shape(&format!("{layer}.weight")).expect("a layer");
    let (outputs, inputs) = (shape[0], shape[1]);
    // In the form the file has them: bf16.
    let parameters = Parameters::real(&weights).held_as_stored();
    let loaded = match source.shape(&format!("{layer}.bias")) {
        Some(_) => parameters.linear(layer, inputs, outputs, Compute::EXACT_F32),
        None => parameters.linear_no_bias(layer, inputs, outputs, Compute::EXACT_F32),
    };
    let loaded = loaded.expect("loads");
    let of = |x: Tensor| loaded.forward(&Array::from(x)).expect("computes").real().expect("real").clone();
    let bias = of(Tensor::zeros((1, inputs), DType::F32, &Device::Cpu).expect("zeros"));
    let columns = of(Tensor::eye(inputs, DType::F32, &Device::Cpu).expect("one"));
    let weight = columns.broadcast_sub(&bias).and_then(|columns| columns.t()?.contiguous()).expect("a matrix");
    [weight, bias.squeeze(0).expect("a vector")]
}

/// The sources of the model's networks, with and without the file.
fn both(model: &Flux1, file: &str) -> Vec<[std::sync::Arc<dyn TensorSource>; 2]> {
    let networks = model.networks().expect("networks");
    let adapted = models::adapt(model, &[(lora(file).expect("opens"), 1.0)]).expect("fits");
    networks.into_iter().map(|network| network.source).zip(adapted.sources).map(|(a, b)| [a, b]).collect()
}

fn check(model: &Flux1, golden: &Golden) {
    let sources = both(model, &golden.file);
    let of = |part: &str| match part {
        "transformer" => &sources[0],
        "text_encoder" => &sources[1],
        "text_encoder_2" => &sources[2],
        other => panic!("a part {other}"),
    };
    for Changed { tensor, shape, norm, probes } in &golden.tensors_changed {
        let (part, name) = tensor.split_once('.').expect("a part");
        let (layer, kind) = name.rsplit_once('.').expect("a layer");
        let [before, after] = of(part).each_ref().map(|source| weight_and_bias(source, layer));
        let index = usize::from(kind == "bias");
        let delta = (&after[index] - &before[index]).expect("alike");
        assert_eq!(delta.dims(), shape, "{}: {tensor}", golden.file);
        let delta: Vec<f64> = delta.to_dtype(DType::F64).and_then(|d| d.flatten_all()?.to_vec1()).expect("numbers");
        let found = delta.iter().map(|value| value * value).sum::<f64>().sqrt();
        assert!((found - norm).abs() < TOLERANCE * norm, "{}: {tensor}: {found} is not {norm}", golden.file);
        for (at, value) in probes {
            let off = (delta[*at] - value).abs();
            assert!(off < TOLERANCE * norm, "{}: {tensor}[{at}] is {}, not {value}", golden.file, delta[*at]);
        }
    }
    let changed = sources.iter().map(|[_, adapted]| {
        let layers = adapted.names().into_iter().filter_map(|name| Some(name.strip_suffix(".weight")?.to_owned()));
        layers.filter(|layer| !adapted.adapters(layer).is_empty()).count()
    });
    let is_weight = |changed: &&Changed| changed.tensor.ends_with(".weight");
    assert_eq!(changed.sum::<usize>(), golden.tensors_changed.iter().filter(is_weight).count(), "{}", golden.file);
}

#[test]
fn every_file_changes_every_layer_as_the_reference() {
    let model = tiny_flux();
    let mut checked = 0;
    for golden in golden().iter().filter(|golden| golden.expect.starts_with("load")) {
        check(&model, golden);
        checked += 1;
    }
    assert_eq!(checked, 21);
}

/// What is not used is told of: how much of it, and some.
#[test]
fn what_is_not_used_is_told() {
    let model = tiny_flux();
    for golden in golden().iter().filter(|golden| golden.expect.starts_with("load")) {
        let adapted = models::adapt(&model, &[(lora(&golden.file).expect("opens"), 1.0)]).expect("fits");
        if golden.unused_keys.is_empty() {
            assert_eq!(adapted.remarks, Vec::<String>::new(), "{}", golden.file);
            continue;
        }
        let [remark] = &adapted.remarks[..] else { panic!("{:?}", adapted.remarks) };
        assert!(remark.contains(&format!(": {} of its", golden.unused_keys.len())), "{remark}");
        let named = golden.unused_keys.iter().filter(|key| remark.contains(key.as_str())).count();
        assert!((2..=5).contains(&named), "{remark}");
    }
}

#[test]
fn what_cannot_fit_is_refused_with_its_reason() {
    let model = tiny_flux();
    for (file, words) in [
        ("bad-in", &["img_attn_proj.lora_down.weight", "[4, 144]", "[4, 128]"][..]),
        ("bad-rank", &["ranks", "lora_A.weight", "lora_B.weight"]),
        ("bad-qkv", &["img_attn.qkv.lora_B.weight", "[128, 4]", "[384, 4]"]),
        ("other-family", &["made for another model", "only 1", "of the 4 layers", "Qwen-Image"]),
        ("no-lora", &["no LoRA", "model.embed.weight"]),
    ] {
        let adapted = lora(file).and_then(|lora| models::adapt(&model, &[(lora, 1.0)]));
        let error = adapted.map(|_| ()).expect_err(file);
        assert_eq!(error.exit_code(), 1, "{error}");
        assert!(error.hint().is_some(), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{file}: {word:?} is not in: {error}");
        }
    }
}

/// peft saves alpha in a file of its own beside the weights.
#[test]
fn settings_beside_pefts_own_file_are_read() {
    let model = tiny_flux();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("adapter_model.safetensors");
    std::fs::copy(fixture("lora/files/peft-raw.safetensors"), &path).expect("copied");
    std::fs::write(folder.path().join("adapter_config.json"), r#"{"r": 2, "lora_alpha": 3.0}"#).expect("written");
    let file = dype::testing::weights::lora::LoraFile::open(&path, &dype::testing::weights::Files::default());
    let adapted = models::adapt(&model, &[(file.expect("opens"), 1.0)]).expect("fits");
    let layer = "transformer_blocks.0.attn.to_q";
    let [_, plain] = &both(&model, "peft-raw")[0];
    let of = |source| weight_and_bias(source, layer)[0].clone();
    let base = of(&model.transformer.source);
    let delta = |source| (of(source) - &base).and_then(|delta| delta.flatten_all()?.to_vec1::<f32>()).expect("delta");
    let half_more: Vec<f32> = delta(plain).iter().map(|value| 1.5 * value).collect();
    let error = support::relative_error(&delta(&adapted.sources[0]), &half_more);
    assert!(error < TOLERANCE, "{error:e}");
}
