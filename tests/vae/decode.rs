//! The banded decoder against the reference's picture, and against a plain decoder of the whole picture at once.

use super::*;

fn decode(decoder: &Decoder, latents: &Tensor, options: &Banding) -> Vec<f32> {
    let mut image = Vec::new();
    let width = latents.dims()[3] * decoder.config().scale();
    let mut sink = |first_row: usize, rows: &[f32]| {
        assert_eq!(first_row * width * 3, image.len(), "rows come from top to bottom");
        image.extend_from_slice(rows);
        Ok(())
    };
    decoder.decode(latents, options, &Silent, &mut sink).expect("decodes");
    image
}

#[test]
fn decodes_the_reference_picture() {
    let (config, weights) = tiny();
    let golden = golden();
    let decoder = Decoder::open(config, weights).expect("the decoder opens");
    let expected = golden["image"].squeeze(0).and_then(|t| t.permute((1, 2, 0))?.flatten_all()?.to_vec1());
    let expected: Vec<f32> = expected.expect("image");
    let lean = Banding { band_rows: 5, keep: vec![Keep::Nothing; 4] };
    for options in [Banding::default(), lean] {
        let image = decode(&decoder, &golden["latents"], &options);
        let error = relative_error(&image, &expected);
        assert!(error < 1e-4, "relative error {error}");
        let worst = largest_difference(&image, &expected);
        assert!(worst < 1e-4, "largest difference {worst}");
    }
}

#[test]
fn every_band_height_and_memory_mode_gives_the_picture_of_the_plain_decoder() {
    for config in small_configs() {
        let stages = config.block_out_channels.len();
        let weights = Made::for_config(&config).weights();
        let latents = latents(config.latent_channels, 7, 5);
        let plain = Plain { config: &config, weights: &weights }.decode(&latents).expect("plain");
        let decoder = Decoder::open(config.clone(), weights.clone()).expect("opens");
        for band_rows in [1, 2, 3, 4, 7, 16, 1000] {
            for keep in every_keep(stages) {
                let options = Banding { band_rows, keep };
                let image = decode(&decoder, &latents, &options);
                let error = relative_error(&image, &plain);
                assert!(error < 3e-6, "{options:?}: {error}");
            }
        }
    }
}

/// Wide enough that a band holds several strips of tiles, and tall enough for many bands.
#[test]
fn large_pictures_are_the_same_at_every_band_height() {
    let (config, weights) = tiny();
    let decoder = Decoder::open(config, weights).expect("opens");
    let latents = latents(16, 160, 32);
    let mut expected = Vec::new();
    let options = Banding { band_rows: 1280, keep: vec![] };
    decoder
        .decode_plain(&latents, &options, &mut |_, rows| {
            expected.extend_from_slice(rows);
            Ok(())
        })
        .expect("decodes");
    for band_rows in [4, 8, 16, 24, 32, 48, 64] {
        let found = decode(&decoder, &latents, &Banding { band_rows, keep: vec![] });
        let error = relative_error(&found, &expected);
        assert!(error < 1e-5, "bands of {band_rows} rows: {error:e}");
    }
}

#[test]
fn plain_products_and_device_operations_give_the_same_picture() {
    for config in small_configs() {
        let weights = Made::for_config(&config).weights();
        let latents = latents(config.latent_channels, 6, 9);
        let decoder = Decoder::open(config.clone(), weights).expect("opens");
        let fast = decode(&decoder, &latents, &Banding::default());
        for options in [
            Banding { band_rows: 3, keep: vec![Keep::Nothing; 3] },
            Banding { band_rows: 8, keep: vec![Keep::Maps; 3] },
            Banding::default(),
        ] {
            let (mut plain, mut device) = (Vec::new(), Vec::new());
            let mut keep_plain = |_: usize, rows: &[f32]| {
                plain.extend_from_slice(rows);
                Ok(())
            };
            decoder.decode_plain(&latents, &options, &mut keep_plain).expect("plain");
            let mut keep_device = |_: usize, rows: &[f32]| {
                device.extend_from_slice(rows);
                Ok(())
            };
            decoder.decode_on_device(&latents, &options, &mut keep_device).expect("device");
            assert!(relative_error(&plain, &fast) < 3e-6, "{options:?}");
            assert!(relative_error(&device, &fast) < 3e-6, "{options:?}");
        }
    }
}

#[test]
fn borders_of_bands_are_no_seams() {
    let (config, weights) = tiny();
    let decoder = Decoder::open(config, weights).expect("opens");
    let latents = latents(16, 12, 8);
    let (band, row) = (8, 8 * 8 * 3);
    let banded = decode(&decoder, &latents, &Banding { band_rows: band, keep: vec![Keep::Maps; 4] });
    let whole = decode(&decoder, &latents, &Banding { band_rows: 10_000, keep: Vec::new() });
    // Steps from row to row differ from those of the picture decoded at once by rounding only, at borders as elsewhere.
    let step = |image: &[f32], y: usize| -> Vec<f32> {
        (0..row).map(|x| image[(y + 1) * row + x] - image[y * row + x]).collect()
    };
    let differences = |at_border: bool| -> f32 {
        (0..95)
            .filter(|y| at_border == ((y + 1) % band <= 2 || (y + 1) % band >= band - 2))
            .map(|y| largest_difference(&step(&banded, y), &step(&whole, y)))
            .fold(0.0, f32::max)
    };
    let size = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(differences(true) < 2e-5 * size, "{} of {size}", differences(true));
    assert!(differences(false) < 2e-5 * size, "{} of {size}", differences(false));
}

#[test]
fn asks_for_exactly_the_real_decoders_tensors() {
    let (expected, source) = real_tensors("decoder.");
    Decoder::open(autoencoder(), Weights::new(source.clone(), DType::F32, Device::Cpu)).expect("opens");
    assert_eq!(*source.checked.lock().expect("lock"), expected);
    assert!(source.loaded.lock().expect("lock").is_empty(), "opening reads no weights");
}

#[test]
fn decoding_loads_exactly_what_opening_checked() {
    let config = &small_configs()[0];
    let source = Arc::new(Made::for_config(config));
    let decoder = Decoder::open(config.clone(), Weights::new(source.clone(), DType::F32, Device::Cpu)).expect("opens");
    let checked = source.checked.lock().expect("lock").clone();
    decode(&decoder, &latents(16, 2, 2), &Banding::default());
    assert_eq!(*source.loaded.lock().expect("lock"), checked);
}

#[test]
fn broken_models_are_refused_before_anything_is_read() {
    let (config, weights) = tiny();
    let wide = VaeConfig { block_out_channels: vec![64, 32, 64, 64], ..config.clone() };
    let uneven = VaeConfig { norm_num_groups: 7, ..config.clone() };
    let unscaled = VaeConfig { scaling_factor: 0.0, ..config.clone() };
    let stageless = VaeConfig { block_out_channels: Vec::new(), ..config };
    for config in [wide, uneven, unscaled, stageless] {
        assert!(matches!(Decoder::open(config, weights.clone()), Err(Error::Model { .. })));
    }
}

#[test]
fn latents_that_are_not_finite_are_an_error() {
    let (config, weights) = tiny();
    let decoder = Decoder::open(config, weights).expect("opens");
    let mut values = noise(1, 16 * 4 * 4, 1.0);
    values[37] = f32::NAN;
    let latents = Tensor::from_vec(values, (1, 16, 4, 4), &Device::Cpu).expect("latents");
    let error = decoder.decode(&latents, &Banding::default(), &Silent, &mut |_, _| Ok(())).expect_err("NaN");
    assert!(matches!(error, Error::Numeric { .. }), "{error}");
}

#[test]
fn progress_ends_at_the_announced_total() {
    let (config, weights) = tiny();
    let decoder = Decoder::open(config, weights).expect("opens");
    for keep in [Keep::All, Keep::Maps, Keep::Nothing] {
        let told = Told::about(Stage::Decode);
        let options = Banding { band_rows: 4, keep: vec![keep; 4] };
        decoder.decode(&latents(16, 6, 4), &options, &told, &mut |_, _| Ok(())).expect("decodes");
        told.assert_done();
    }
}
