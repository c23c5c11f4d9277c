//! The autoencoder in 8 groups against the reference, both ways.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{geometry::LatentSize, progress::Silent},
    models::{
        Model,
        parts::kl::{Banding, Posterior},
    },
};

use super::{CPU_F32, support::relative_error, support::values, tensors, tiny};

const TOLERANCE: f64 = 1e-4;

/// A picture [1, 3, H, W] as rows of pixels.
fn rows(picture: &Tensor) -> Vec<f32> {
    let rows = picture.squeeze(0).and_then(|picture| picture.permute((1, 2, 0))).and_then(|rows| rows.contiguous());
    values(&rows.expect("rows"))
}

#[test]
fn it_decodes_and_encodes_the_reference_picture() {
    let (golden, model) = (tensors("expected/vae.safetensors"), tiny());
    let expected = rows(&golden["image"]);
    for band_rows in [3, 64] {
        let mut found = Vec::new();
        let options = Banding { band_rows, ..Banding::default() };
        let mut sink = |_: usize, rows: &[f32]| {
            found.extend_from_slice(rows);
            Ok(())
        };
        let decoder = model.decoder();
        decoder.decode(&golden["latents"], &options, DType::F32, &Silent, &mut sink).expect("decodes");
        let error = relative_error(&found, &expected);
        assert!(error < TOLERANCE, "bands of {band_rows}: {error:e}");
    }
    let picture: Vec<f32> = expected.iter().map(|value| value.clamp(-1.0, 1.0)).collect();
    let width = golden["image"].dim(3).expect("a width");
    let mut source = |first: usize, rows: &mut [f32]| {
        rows.copy_from_slice(&picture[first * width * 3..][..rows.len()]);
        Ok(())
    };
    let size = LatentSize { height: 14, width: 18 };
    let encoder = model.encoder().expect("its files hold one");
    let found =
        encoder.encode((Posterior::Mean, size), &mut source, &Banding::default(), &CPU_F32, &Silent).expect("encodes");
    let error =
        relative_error(&values(&found.to_device(&Device::Cpu).expect("here")), &values(&golden["encoded_latents"]));
    assert!(error < TOLERANCE, "encoded: {error:e}");
}
