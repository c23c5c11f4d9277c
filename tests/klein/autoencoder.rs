//! The autoencoder both ways, the statistics of its batch norm, and decoders of other widths.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{
        geometry::{LatentSize, TokenGrid},
        progress::Silent,
    },
    models::{
        Decode, Encode, On,
        flux2::{Flux2Autoencoder, LATENTS},
        parts::kl::{Banding, Posterior},
    },
    sampling::unpack,
};

use super::{expected, relative_error, tiny};

/// 112 x 144 px.
const GRID: TokenGrid = TokenGrid { height_patches: 7, width_patches: 9 };

fn decoded(vae: &Flux2Autoencoder, latents: &Tensor, banding: &Banding) -> Tensor {
    let latents = unpack(latents, GRID, &LATENTS).expect("latents");
    let mut image = Vec::new();
    vae.decode(&latents, banding, DType::F32, &Silent, &mut |_, rows| {
        image.extend_from_slice(rows);
        Ok(())
    })
    .expect("decodes");
    Tensor::from_vec(image, (112, 144, 3), &Device::Cpu)
        .and_then(|image| image.permute((2, 0, 1))?.unsqueeze(0)?.contiguous())
        .expect("an image")
}

#[test]
fn what_the_decoder_takes_has_the_norm_undone_and_is_unpatched() {
    let (model, golden) = (tiny(), expected("vae"));
    let latents = unpack(&golden["latents"], GRID, &LATENTS).expect("latents");
    let found = model.vae.unpatched(&latents).expect("unpatched");
    // post_quant_conv is the decoder's.
    assert_eq!(found.dims(), [1, 32, 14, 18]);
    let error = relative_error(&found, &golden["decoder_input"]);
    assert!(error < 1e-5, "{error:e}");
}

#[test]
fn the_picture_is_the_references_in_bands_of_any_height() {
    let (model, golden) = (tiny(), expected("vae"));
    for band_rows in [16, 4] {
        let found = decoded(&model.vae, &golden["latents"], &Banding { band_rows, ..Banding::default() });
        let error = relative_error(&found, &golden["image"]);
        assert!(error < 1e-4, "{band_rows} rows: {error:e}");
    }
}

#[test]
fn encoded_it_is_the_references_latents() {
    let (model, golden) = (tiny(), expected("vae"));
    let image = golden["image"].clamp(-1f32, 1f32).and_then(|image| image.squeeze(0)?.permute((1, 2, 0))?.contiguous());
    let image: Vec<f32> = image.and_then(|image| image.flatten_all()?.to_vec1()).expect("an image");
    let mut rows = |first: usize, rows: &mut [f32]| {
        let start = first * 144 * 3;
        rows.copy_from_slice(&image[start..start + rows.len()]);
        Ok(())
    };
    let size = LatentSize { height: 7, width: 9 };
    let on = On::new(Device::Cpu, DType::F32);
    let found =
        model.vae.encode((Posterior::Mean, size), &mut rows, &Banding::default(), &on, &Silent).expect("encodes");
    let packed = dype::testing::sampling::pack(&found, &LATENTS).expect("packed");
    let error = relative_error(&packed, &golden["encoded_latents"]);
    assert!(error < 1e-4, "{error:e}");
}
