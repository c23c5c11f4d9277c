//! The banded encoder against the reference's latents, and against a plain encoder of the whole picture at once.

use dype::testing::models::{Model, ModelRequest, On, parts::kl::Posterior};

use super::*;

/// A picture [3, H, W] as the rows an encoder asks for.
struct Pixels {
    planes: Vec<f32>,
    size: (usize, usize),
    next_row: usize,
}

impl Pixels {
    fn new(planes: Vec<f32>, height: usize, width: usize) -> Self {
        assert_eq!(planes.len(), 3 * height * width);
        Self { planes, size: (height, width), next_row: 0 }
    }

    /// Noise in [-1, 1] that is `scale` times as high and wide as the latents.
    fn noise(config: &VaeConfig, latents: LatentSize) -> Self {
        let (height, width) = (latents.height * config.scale(), latents.width * config.scale());
        Self::new(noise(7, 3 * height * width, 1.0), height, width)
    }

    fn tensor(&self) -> Tensor {
        let (height, width) = self.size;
        Tensor::from_vec(self.planes.clone(), (1, 3, height, width), &Device::Cpu).expect("a picture")
    }

    fn give(&mut self, first: usize, rows: &mut [f32]) -> dype::testing::Result<()> {
        let (height, width) = self.size;
        assert_eq!(first, self.next_row, "rows are asked for from top to bottom, once");
        for (at, value) in rows.iter_mut().enumerate() {
            let (row, column, channel) = (first + at / (3 * width), at / 3 % width, at % 3);
            *value = self.planes[(channel * height + row) * width + column];
        }
        self.next_row += rows.len() / (3 * width);
        Ok(())
    }
}

fn encode(encoder: &Encoder, picture: Pixels, options: &Banding) -> Vec<f32> {
    let mut picture = picture;
    let scale = encoder.config().scale();
    let size = LatentSize { height: picture.size.0 / scale, width: picture.size.1 / scale };
    let latents =
        encoder.encode(size, &mut |first, rows| picture.give(first, rows), options, &Silent).expect("encodes");
    assert_eq!(latents.dims(), [1, encoder.config().latent_channels, size.height, size.width]);
    support::values(&latents)
}

#[test]
fn encodes_the_reference_picture() {
    let (config, weights) = tiny();
    let golden = golden();
    // As the pipeline holds latents: shift and scale are in it.
    let expected = support::values(&golden["encoded_mean"]);
    let picture = golden["image"].clamp(-1f32, 1f32).expect("clamped");
    let encoder = Encoder::open(config, weights).expect("the encoder opens");
    let lean = Banding { band_rows: 5, keep: vec![Keep::Nothing; 4] };
    for options in [Banding::default(), lean] {
        let (_, _, height, width) = picture.dims4().expect("[1, 3, H, W]");
        let found = encode(&encoder, Pixels::new(support::values(&picture), height, width), &options);
        let error = relative_error(&found, &expected);
        assert!(error < 1e-4, "relative error {error}");
    }
}

#[test]
fn every_band_height_and_memory_mode_gives_the_latents_of_the_plain_encoder() {
    for config in small_configs() {
        let stages = config.block_out_channels.len();
        let weights = Made::for_config(&config).weights();
        let size = LatentSize { height: 7, width: 5 };
        let picture = Pixels::noise(&config, size).tensor();
        let plain = Plain { config: &config, weights: &weights }.encode(&picture).expect("plain");
        let encoder = Encoder::open(config.clone(), weights.clone()).expect("opens");
        for band_rows in [1, 2, 3, 4, 7, 16, 1000] {
            for keep in every_keep(stages) {
                let options = Banding { band_rows, keep };
                let found = encode(&encoder, Pixels::noise(&config, size), &options);
                let error = relative_error(&found, &plain);
                assert!(error < 3e-6, "{options:?}: {error}");
            }
        }
    }
}

#[test]
fn plain_products_and_device_operations_give_the_same_latents() {
    for config in small_configs() {
        let weights = Made::for_config(&config).weights();
        let encoder = Encoder::open(config.clone(), weights).expect("opens");
        for (height, width) in [(6, 9), (1, 1), (3, 8)] {
            let size = LatentSize { height, width };
            let fast = encode(&encoder, Pixels::noise(&config, size), &Banding::default());
            for options in [
                Banding { band_rows: 3, keep: vec![Keep::Nothing; 3] },
                Banding { band_rows: 8, keep: vec![Keep::Maps; 3] },
                Banding::default(),
            ] {
                let mut picture = Pixels::noise(&config, size);
                let plain = encoder.encode_plain(size, &mut |first, rows| picture.give(first, rows), &options);
                let mut picture = Pixels::noise(&config, size);
                let device = encoder.encode_on_device(size, &mut |first, rows| picture.give(first, rows), &options);
                for found in [plain, device] {
                    let found = support::values(&found.expect("encodes"));
                    let error = relative_error(&found, &fast);
                    assert!(error < 3e-6, "{options:?}: {error}");
                }
            }
        }
    }
}

/// Wide enough that a band holds several strips of tiles, and tall enough for many bands.
#[test]
fn large_pictures_are_the_same_at_every_band_height() {
    let (config, weights) = tiny();
    let encoder = Encoder::open(config.clone(), weights).expect("opens");
    let size = LatentSize { height: 41, width: 33 };
    let mut picture = Pixels::noise(&config, size);
    let options = Banding { band_rows: 1000, keep: vec![] };
    let expected = encoder.encode_plain(size, &mut |first, rows| picture.give(first, rows), &options);
    let expected = support::values(&expected.expect("encodes"));
    for band_rows in [4, 8, 16, 24, 32] {
        for keep in [Keep::Maps, Keep::All] {
            let options = Banding { band_rows, keep: vec![keep; 4] };
            let error = relative_error(&encode(&encoder, Pixels::noise(&config, size), &options), &expected);
            assert!(error < 1e-5, "{options:?}: {error:e}");
        }
    }
}

#[test]
fn a_single_files_encoder_is_the_folders() {
    let (config, weights) = tiny();
    let file = TensorFiles::open(&[fixture("tiny-bfl/ae.safetensors")]).expect("the fixture opens");
    let names = dype::testing::models::parts::vae_names::vae(Arc::new(file)).expect("an autoencoder");
    let single = Weights::new(Arc::new(names), DType::F32, Device::Cpu);
    let size = LatentSize { height: 3, width: 2 };
    let [folder, single] = [weights, single].map(|weights| {
        let encoder = Encoder::open(config.clone(), weights).expect("opens");
        encode(&encoder, Pixels::noise(&config, size), &Banding::default())
    });
    assert_eq!(folder, single);
}

#[test]
fn asks_for_exactly_the_real_encoders_tensors() {
    let (expected, source) = real_tensors("encoder.");
    Encoder::open(autoencoder(), Weights::new(source.clone(), DType::F32, Device::Cpu)).expect("opens");
    assert_eq!(*source.checked.lock().expect("lock"), expected);
    assert!(source.loaded.lock().expect("lock").is_empty(), "opening reads no weights");
}

#[test]
fn encoding_loads_exactly_what_opening_checked() {
    for config in small_configs() {
        let source = Arc::new(Made::for_config(&config));
        let weights = Weights::new(source.clone(), DType::F32, Device::Cpu);
        let encoder = Encoder::open(config.clone(), weights).expect("opens");
        let checked = source.checked.lock().expect("lock").clone();
        assert_eq!(checked.contains("quant_conv.weight"), config.use_quant_conv);
        encode(&encoder, Pixels::noise(&config, LatentSize { height: 2, width: 2 }), &Banding::default());
        assert_eq!(*source.loaded.lock().expect("lock"), checked);
    }
}

#[test]
fn kinds_of_layers_that_are_not_known_are_refused() {
    let (config, weights) = tiny();
    let unknown = [
        VaeConfig { up_block_types: vec!["UpDecoderBlock2D".into()], ..config.clone() },
        VaeConfig { use_quant_conv: true, ..config },
    ];
    let words = ["up_block_types names 1 stages, block_out_channels has 4", "quant_conv.weight"];
    for (config, word) in unknown.into_iter().zip(words) {
        match Encoder::open(config, weights.clone()) {
            Err(error @ Error::Model { .. }) => assert!(error.to_string().contains(word), "{error}"),
            _ => panic!("{word} should have been refused"),
        }
    }
}

#[test]
fn pictures_that_are_not_finite_are_an_error() {
    let (config, weights) = tiny();
    let encoder = Encoder::open(config, weights).expect("opens");
    let size = LatentSize { height: 4, width: 4 };
    let mut picture = |first: usize, rows: &mut [f32]| {
        rows.fill(if first == 16 { f32::NAN } else { 0.5 });
        Ok(())
    };
    let error = encoder.encode(size, &mut picture, &Banding::default(), &Silent).expect_err("NaN");
    assert!(matches!(error, Error::Numeric { .. }), "{error}");
}

#[test]
fn what_the_picture_fails_with_is_passed_on() {
    let (config, weights) = tiny();
    let encoder = Encoder::open(config, weights).expect("opens");
    let mut picture = |_: usize, _: &mut [f32]| Err(Error::request("the file ends early", ""));
    let size = LatentSize { height: 2, width: 2 };
    let error = encoder.encode(size, &mut picture, &Banding::default(), &Silent).expect_err("no rows");
    assert!(error.to_string().contains("the file ends early"), "{error}");
}

#[test]
fn progress_ends_at_the_announced_total() {
    let (config, weights) = tiny();
    let encoder = Encoder::open(config.clone(), weights).expect("opens");
    for keep in [Keep::All, Keep::Maps, Keep::Nothing] {
        let told = Told::about(Stage::Encode);
        let options = Banding { band_rows: 4, keep: vec![keep; 4] };
        let size = LatentSize { height: 6, width: 4 };
        let mut picture = Pixels::noise(&config, size);
        encoder.encode(size, &mut |first, rows| picture.give(first, rows), &options, &told).expect("encodes");
        told.assert_done();
    }
}

#[test]
fn an_open_model_encodes_what_it_decodes() {
    let model = support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let encoder = model.encoder().expect("tiny-flux has an encoder");
    let size = LatentSize { height: 4, width: 6 };
    let on = On::new(Device::Cpu, DType::F32);
    let ways = encoder.ways((DeviceKind::Cpu, on.dtype), size).expect("ways");
    let options = &ways.best(u64::MAX).expect("a way").options;
    let mut grey = |_: usize, rows: &mut [f32]| {
        rows.fill(0.25);
        Ok(())
    };
    let latents = encoder.encode((Posterior::Mean, size), &mut grey, options, &on, &Silent).expect("encodes");
    assert_eq!(latents.dims(), [1, 16, 4, 6]);
    let mut numbers = 0;
    let mut sink = |_: usize, rows: &[f32]| {
        numbers += rows.len();
        Ok(())
    };
    model.decoder().decode(&latents, options, on.dtype, &Silent, &mut sink).expect("decodes");
    assert_eq!(numbers, 3 * 32 * 48);
}
