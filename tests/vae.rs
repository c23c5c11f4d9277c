//! The decoder against the reference's picture.

mod support;

use std::sync::Arc;

use candle_core::{DType, Device};
use dype::{
    progress::Silent,
    vae::{DecodeOptions, Decoder, VaeConfig},
    weights::{SafetensorsStore, Weights, read_json},
};
use support::fixture;

fn tiny() -> (VaeConfig, Weights) {
    let folder = fixture("tiny-flux/vae");
    let shards = [1, 2].map(|i| folder.join(format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors")));
    let store = SafetensorsStore::open(&shards).expect("the fixture opens");
    let config = read_json(&folder.join("config.json")).expect("the fixture's config");
    (config, Weights::new(Arc::new(store), DType::F32, Device::Cpu))
}

#[test]
fn decodes_the_reference_picture() {
    let (config, weights) = tiny();
    let golden = candle_core::safetensors::load(fixture("expected/vae.safetensors"), &Device::Cpu).expect("golden");
    let decoder = Decoder::open(config, weights).expect("the decoder opens");
    let mut image = Vec::new();
    decoder
        .decode(&golden["latents"], &DecodeOptions::default(), &Silent, &mut |first_row, rows| {
            assert_eq!(first_row * 320 * 3, image.len());
            image.extend_from_slice(rows);
            Ok(())
        })
        .expect("decodes");
    let expected: Vec<f32> =
        golden["image"].squeeze(0).and_then(|t| t.permute((1, 2, 0))?.flatten_all()?.to_vec1()).expect("image");
    let error = support::relative_error(&image, &expected);
    assert!(error < 1e-4, "relative error {error}");
    let worst = support::largest_difference(&image, &expected);
    assert!(worst < 1e-4, "largest difference {worst}");
}
