//! The memory of a forward pass, counted by the allocator, against what a dry pass foretells.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::counting::{alone, peak_towards};
use crate::support::manifest::ManifestSource;
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{AxisFrequencies, Base, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis},
    models::flux1::{Compute, FluxConfig, Forward, ForwardOptions, Transformer, WeightsMode, text_cost},
    models::flux2,
    models::parts::{ClipConfig, ClipEncoder, T5Config, T5Encoder},
    models::z_image::{self, ZImage, text::Prompt},
    models::{Conditioning, Model, ModelRequest, Registry, Velocity, VelocityAt},
    nn::RopeTables,
    weights::{TensorFiles, Weights},
};

/// Turns all positions alike, whatever the moment.
pub struct Still;

impl PositionScaler for Still {
    fn spec(&self) -> &'static MethodSpec {
        &Base::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Nothing
    }

    fn frequencies(&self, axis: &RotaryAxis, _at: &Moment) -> AxisFrequencies {
        AxisFrequencies { inv_freq: vec![0.1; axis.dim / 2], amplitude: vec![1.0; axis.dim / 2] }
    }
}

pub fn tiny(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux").join(path)
}

#[test]
fn a_forward_pass_takes_the_memory_that_was_foretold() {
    let _alone = alone();
    let config = FluxConfig::read(&tiny("transformer/config.json")).expect("config");
    let shard = |i| tiny(&format!("transformer/diffusion_pytorch_model-0000{i}-of-00003.safetensors"));
    let store = Arc::new(TensorFiles::open(&[shard(1), shard(2), shard(3)]).expect("shards"));
    let grid = TokenGrid { height_patches: 48, width_patches: 56 };
    let (image, text) = (grid.count(), 512);
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    let (img, txt) = (zeros((1, image, 64)), zeros((1, text, config.joint_attention_dim)));
    let pooled = Tensor::zeros((1, config.pooled_projection_dim), DType::F32, &Device::Cpu).expect("zeros");

    // f16 takes the path of other devices; bf16 is f32 here, with products that may round.
    for (dtype, mode) in [
        (DType::F32, WeightsMode::Resident),
        (DType::BF16, WeightsMode::Resident),
        (DType::F16, WeightsMode::Resident),
        (DType::F32, WeightsMode::Stream),
    ] {
        let weights = Weights::new(store.clone(), dtype, Device::Cpu);
        let mut model =
            Transformer::load(&config, &weights, mode, Compute::on(DeviceKind::Cpu, dtype)).expect("tiny-flux");
        let forward = Forward {
            config: &config,
            kind: DeviceKind::Cpu,
            compute: Compute::on(DeviceKind::Cpu, dtype),
            weights: weights.clone(),
            mode,
            step: [image, text].into(),
        };
        let pass = |model: &Transformer| {
            let rope = RopeTables::new(
                &config.position_ids(grid, text),
                config.base_patches(),
                &Still,
                &Moment::at(1.0),
                &Device::Cpu,
            )
            .expect("tables");
            model.forward(&img, &txt, &pooled, 1.0, Some(1.0), &rope).expect("forward");
        };
        for (token_chunk, query_rows, heads) in [(4096, 256, 1), (512, 128, 4), (128, 64, 1)] {
            let options = ForwardOptions { token_chunk, query_rows, heads };
            model = model.with_options(options);
            // The first pass fills the room that the matrix products keep for themselves, per thread.
            pass(&model);
            let foretold = forward.cost(options).expect("a dry pass").working_bytes;
            assert_peak(foretold, 0.1, &format!("{dtype:?} {mode:?} {options:?}"), || pass(&model));
        }
    }
}

/// FLUX.2's blocks have gated feed-forward layers and what modulates them is computed once.
#[test]
fn a_forward_pass_of_flux2_takes_the_memory_that_was_foretold() {
    let _alone = alone();
    let request = ModelRequest::new(crate::support::fixture("flux2-klein/tiny"));
    let (_, found) = Registry::default().find(&request).expect("found");
    let model = flux2::Flux2::open(found).expect("opens");
    let config = &model.transformer.config;
    let grid = TokenGrid { height_patches: 32, width_patches: 40 };
    let (image, text) = (grid.count(), 512);
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    let (img, txt) = (zeros((1, image, 128)), zeros((1, text, config.joint_attention_dim)));
    // Products of f16 widen one side for themselves, more of it in a dry pass than in a real one.
    for (dtype, mode, tolerance) in [
        (DType::F32, WeightsMode::Resident, 0.1),
        (DType::F32, WeightsMode::Stream, 0.1),
        (DType::F16, WeightsMode::Resident, 0.15),
    ] {
        let weights = model.transformer_weights(dtype, &Device::Cpu);
        let mut transformer =
            flux2::Transformer::load(config, &weights, mode, Compute::on(DeviceKind::Cpu, dtype)).expect("loads");
        for (token_chunk, query_rows, heads) in [(4096, 256, 1), (256, 64, 1)] {
            let options = ForwardOptions { token_chunk, query_rows, heads };
            transformer = transformer.with_options(options);
            let pass = || {
                let ids = config.position_ids(grid, text);
                let rope = RopeTables::new(&ids, 64, &Still, &Moment::at(1.0), &Device::Cpu).expect("tables");
                transformer.forward(&img, &txt, 1.0, &rope).expect("forward");
            };
            // The first pass fills the room that the matrix products keep for themselves, per thread.
            pass();
            let cost =
                model.step_cost((DeviceKind::Cpu, dtype), mode, [image, text].into(), options).expect("a dry pass");
            assert_peak(cost.working_bytes, tolerance, &format!("{dtype:?} {mode:?} {options:?}"), pass);
        }
    }
}

#[test]
fn a_pass_of_z_image_takes_the_memory_that_was_foretold() {
    let _alone = alone();
    let request = ModelRequest::new(crate::support::fixture("z-image/tiny"));
    let model = ZImage::open(Registry::default().find(&request).expect("a model").1).expect("opens");
    let config = &model.transformer.config;
    let grid = TokenGrid { height_patches: 31, width_patches: 43 };
    let (image_tokens, text_tokens) = (grid.count(), 200);
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    let (latents, states) = (zeros((1, image_tokens, 64)), zeros((1, text_tokens, config.cap_feat_dim)));
    for (dtype, mode) in
        [(DType::F32, WeightsMode::Resident), (DType::BF16, WeightsMode::Resident), (DType::F32, WeightsMode::Stream)]
    {
        let weights = model.transformer_weights(dtype, &Device::Cpu);
        let mut transformer =
            z_image::Transformer::load(config, &weights, mode, Compute::on(DeviceKind::Cpu, dtype)).expect("tiny");
        let compute = Compute::on(DeviceKind::Cpu, dtype);
        let forward = z_image::Forward {
            config,
            kind: DeviceKind::Cpu,
            compute,
            weights,
            mode,
            step: [image_tokens, text_tokens].into(),
        };
        // As the first step of a run: the text is refined in it.
        let pass = |transformer: &z_image::Transformer| {
            let text = Conditioning::new(Prompt::new(states.clone()), text_tokens.next_multiple_of(32));
            let ids = model.positions(grid, &text);
            let rope = &RopeTables::new(&ids, 64, &Still, &Moment::at(1.0), &Device::Cpu).expect("tables");
            let at = VelocityAt {
                t: 1.0,
                guidance: None,
                text: &text,
                rope,
                text_bias: None,
                logit_scale: 1.0,
                first_block: None,
            };
            Velocity::velocity(transformer, &latents, &at).expect("a velocity");
        };
        for (token_chunk, query_rows, heads) in [(4096, 256, 1), (128, 64, 1)] {
            let options = ForwardOptions { token_chunk, query_rows, heads };
            transformer = transformer.with_options(options);
            pass(&transformer);
            let foretold = forward.cost(options).expect("a dry pass").working_bytes;
            assert_peak(foretold, 0.1, &format!("{dtype:?} {mode:?} {options:?}"), || pass(&transformer));
        }
    }
}

#[test]
fn text_encoders_take_the_memory_that_was_foretold() {
    let _alone = alone();
    let store = |part: &str| {
        let file = tiny(part).join("model.safetensors");
        Arc::new(TensorFiles::open(&[file]).expect("fixture"))
    };
    let (clip_store, t5_store) = (store("text_encoder"), store("text_encoder_2"));
    let clip_config = ClipConfig::read(&tiny("text_encoder/config.json")).expect("fixture");
    let t5_config = T5Config::read(&tiny("text_encoder_2/config.json")).expect("fixture");
    for dtype in [DType::F32, DType::F16] {
        let weights = |store: &Arc<TensorFiles>| Weights::new(store.clone(), dtype, Device::Cpu);
        let clip = ClipEncoder::open(clip_config.clone(), weights(&clip_store));
        let t5 = T5Encoder::open(t5_config.clone(), weights(&t5_store));
        for prompts in [1, 3] {
            let ids = |tokens: usize, rows: usize| -> Vec<Vec<u32>> {
                (0..prompts).map(|p| (0..tokens).map(|i| ((p * tokens + i) % rows) as u32).collect()).collect()
            };
            let (clip_ids, t5_ids) = (ids(77, clip_config.vocab_size), ids(512, t5_config.vocab_size));
            let encode = || {
                let pooled = clip.encode(&clip_ids, |_| ()).expect("CLIP");
                let embeds = t5.encode(&t5_ids, |_| ()).expect("T5");
                drop((pooled, embeds));
            };
            encode();
            let foretold = text_cost(&clip, &t5, DeviceKind::Cpu, prompts, 512).expect("a dry pass").peak_bytes();
            assert_peak(foretold, 0.15, &format!("{dtype:?}, {prompts} prompts"), encode);
        }
    }
}

/// Work that threads share takes at its most what was foretold.
#[track_caller]
pub fn assert_peak(foretold: u64, tolerance: f64, what: &str, work: impl FnMut()) {
    assert_near(peak_towards(foretold, tolerance, work), foretold, tolerance, what);
}

#[track_caller]
pub fn assert_near(found: u64, foretold: u64, tolerance: f64, what: &str) {
    let ratio = found as f64 / foretold as f64;
    assert!((ratio - 1.0).abs() < tolerance, "{what}: found {found}, foretold {foretold}, {ratio:.3}");
}

#[test]
fn pieces_are_chosen_by_the_budget() {
    let _alone = alone();
    let config = FluxConfig::flux1_dev();
    let forward = Forward {
        config: &config,
        kind: DeviceKind::Cpu,
        compute: Compute::EXACT_F32,
        weights: Weights::absent(DType::BF16),
        mode: WeightsMode::Stream,
        step: [65_536, 512].into(),
    };
    let first = ForwardOptions::first(forward.kind, forward.compute.dtype);
    let within = |bytes: u64| first.within(bytes, |options| forward.cost(options));
    let (options, cost) = within(u64::MAX).expect("all the room");
    assert_eq!(options, ForwardOptions::default());
    let tight = cost.peak_bytes() - 1;
    let (options, cost) = within(tight).expect("smaller pieces");
    assert!(options.token_chunk < ForwardOptions::default().token_chunk && cost.peak_bytes() <= tight);
    let error = within(2 << 30).expect_err("the stream, keys and values alone take 2.4 GB");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("may take 2048 MiB"), "{error}");
    assert!(error.hint().is_some());
}

/// bf16 asked of a CPU is f32 with rounded products: the text encoders' weights are not widened whole for it.
#[test]
fn text_encoders_take_no_more_in_bf16_than_in_f32() {
    let _alone = alone();
    let clip = ClipConfig::read(&tiny("text_encoder/config.json")).expect("fixture");
    let t5 = T5Config::read(&tiny("text_encoder_2/config.json")).expect("fixture");
    let peak = |dtype| {
        let open = |part: &str| {
            let store = TensorFiles::open(&[tiny(&format!("{part}/model.safetensors"))]).expect("fixture");
            Weights::new(Arc::new(store), dtype, Device::Cpu)
        };
        let clip = ClipEncoder::open(clip.clone(), open("text_encoder"));
        let t5 = T5Encoder::open(t5.clone(), open("text_encoder_2"));
        text_cost(&clip, &t5, DeviceKind::Cpu, 1, 64).expect("a dry pass").peak_bytes()
    };
    assert!(peak(DType::BF16) <= peak(DType::F32), "{} {}", peak(DType::BF16), peak(DType::F32));
    let real = |part: &str, dtype| {
        let source = ManifestSource::diffusers(part);
        Weights::new(Arc::new(source), dtype, Device::Cpu)
    };
    let xxl = |dtype| {
        let clip = ClipEncoder::open(ClipConfig::clip_l(), real("text_encoder", dtype));
        let t5 = T5Encoder::open(T5Config::t5_xxl(), real("text_encoder_2", dtype));
        text_cost(&clip, &t5, DeviceKind::Cpu, 1, 512).expect("a dry pass").peak_bytes()
    };
    // A block of T5-XXL is 386 MB in bf16, and two are there at once.
    assert!(
        xxl(DType::BF16) < 1_100_000_000 && xxl(DType::F32) < 1_100_000_000,
        "{} {}",
        xxl(DType::BF16),
        xxl(DType::F32)
    );
}
