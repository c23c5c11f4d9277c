//! The banded decoder against the reference's picture, and against a plain decoder of the whole picture at once.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use candle_core::{DType, Device, Tensor};
use dype::{
    Error,
    base::geometry::{ImageSize, LatentSize},
    base::json::read_json,
    base::progress::{Event, Observer, Silent, Stage},
    models::parts::kl::{
        DecodeKernels, DecodeOptions, Decoder, Keep, VaeConfig, best_options, decode_cost, decode_flops,
        decode_memory_bytes, least_options,
    },
    weights::{SafetensorsStore, TensorSource, Weights},
};
use support::{fixture, largest_difference, relative_error, vae::Plain};

fn tiny() -> (VaeConfig, Weights) {
    let folder = fixture("tiny-flux/vae");
    let shards = [1, 2].map(|i| folder.join(format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors")));
    let store = SafetensorsStore::open(&shards).expect("the fixture opens");
    let config = read_json(&folder.join("config.json")).expect("the fixture's config");
    (config, Weights::new(Arc::new(store), DType::F32, Device::Cpu))
}

/// Weights made up from their names, of any decoder; remembers what was asked for.
#[derive(Default)]
struct Made {
    shapes: HashMap<String, Vec<usize>>,
    loaded: Mutex<BTreeSet<String>>,
    checked: Mutex<BTreeSet<String>>,
}

impl Made {
    fn for_config(config: &VaeConfig) -> Self {
        let mut shapes = HashMap::new();
        let mut conv = |name: String, inputs: usize, outputs: usize, kernel: usize| {
            let kernel = if kernel == 0 { vec![] } else { vec![kernel, kernel] };
            shapes.insert(format!("{name}.weight"), [vec![outputs, inputs], kernel].concat());
            shapes.insert(format!("{name}.bias"), vec![outputs]);
        };
        let mut norms = Vec::new();
        let mut residual = |name: String, inputs: usize, outputs: usize| {
            conv(format!("{name}.conv1"), inputs, outputs, 3);
            conv(format!("{name}.conv2"), outputs, outputs, 3);
            norms.extend([(format!("{name}.norm1"), inputs), (format!("{name}.norm2"), outputs)]);
            if inputs != outputs {
                conv(format!("{name}.conv_shortcut"), inputs, outputs, 1);
            }
        };
        let mut channels = *config.block_out_channels.last().expect("stages");
        let last = channels;
        residual("decoder.mid_block.resnets.0".into(), last, last);
        residual("decoder.mid_block.resnets.1".into(), last, last);
        for (stage, &outputs) in config.block_out_channels.iter().rev().enumerate() {
            for resnet in 0..=config.layers_per_block {
                residual(format!("decoder.up_blocks.{stage}.resnets.{resnet}"), channels, outputs);
                channels = outputs;
            }
        }
        for (stage, &channels) in config.block_out_channels.iter().rev().enumerate() {
            conv(format!("decoder.up_blocks.{stage}.upsamplers.0.conv"), channels, channels, 3);
        }
        for part in ["to_q", "to_k", "to_v", "to_out.0"] {
            conv(format!("decoder.mid_block.attentions.0.{part}"), last, last, 0);
        }
        conv("decoder.conv_in".into(), config.latent_channels, last, 3);
        conv("decoder.conv_out".into(), channels, 3, 3);
        conv("post_quant_conv".into(), config.latent_channels, config.latent_channels, 1);
        norms.push(("decoder.mid_block.attentions.0.group_norm".into(), last));
        norms.push(("decoder.conv_norm_out".into(), channels));
        for (name, channels) in norms {
            shapes.insert(format!("{name}.weight"), vec![channels]);
            shapes.insert(format!("{name}.bias"), vec![channels]);
        }
        Self { shapes, ..Self::default() }
    }

    fn weights(self) -> Weights {
        Weights::new(Arc::new(self), DType::F32, Device::Cpu)
    }
}

impl TensorSource for Made {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.checked.lock().expect("lock").insert(name.to_owned());
        self.shapes.get(name).cloned()
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> dype::Result<Tensor> {
        self.loaded.lock().expect("lock").insert(name.to_owned());
        let shape = &self.shapes[name];
        let fan_in: usize = shape[1..].iter().product();
        let seed = name.bytes().fold(7u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(b)));
        let values = noise(seed, shape.iter().product(), (1.5 / fan_in as f32).sqrt());
        Ok(Tensor::from_vec(values, shape.as_slice(), device)?.to_dtype(dtype)?)
    }

    fn describe(&self) -> String {
        "made-up weights".into()
    }
}

fn noise(mut state: u32, count: usize, size: f32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        size * ((state >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn latents(channels: usize, height: usize, width: usize) -> Tensor {
    let values = noise(42, channels * height * width, 2.0);
    Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu).expect("latents")
}

fn decode(decoder: &Decoder, latents: &Tensor, options: &DecodeOptions) -> Vec<f32> {
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

/// Every way of keeping maps, for `stages` stages.
fn every_keep(stages: usize) -> Vec<Vec<Keep>> {
    let kinds = [Keep::Nothing, Keep::Maps, Keep::All];
    (0..3usize.pow(stages as u32)).map(|n| (0..stages).map(|s| kinds[n / 3usize.pow(s as u32) % 3]).collect()).collect()
}

#[test]
fn decodes_the_reference_picture() {
    let (config, weights) = tiny();
    let golden = candle_core::safetensors::load(fixture("expected/vae.safetensors"), &Device::Cpu).expect("golden");
    let decoder = Decoder::open(config, weights).expect("the decoder opens");
    let expected = golden["image"].squeeze(0).and_then(|t| t.permute((1, 2, 0))?.flatten_all()?.to_vec1());
    let expected: Vec<f32> = expected.expect("image");
    let lean = DecodeOptions { band_rows: 5, keep: vec![Keep::Nothing; 4] };
    for options in [DecodeOptions::default(), lean] {
        let image = decode(&decoder, &golden["latents"], &options);
        let error = relative_error(&image, &expected);
        assert!(error < 1e-4, "relative error {error}");
        let worst = largest_difference(&image, &expected);
        assert!(worst < 1e-4, "largest difference {worst}");
    }
}

/// Decoders small enough for the plain one: vectors' worth of channels, and odd numbers of them.
fn small_configs() -> [VaeConfig; 2] {
    let base = VaeConfig { norm_num_groups: 4, latent_channels: 16, ..VaeConfig::flux1() };
    [
        VaeConfig { block_out_channels: vec![16, 32, 32], ..base.clone() },
        VaeConfig {
            block_out_channels: vec![4, 12],
            layers_per_block: 1,
            latent_channels: 5,
            use_post_quant_conv: true,
            ..base
        },
    ]
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
                let options = DecodeOptions { band_rows, keep };
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
    let options = DecodeOptions { band_rows: 1280, keep: vec![] };
    decoder
        .decode_plain(&latents, &options, &mut |_, rows| {
            expected.extend_from_slice(rows);
            Ok(())
        })
        .expect("decodes");
    for band_rows in [4, 8, 16, 24, 32, 48, 64] {
        let found = decode(&decoder, &latents, &DecodeOptions { band_rows, keep: vec![] });
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
        let fast = decode(&decoder, &latents, &DecodeOptions::default());
        for options in [
            DecodeOptions { band_rows: 3, keep: vec![Keep::Nothing; 3] },
            DecodeOptions { band_rows: 8, keep: vec![Keep::Maps; 3] },
            DecodeOptions::default(),
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
    let banded = decode(&decoder, &latents, &DecodeOptions { band_rows: band, keep: vec![Keep::Maps; 4] });
    let whole = decode(&decoder, &latents, &DecodeOptions { band_rows: 10_000, keep: Vec::new() });
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
    let text = std::fs::read_to_string(fixture("flux1_dev_tensors.json")).expect("fixture");
    let all: HashMap<String, BTreeMap<String, Vec<usize>>> = serde_json::from_str(&text).expect("JSON");
    let expected: BTreeSet<String> = all["vae"].keys().filter(|name| name.starts_with("decoder.")).cloned().collect();
    let source = Arc::new(Made { shapes: all["vae"].clone().into_iter().collect(), ..Made::default() });
    Decoder::open(VaeConfig::flux1(), Weights::new(source.clone(), DType::F32, Device::Cpu)).expect("opens");
    assert_eq!(*source.checked.lock().expect("lock"), expected);
    assert!(source.loaded.lock().expect("lock").is_empty(), "opening reads no weights");
}

#[test]
fn decoding_loads_exactly_what_opening_checked() {
    let config = &small_configs()[0];
    let source = Arc::new(Made::for_config(config));
    let decoder = Decoder::open(config.clone(), Weights::new(source.clone(), DType::F32, Device::Cpu)).expect("opens");
    let checked = source.checked.lock().expect("lock").clone();
    decode(&decoder, &latents(16, 2, 2), &DecodeOptions::default());
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
    let error = decoder.decode(&latents, &DecodeOptions::default(), &Silent, &mut |_, _| Ok(())).expect_err("NaN");
    assert!(matches!(error, Error::Numeric { .. }), "{error}");
}

#[test]
fn progress_ends_at_the_announced_total() {
    #[derive(Default)]
    struct Told(Mutex<(u64, u64)>);
    impl Observer for Told {
        fn on(&self, event: Event) {
            let mut told = self.0.lock().expect("lock");
            match event {
                Event::Begin { stage: Stage::Decode, total } => told.0 = total,
                Event::Advance { stage: Stage::Decode, done, .. } => {
                    assert!(done >= told.1);
                    told.1 = done;
                }
                _ => {}
            }
        }
    }
    let (config, weights) = tiny();
    let decoder = Decoder::open(config, weights).expect("opens");
    for keep in [Keep::All, Keep::Maps, Keep::Nothing] {
        let told = Told::default();
        let options = DecodeOptions { band_rows: 4, keep: vec![keep; 4] };
        decoder.decode(&latents(16, 6, 4), &options, &told, &mut |_, _| Ok(())).expect("decodes");
        let (total, done) = *told.0.lock().expect("lock");
        assert!(total > 0);
        assert_eq!(total, done);
    }
}

fn size(side_px: usize) -> LatentSize {
    ImageSize::new(side_px, side_px).expect("a size").tokens().latents()
}

const GB: u64 = 1_000_000_000;

#[test]
fn no_buffer_reaches_what_a_device_can_count() {
    for config in [VaeConfig::flux1(), VaeConfig { block_out_channels: vec![32, 32, 64, 64], ..VaeConfig::flux1() }] {
        for side_px in [4096, 8192] {
            for keep in every_keep(4) {
                let cost =
                    decode_cost(&config, DecodeKernels::Cpu, size(side_px), &DecodeOptions { band_rows: 32, keep })
                        .expect("a decoder");
                assert!(cost.largest_elements < 1 << 32, "{side_px} px: {}", cost.largest_elements);
            }
        }
    }
}

#[test]
fn the_real_decoder_fits_a_machine_of_24_gb_at_4096_px() {
    let config = VaeConfig::flux1();
    let all = decode_memory_bytes(&config, DecodeKernels::Cpu, size(4096), &DecodeOptions::default());
    assert!(all > 16 * GB, "keeping all takes two maps of 8.6 GB: {all}");
    let options = best_options(&config, DecodeKernels::Cpu, size(4096), 12 * GB).expect("fits");
    let cost = decode_cost(&config, DecodeKernels::Cpu, size(4096), &options).expect("a decoder");
    assert!(cost.memory_bytes <= 12 * GB);
    let once = decode_flops(&config, size(4096));
    assert!((cost.flops as f64) < 1.3 * once as f64, "{} of {once}", cost.flops);
    let least = decode_cost(
        &config,
        DecodeKernels::Cpu,
        size(4096),
        &least_options(&config, DecodeKernels::Cpu, size(4096)).expect("a decoder"),
    );
    assert!(least.expect("a decoder").memory_bytes < 5 * GB);
}

#[test]
fn the_tiny_decoder_needs_little_more_than_a_gigabyte_at_4096_px() {
    let config = VaeConfig { block_out_channels: vec![32, 32, 64, 64], ..VaeConfig::flux1() };
    let options = best_options(&config, DecodeKernels::Cpu, size(4096), GB).expect("fits");
    assert!(decode_memory_bytes(&config, DecodeKernels::Cpu, size(4096), &options) <= GB);
}

#[test]
fn too_small_a_budget_is_an_error_that_says_the_least() {
    let error = best_options(&VaeConfig::flux1(), DecodeKernels::Cpu, size(4096), GB / 10).expect_err("100 MB");
    assert!(matches!(error, Error::Memory { .. }));
    assert!(error.to_string().contains("at least"), "{error}");
}

#[test]
fn work_grows_with_the_picture() {
    // 1024 px: 10.4 TFLOP, of which attention over 128 x 128 latents 0.55; counted by hand from the layers.
    let flops = decode_flops(&VaeConfig::flux1(), size(1024)) as f64;
    assert!((flops / 1e12 - 10.4).abs() < 0.2, "{flops}");
}
