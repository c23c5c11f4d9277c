//! Weights in narrow numbers are held as their files have them, and what computes with them takes the memory that was foretold.

use std::{path::PathBuf, sync::Arc};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::Moment,
    models::flux1::bfl::transformer,
    models::flux1::{Compute, FluxConfig, Forward, ForwardOptions, Transformer, WeightsMode},
    nn::{CodeProducts, RopeTables},
    weights::{TensorFiles, TensorSource, Weights},
};
use safetensors::{Dtype, tensor::TensorView};

use crate::{
    counting::{alone, live},
    transformer_memory::{Still, assert_near, assert_peak, tiny},
};
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
