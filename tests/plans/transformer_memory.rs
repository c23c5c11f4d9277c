//! The memory of a forward pass, counted by the allocator, against what a dry pass foretells.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::counting::{alone, live, peak_towards};
use crate::support::manifest::ManifestSource;
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{AxisFrequencies, Base, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis},
    models::flux1::bfl::transformer,
    models::flux1::{Compute, FluxConfig, Forward, ForwardOptions, Transformer, WeightsMode, text_cost},
    models::flux2,
    models::parts::{ClipConfig, ClipEncoder, T5Config, T5Encoder},
    models::z_image::{self, ZImage, text::Prompt},
    models::{Conditioning, Model, ModelRequest, Registry, Velocity, VelocityAt},
    nn::{CodeProducts, RopeTables},
    weights::{TensorFiles, TensorSource, Weights},
};
use safetensors::{Dtype, tensor::TensorView};

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

fn tiny(path: &str) -> PathBuf {
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

/// What matrices are rewritten in.
#[derive(Debug, Clone, Copy)]
enum Narrow {
    Halves(DType),
    /// Floats of 8 bits, with no scale, one, or one of each row.
    Codes(Dtype, Scales),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scales {
    None,
    One,
    Rows,
}

/// Bytes of floats of 8 bits near these numbers: those with 5 of exponent are the upper halves of f16.
fn codes(numbers: &Tensor, dtype: Dtype) -> Vec<u8> {
    if dtype == Dtype::F8_E5M2 {
        let halves: Vec<half::f16> =
            numbers.to_dtype(DType::F16).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("halves");
        return halves.iter().map(|half| half.to_le_bytes()[1]).collect();
    }
    let short = numbers.to_dtype(DType::F8E4M3).expect("codes");
    let bytes = safetensors::serialize([("x", &short)], None).expect("bytes");
    safetensors::SafeTensors::deserialize(&bytes).and_then(|file| Ok(file.tensor("x")?.data().to_vec())).expect("x")
}

/// Rewrites safetensors files as one, with their matrices in narrower numbers.
fn rewritten(paths: &[PathBuf], to: Narrow) -> (tempfile::TempDir, Arc<TensorFiles>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, tensor: &Tensor| {
        let bytes = safetensors::serialize([("x", tensor)], None).expect("bytes");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a file");
        let view = file.tensor("x").expect("x");
        tensors.push((name, view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    };
    let mut coded = Vec::new();
    for (name, tensor) in
        paths.iter().flat_map(|path| candle_core::safetensors::load(path, &Device::Cpu).expect("file"))
    {
        let wide = tensor.to_dtype(DType::F32).expect("f32");
        let (dtype, scales) = match to {
            Narrow::Codes(dtype, scales) if wide.rank() == 2 => (dtype, scales),
            Narrow::Halves(dtype) if wide.rank() == 2 => {
                add(name, &wide.to_dtype(dtype).expect("halves"));
                continue;
            }
            _ => {
                add(name, &wide);
                continue;
            }
        };
        let rows = wide.dims()[0];
        let scale = match scales {
            Scales::None => None,
            Scales::One => Some(Tensor::new(0.03_f32, &Device::Cpu).expect("a scale")),
            Scales::Rows => {
                let scales: Vec<f32> = (0..rows).map(|row| 0.02 + 0.001 * (row % 17) as f32).collect();
                Some(Tensor::from_vec(scales, (rows, 1), &Device::Cpu).expect("scales"))
            }
        };
        let numbers = match &scale {
            Some(scale) => wide.broadcast_div(scale).expect("codes"),
            None => wide.clone(),
        };
        coded.push((name.clone(), dtype, wide.dims().to_vec(), codes(&numbers, dtype)));
        if let Some(scale) = scale {
            add(format!("{}.weight_scale", name.strip_suffix(".weight").expect("a weight")), &scale);
        }
    }
    tensors.extend(coded);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("a view"))
    });
    safetensors::serialize_to_file(views, None, &file).expect("written");
    let store = Arc::new(TensorFiles::open(&[file]).expect("opens"));
    (folder, store)
}

fn shards() -> Vec<PathBuf> {
    (1..=3).map(|i| tiny(&format!("transformer/diffusion_pytorch_model-0000{i}-of-00003.safetensors"))).collect()
}

/// Bytes that stay while a model is loaded.
fn held_by(config: &FluxConfig, source: &Arc<dyn TensorSource>) -> (u64, Transformer) {
    let before = live();
    let weights = Weights::new(source.clone(), DType::F32, Device::Cpu);
    let model = Transformer::load(config, &weights, WeightsMode::Resident, Compute::on(DeviceKind::Cpu, DType::F32))
        .expect("loads");
    (live() - before, model)
}

/// A transformer is held as its file has it, as a dry pass foretells, and gives what its widened copy gives, bit for bit.
fn is_held_as_it_is(what: &str, config: &FluxConfig, narrow: Arc<dyn TensorSource>) {
    let grid = TokenGrid { height_patches: 4, width_patches: 6 };
    let input = |shape: (usize, usize, usize)| {
        let count = shape.0 * shape.1 * shape.2;
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("input")
    };
    let (img, txt) = (input((1, grid.count(), 64)), input((1, 7, config.joint_attention_dim)));
    let pooled = input((1, 1, config.pooled_projection_dim)).squeeze(0).expect("a row");
    let rope =
        RopeTables::new(&config.position_ids(grid, 7), config.base_patches(), &Still, &Moment::at(1.0), &Device::Cpu)
            .expect("tables");
    let guidance = config.guidance_embeds.then_some(1.0);
    let velocity = |model: &Transformer| -> Vec<f32> {
        let out = model.forward(&img, &txt, &pooled, 1.0, guidance, &rope).expect("forward");
        out.flatten_all().and_then(|out| out.to_vec1()).expect("numbers")
    };
    let names = narrow.names().into_iter().filter(|name| !name.ends_with("_scale"));
    let load = |name: String| {
        let wide = narrow.load(&name, DType::F32, &Device::Cpu).expect("loads");
        (name, wide)
    };
    let widened: std::collections::HashMap<_, _> = names.map(load).collect();
    let wide_file = tempfile::NamedTempFile::new().expect("a file");
    candle_core::safetensors::save(&widened, wide_file.path()).expect("written");
    let wide: Arc<dyn TensorSource> = Arc::new(TensorFiles::open(&[wide_file.path().to_path_buf()]).expect("opens"));
    let bytes =
        |source: &dyn TensorSource| -> u64 { source.names().iter().filter_map(|name| source.bytes(name)).sum() };
    let ((narrow_held, narrow_model), (wide_held, wide_model)) = (held_by(config, &narrow), held_by(config, &wide));
    // Layers, names and shapes around the numbers take the same whatever the numbers are: much beside a model as small as this.
    let around = wide_held.saturating_sub(bytes(&*wide));
    assert!(around < bytes(&*wide) / 20, "{what}: {around} bytes around the numbers");
    let narrow_bytes = narrow_held.saturating_sub(around);
    assert_near(narrow_bytes, bytes(&*narrow), 0.01, &format!("{what} of its file"));
    assert_eq!(velocity(&narrow_model), velocity(&wide_model), "{what}");
    let forward = Forward {
        config,
        kind: DeviceKind::Cpu,
        compute: Compute::EXACT_F32,
        weights: Weights::new(narrow, DType::F32, Device::Cpu),
        mode: WeightsMode::Resident,
        step: [grid.count(), 7].into(),
    };
    let planned = forward.cost(ForwardOptions::default()).expect("a dry pass").weights_bytes;
    assert_near(narrow_bytes, planned, 0.01, &format!("{what} planned"));
}

#[test]
fn narrow_files_are_held_as_they_are_and_compute_as_their_widened_copies() {
    let _alone = alone();
    let config = FluxConfig::read(&tiny("transformer/config.json")).expect("config");
    for to in [
        Narrow::Halves(DType::F16),
        Narrow::Halves(DType::BF16),
        Narrow::Codes(Dtype::F8_E4M3, Scales::None),
        Narrow::Codes(Dtype::F8_E4M3, Scales::One),
        Narrow::Codes(Dtype::F8_E4M3, Scales::Rows),
        Narrow::Codes(Dtype::F8_E5M2, Scales::None),
        Narrow::Codes(Dtype::F8_E5M2, Scales::Rows),
    ] {
        let (_folder, narrow) = rewritten(&shards(), to);
        is_held_as_it_is(&format!("{to:?}"), &config, narrow);
    }
}

/// Of the narrow GGUF files.
fn narrow_config() -> FluxConfig {
    FluxConfig {
        num_layers: 1,
        num_single_layers: 1,
        attention_head_dim: 32,
        num_attention_heads: 2,
        joint_attention_dim: 64,
        pooled_projection_dim: 32,
        axes_dims_rope: [4, 14, 14],
        ..FluxConfig::flux1_dev()
    }
}

/// With Q8_0 that meets inputs of 8 bits, and attention that is rounded.
#[test]
fn a_forward_pass_in_8_bits_takes_the_memory_that_was_foretold() {
    let _alone = alone();
    let (config, text) = (narrow_config(), 512);
    let path = crate::support::fixture("gguf/models/narrow-Q8_0.gguf");
    let store: Arc<dyn TensorSource> = Arc::new(TensorFiles::open(&[path]).expect("opens"));
    let weights = Weights::new(Arc::new(transformer(store).expect("BFL's names")), DType::BF16, Device::Cpu);
    let grid = TokenGrid { height_patches: 48, width_patches: 56 };
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    let (img, txt) = (zeros((1, grid.count(), 64)), zeros((1, text, config.joint_attention_dim)));
    let pooled = Tensor::zeros((1, config.pooled_projection_dim), DType::F32, &Device::Cpu).expect("zeros");
    let compute = Compute::on(DeviceKind::Cpu, DType::BF16)
        .with_codes(DeviceKind::Cpu, CodeProducts { int8: true, ..CodeProducts::NONE });
    let mode = WeightsMode::Resident;
    let mut model = Transformer::load(&config, &weights, mode, compute).expect("narrow");
    let step = [grid.count(), text].into();
    let forward = Forward { config: &config, kind: DeviceKind::Cpu, compute, weights, mode, step };
    for (token_chunk, query_rows, heads) in [(4096, 256, 1), (512, 128, 2), (128, 64, 1)] {
        let options = ForwardOptions { token_chunk, query_rows, heads };
        model = model.with_options(options);
        let ids = config.position_ids(grid, text);
        let pass = || {
            let rope = RopeTables::new(&ids, config.base_patches(), &Still, &Moment::at(1.0), &Device::Cpu);
            model.forward(&img, &txt, &pooled, 1.0, Some(1.0), &rope.expect("tables")).expect("forward");
        };
        // The first pass fills the room that matrix products keep for themselves, per thread.
        pass();
        let foretold = forward.cost(options).expect("a dry pass").working_bytes;
        assert_peak(foretold, 0.1, &format!("{options:?}"), pass);
    }
}

#[test]
fn gguf_files_are_held_as_they_are_and_compute_as_their_widened_copies() {
    let _alone = alone();
    let narrow = narrow_config();
    let wide =
        FluxConfig { attention_head_dim: 128, axes_dims_rope: [16, 56, 56], guidance_embeds: false, ..narrow.clone() };
    for (file, config) in [("narrow-Q8_0", &narrow), ("narrow-Q4_0-sdcpp", &narrow), ("wide-K", &wide)] {
        let path = crate::support::fixture(&format!("gguf/models/{file}.gguf"));
        let store: Arc<dyn TensorSource> = Arc::new(TensorFiles::open(&[path]).expect("opens"));
        let named = transformer(Arc::clone(&store)).expect("BFL's names");
        is_held_as_it_is(file, config, Arc::new(named));
    }
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
