//! The parts at true FLUX.1 widths: position tables, rotation, attention and a whole double block of the transformer, and
//! one convolution of the decoder over a band of rows.

#[path = "random_weights.rs"]
mod random_weights;

use std::{collections::HashMap, hint::black_box, sync::Arc};

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use dype::testing::{
    base::geometry::{ImageSize, TokenGrid},
    methods::{Method, Moment},
    models::flux1::{
        Block, Compute, ForwardOptions, LATENTS, WeightsMode, block_stream, blocks::Pass, transformer_layers,
    },
    nn::bands::ConvBand,
    nn::{
        self, Array, Attention, AttentionTiles, Blocks, Form, Linear, NORM_EPS, Parameters, Place, Products, Quantised,
        RopeTables, Rotation,
    },
    weights::{
        BlockType, Files, Float8, Weights,
        lora::{Adapted, Layer, LayerKind, LoraFile, Network},
    },
};

#[global_allocator]
static ALLOCATOR: dype::Allocator = dype::Allocator;

const TEXT_TOKENS: usize = 512;

fn grid(side_px: usize) -> TokenGrid {
    LATENTS.tokens(ImageSize::new(side_px, side_px).expect("a size"))
}

fn random_array(shape: &[usize]) -> Array {
    random(shape).into()
}

fn zeros(shape: (usize, usize, usize)) -> Array {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros").into()
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("normal numbers")
}

fn tables_of(side_px: usize) -> RopeTables {
    let config = random_weights::config(1, 0);
    let native = Method::BASE.scaler(None);
    let rope = RopeTables::new(
        &config.position_ids(grid(side_px), TEXT_TOKENS),
        config.base_patches(),
        native.as_ref(),
        &Moment::at(0.5),
        &Device::Cpu,
    );
    rope.expect("tables")
}

fn tables(criterion: &mut Criterion) {
    criterion.bench_function("tables/4096px", |bencher| bencher.iter(|| black_box(tables_of(4096))));
}

fn rotation(criterion: &mut Criterion) {
    let rope = tables_of(1024);
    let (x, weight) = (random_array(&[rope.tokens(), 3072]), random_array(&[128]));
    let out = zeros((24, rope.tokens(), 128));
    let (cos, sin) = (Array::from(rope.cos.clone()), Array::from(rope.sin.clone()));
    let rotation = Rotation { weight: &weight, eps: NORM_EPS, cos: &cos, sin: &sin };
    criterion.bench_function("rotation/1024px", |bencher| {
        bencher.iter(|| nn::split_heads(&x, Some(rotation), &out, 0).expect("rotation"));
    });
}

fn attention(criterion: &mut Criterion) {
    let (heads, keys, dim) = (24, 4608, 128);
    let (k, v) = (random_array(&[heads, keys, dim]), random_array(&[heads, keys, dim]));
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let queries = 1024;
    let q = random_array(&[heads, queries, dim]);
    // In floating-point operations.
    group.throughput(Throughput::Elements((4 * heads * queries * keys * dim) as u64));
    for (query_rows, name, products) in [
        (64, "", Products::Exact),
        (256, "", Products::Exact),
        (512, "", Products::Exact),
        (256, ", bf16", Products::Rounded),
    ] {
        let how = Attention { products, ..Attention::plain(AttentionTiles { query_rows, heads: 1 }) };
        group.bench_function(format!("1024 of 4608 queries/{query_rows}{name}"), |bencher| {
            bencher.iter(|| black_box(nn::attention(&q, &k, &v, &how).expect("attention")));
        });
    }
}

/// The block's weights with a LoRA of this rank on every layer of it.
fn with_lora(rank: usize, dtype: DType) -> Weights {
    let config = random_weights::config(1, 0);
    let layers = transformer_layers(&config).expect("layers");
    let mut tensors = HashMap::new();
    let is_linear = |layer: &&Layer| layer.name.starts_with("transformer_blocks.") && layer.kind == LayerKind::Linear;
    for layer in layers.iter().filter(is_linear) {
        let pair = [("A", [rank, layer.inputs]), ("B", [layer.outputs, rank])];
        tensors.extend(pair.map(|(end, shape)| (format!("{}.lora_{end}.weight", layer.name), random(&shape))));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lora.safetensors");
    candle_core::safetensors::save(&tensors, &path).expect("saved");
    let source = random_weights::source("transformer");
    let (prefixes, flat_prefixes): (&[&str], &[&str]) = (&[""], &[]);
    let network =
        Network { part: "transformer", source: source.clone(), layers, aliases: Vec::new(), prefixes, flat_prefixes };
    let fitted =
        LoraFile::open(&path, &Files::default()).and_then(|file| file.fit(std::slice::from_ref(&network), 1.0));
    let adapters = fitted.expect("fits").adapters.remove(0);
    Weights::new(Arc::new(Adapted::new(source, adapters, &network.layers)), dtype, Device::Cpu)
}

/// A whole double block; the same with a LoRA, which is to take under 3% more.
fn double_block(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("double block");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (label, weights) in [
        ("512px", random_weights::weights("transformer", DType::F32)),
        ("512px, LoRA of rank 16", with_lora(16, DType::F32)),
        ("512px, LoRA of rank 128", with_lora(128, DType::F32)),
    ] {
        let (blocks, x, pass) = block_of(&weights);
        group.bench_function(label, |bencher| {
            bencher.iter(|| blocks.for_each(|_, block| block.forward(&x, &pass)).expect("forward"));
        });
    }
}

/// A double block at 512 px, its tokens, and what it is told.
fn block_of(weights: &Weights) -> (Blocks<Block>, Array, Pass) {
    let config = random_weights::config(1, 0);
    let rope = tables_of(512);
    let parameters = Parameters::real(weights);
    let blocks = block_stream(&config, &parameters, WeightsMode::Resident, Compute::EXACT_F32);
    let blocks = blocks.expect("one double block");
    let x = random_array(&[rope.tokens(), config.hidden_size()]);
    let pass = Pass {
        vec: random_array(&[1, config.hidden_size()]),
        keys: zeros((24, rope.tokens(), 128)),
        values: zeros((24, rope.tokens(), 128)),
        cos: rope.cos.into(),
        sin: rope.sin.into(),
        text_tokens: TEXT_TOKENS,
        text_bias: None,
        logit_scale: 1.0,
        products: Compute::EXACT_F32.products,
        options: ForwardOptions::default(),
    };
    (blocks, x, pass)
}

/// Codes, or blocks, of a weight: rows of so many bytes.
fn bytes(rows: usize, row: usize) -> Tensor {
    let bytes: Vec<u8> = (0..rows * row).map(|i| (i * 37 % 251) as u8 & 0x3f).collect();
    Tensor::from_vec(bytes, (rows, row), &Device::Cpu).expect("bytes")
}

/// The widest product of a block, 3072 to 12,288 channels of 4096 and of 512 tokens, with its weight held in each form.
fn forms(criterion: &mut Criterion) {
    let (inputs, outputs) = (3072, 12_288);
    let wide = random(&[outputs, inputs]);
    let half = |dtype| Form::Dense(wide.to_dtype(dtype).expect("halves").into());
    let bytes = |row| bytes(outputs, row);
    let scale = Tensor::full(0.03_f32, 1, &Device::Cpu).expect("a scale");
    let float8 = |kind| Form::Scaled { codes: bytes(inputs).into(), kind, scale: scale.clone().into() };
    let mut all = vec![
        ("bf16", half(DType::BF16)),
        ("f16", half(DType::F16)),
        ("F8_E4M3", float8(Float8::E4M3)),
        ("F8_E5M2", float8(Float8::E5M2)),
    ];
    for kind in BlockType::ALL {
        let bytes = bytes(kind.bytes_of(inputs));
        let blocks = Quantised::new(kind, &bytes, &Place::Real(Device::Cpu)).expect("blocks");
        all.push((kind.name(), Form::Quantised { blocks, inputs: (0, inputs) }));
    }
    for tokens in [4096, 512] {
        let x = random_array(&[tokens, inputs]);
        let mut group = criterion.benchmark_group(format!("linear/{tokens} tokens"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        // In floating-point operations.
        group.throughput(Throughput::Elements((2 * tokens * inputs * outputs) as u64));
        for (name, form) in &all {
            let layer = Linear::new(form.clone(), None, Compute::EXACT_F32).expect("a layer");
            group.bench_function(*name, |bencher| bencher.iter(|| black_box(layer.forward(&x).expect("forward"))));
        }
    }
}

/// The same product where x may be rounded: to bf16, or to the weight's blocks of 8 bits; beside it in f32.
fn rounded_forms(criterion: &mut Criterion) {
    let (tokens, inputs, outputs) = (4608, 3072, 12_288);
    let (x, wide) = (random_array(&[tokens, inputs]), random(&[outputs, inputs]));
    let narrow = Form::Dense(wide.to_dtype(DType::BF16).expect("halves").into());
    let bytes = bytes(outputs, BlockType::Q8_0.bytes_of(inputs));
    let blocks = Quantised::new(BlockType::Q8_0, &bytes, &Place::Real(Device::Cpu)).expect("blocks");
    let blocks = Form::Quantised { blocks, inputs: (0, inputs) };
    let rounded = |products| Compute { products, ..Compute::EXACT_F32 };
    let mut group = criterion.benchmark_group("rounded");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    // In floating-point operations.
    group.throughput(Throughput::Elements((2 * tokens * inputs * outputs) as u64));
    for (name, form, compute) in [
        ("bf16 in f32", narrow.clone(), Compute::EXACT_F32),
        ("bf16", narrow, rounded(Products::Rounded)),
        ("Q8_0", blocks.clone(), rounded(Products::Rounded)),
        ("Q8_0 in int8", blocks, rounded(Products::Int8)),
    ] {
        let layer = Linear::new(form, None, compute).expect("a layer");
        group.bench_function(name, |bencher| bencher.iter(|| black_box(layer.forward(&x).expect("forward"))));
    }
}

/// 32 rows of a convolution of the second stage at 1024 px, 512 channels to 512: by tiles, by plain products, and by the
/// tensor library.
fn conv_band(criterion: &mut Criterion) {
    let (name, channels, rows, width) = ("decoder.up_blocks.1.resnets.1.conv1", 512, 32, 256);
    let weights = random_weights::weights("vae", DType::F32);
    let mut group = criterion.benchmark_group("conv band");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    // In floating-point operations, as the textbook's algorithm has them.
    group.throughput(Throughput::Elements((18 * channels * channels * rows * width) as u64));
    for (label, plain) in [("tiles", false), ("plain products", true)] {
        let band = ConvBand::new(&weights, name, [channels, channels], [rows, width], plain).expect("a convolution");
        group.bench_function(label, |bencher| bencher.iter(|| black_box(band.convolve().expect("rows"))));
    }
    let kernel = weights.get(&format!("{name}.weight"), &[channels, channels, 3, 3]).expect("weights");
    let input = random(&[1, channels, rows, width]);
    group.bench_function("candle conv2d", |bencher| {
        bencher.iter(|| black_box(input.conv2d(&kernel, 1, 1, 1, 1).expect("rows")));
    });
}

criterion_group!(benches, tables, rotation, attention, forms, rounded_forms, double_block, conv_band);
criterion_main!(benches);
