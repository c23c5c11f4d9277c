//! Wan's autoencoder for one frame, both ways, in bands of any height.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::LatentSize, json::read_json, progress::Silent},
    models::parts::{
        kl::{self, Banding, Decoder, Encoder, Keep, Side, VaeConfig},
        wan::{self, WanConfig},
    },
    weights::{TensorFiles, TensorSource, Weights},
};

use crate::support::{fixture, manifest::ManifestSource, relative_error, values};

const FILE: &str = "qwen-image/tiny/vae/diffusion_pytorch_model.safetensors";

fn tiny() -> (VaeConfig, Weights) {
    let store: Arc<dyn TensorSource> = Arc::new(TensorFiles::open(&[fixture(FILE)]).expect("fixture"));
    let named = wan::named(store).expect("a Wan autoencoder");
    let config = WanConfig::read(&fixture("qwen-image/tiny/vae/config.json")).expect("fixture");
    (config.dimensions(), Weights::new(Arc::new(named), DType::F32, Device::Cpu))
}

fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("qwen-image/expected/vae.safetensors"), &Device::Cpu).expect("fixture")
}

/// Bands of several heights, with everything and with nothing stored.
fn bandings() -> [Banding; 3] {
    [
        Banding::default(),
        Banding { band_rows: 1, keep: vec![Keep::Nothing; 4] },
        Banding { band_rows: 5, keep: vec![Keep::All, Keep::Maps, Keep::Nothing, Keep::Nothing] },
    ]
}

/// Which kernels compute.
#[derive(Debug, Clone, Copy)]
enum By {
    Fast,
    Plain,
    Tensors,
}

/// The picture of the golden latents, [H, W, 3].
fn decoded(by: By, options: &Banding) -> Vec<f32> {
    let (config, weights) = tiny();
    let (decoder, latents) = (Decoder::open(config, weights).expect("opens"), &golden()["latents"]);
    let mut picture = Vec::new();
    let mut sink = |row: usize, rows: &[f32]| {
        assert_eq!(row * 144 * 3, picture.len());
        picture.extend_from_slice(rows);
        Ok(())
    };
    match by {
        By::Fast => decoder.decode(latents, options, &Silent, &mut sink),
        By::Plain => decoder.decode_plain(latents, options, &mut sink),
        By::Tensors => decoder.decode_on_device(latents, options, &mut sink),
    }
    .expect("decodes");
    picture
}

/// The latents of the golden picture.
fn encoded(by: By, options: &Banding) -> Vec<f32> {
    let (config, weights) = tiny();
    let encoder = Encoder::open(config, weights).expect("opens");
    let picture = golden()["image"].squeeze(0).and_then(|image| image.permute((1, 2, 0))).expect("[H, W, 3]");
    let picture = values(&picture.contiguous().expect("in order"));
    let mut source = |row: usize, rows: &mut [f32]| {
        rows.copy_from_slice(&picture[row * 144 * 3..][..rows.len()]);
        Ok(())
    };
    let size = LatentSize { height: 14, width: 18 };
    let latents = match by {
        By::Fast => encoder.encode(size, &mut source, options, &Silent),
        By::Plain => encoder.encode_plain(size, &mut source, options),
        By::Tensors => encoder.encode_on_device(size, &mut source, options),
    };
    values(&latents.expect("encodes"))
}

#[test]
fn pictures_meet_the_reference_in_bands_of_any_height() {
    let expected = golden()["image"].squeeze(0).and_then(|image| image.permute((1, 2, 0))).expect("[H, W, 3]");
    let expected = values(&expected.contiguous().expect("in order"));
    for by in [By::Fast, By::Plain, By::Tensors] {
        for options in bandings() {
            // The reference clamps.
            let found: Vec<f32> = decoded(by, &options).into_iter().map(|x| x.clamp(-1.0, 1.0)).collect();
            let error = relative_error(&found, &expected);
            assert!(error < 1e-5, "{by:?} {options:?}: off by {error:e}");
        }
    }
}

#[test]
fn latents_of_a_picture_meet_the_reference_in_bands_of_any_height() {
    let expected = values(&golden()["encoded_latents"]);
    for by in [By::Fast, By::Plain, By::Tensors] {
        for options in bandings() {
            let error = relative_error(&encoded(by, &options), &expected);
            assert!(error < 1e-5, "{by:?} {options:?}: off by {error:e}");
        }
    }
}

/// Norms over channels need no statistics: whatever is stored, nothing is computed twice.
#[test]
fn nothing_is_computed_twice() {
    let (config, _) = tiny();
    for side in [Side::Decoder, Side::Encoder] {
        let cost = |options: &Banding| {
            let size = LatentSize { height: 64, width: 48 };
            kl::cost(&config, side, (DeviceKind::Cpu, DType::F32), size, options).expect("a cost")
        };
        let all: Vec<u64> = bandings().iter().map(|options| cost(options).flops).collect();
        assert_eq!(all, [all[0]; 3]);
        let lean = cost(&Banding { band_rows: 4, keep: vec![Keep::Nothing; 4] }).memory_bytes;
        assert!(lean < cost(&Banding::default()).memory_bytes);
    }
}

/// Under both layouts' names the walk finds the same tensors, and of the real model all but those between frames.
#[test]
fn both_layouts_hold_what_the_walk_asks_for() {
    let real = ManifestSource::fixture("qwen-image/real_tensors.json", "vae");
    let shapes = real.shapes().clone();
    let own: BTreeMap<String, String> = read_json(&fixture("qwen-image/vae_names.json")).expect("fixture");
    assert_eq!((own.len(), shapes.len()), (194, 194));
    let original = own.iter().map(|(own, diffusers)| (format!("vae.{own}"), shapes[diffusers].clone()));
    let original = ManifestSource::new(original);
    let config = WanConfig::wan_2_1().dimensions();
    let expected: BTreeMap<_, _> = [Side::Encoder, Side::Decoder]
        .into_iter()
        .flat_map(|side| kl::tensors(&config, side).expect("a configuration"))
        .collect();
    for source in [real, original] {
        let source: Arc<dyn TensorSource> = Arc::new(source);
        let named = wan::named(Arc::clone(&source)).expect("a Wan autoencoder");
        let found: BTreeMap<_, _> =
            named.names().into_iter().map(|name| (name.clone(), named.shape(&name).expect("a shape"))).collect();
        assert!(found == expected, "{:?}", found.keys().find(|name| !expected.contains_key(*name)));
        let unused = named.unused();
        assert!(unused.len() == 8 && unused.iter().all(|name| name.contains("time_conv")), "{unused:?}");
    }
}

#[test]
fn of_query_key_and_value_each_is_a_third() {
    let (_, weights) = tiny();
    let store = TensorFiles::open(&[fixture(FILE)]).expect("fixture");
    let load = |name: &str| store.load(name, DType::F32, &Device::Cpu).expect("loads");
    let whole = load("decoder.mid_block.attentions.0.to_qkv.weight");
    let rows = whole.dims()[0] / 3;
    for (third, part) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
        let name = format!("decoder.mid_block.attentions.0.{part}.weight");
        let found = weights.get(&name, &[rows, rows]).expect("a matrix");
        let expected = whole.narrow(0, third * rows, rows).and_then(|part| part.flatten_all()).expect("rows");
        assert_eq!(values(&found), values(&expected));
    }
}

#[test]
fn configs_that_say_what_is_not_computed_are_refused() {
    let said: serde_json::Value = read_json(&fixture("qwen-image/tiny/vae/config.json")).expect("fixture");
    for (key, value) in [
        ("attn_scales", serde_json::json!([1.0])),
        ("latents_std", serde_json::json!([1.0])),
        ("latents_std", vec![0.0; 16].into()),
        ("dim_mult", serde_json::json!([1, 0, 2, 2])),
        ("base_dim", serde_json::json!(1 << 30)),
        ("input_channels", serde_json::json!(4)),
        ("z_dim", serde_json::json!(8)),
    ] {
        let mut said = said.clone();
        said[key] = value;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, said.to_string()).expect("write");
        let error = WanConfig::read(&path).expect_err(key);
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}
