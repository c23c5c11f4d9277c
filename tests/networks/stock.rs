//! Our transformer beside the stock one of candle-transformers: an independent implementation of the same model, which
//! agrees where it is exact (f32, at the training size, native frequencies).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::flux::{WithForward, model::Config, model::Flux};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{Method, Moment},
    models::flux1::{FluxConfig, Transformer, WeightsMode},
    nn::{Compute, RopeTables},
    weights::{Weights, open_folder},
};

const GRID: TokenGrid = TokenGrid { height_patches: 6, width_patches: 10 };
const TEXT_TOKENS: usize = 7;
const T: f64 = 0.75;
const GUIDANCE: f64 = 3.5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn stock(config: &FluxConfig) -> Flux {
    let stock = Config {
        in_channels: config.in_channels,
        vec_in_dim: config.pooled_projection_dim,
        context_in_dim: config.joint_attention_dim,
        hidden_size: config.hidden_size(),
        mlp_ratio: 4.0,
        num_heads: config.num_attention_heads,
        depth: config.num_layers,
        depth_single_blocks: config.num_single_layers,
        axes_dim: config.axes_dims_rope.to_vec(),
        theta: 10_000,
        qkv_bias: true,
        guidance_embed: config.guidance_embeds,
    };
    let bytes = std::fs::read(fixture("tiny-bfl/flux1-tiny.safetensors")).expect("the fixture");
    let weights = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).expect("tensors");
    Flux::new(&stock, weights).expect("the stock model loads")
}

/// Position ids of the image tokens, (0, row, column): [1, N, 3].
fn img_ids() -> Tensor {
    let ids = (0..GRID.count()).flat_map(|n| [0.0, (n / GRID.width_patches) as f32, (n % GRID.width_patches) as f32]);
    Tensor::from_iter(ids, &Device::Cpu).and_then(|ids| ids.reshape((1, GRID.count(), 3))).expect("ids")
}

fn waves(shape: &[usize], pace: f32) -> Tensor {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| (i as f32 * pace).sin());
    Tensor::from_iter(values, &Device::Cpu).and_then(|values| values.reshape(shape)).expect("values")
}

#[test]
fn the_stock_transformer_agrees_at_the_training_size() {
    let config = FluxConfig::read(&fixture("tiny-flux/transformer/config.json")).expect("config");
    let img = waves(&[1, GRID.count(), config.in_channels], 0.37);
    let txt = waves(&[1, TEXT_TOKENS, config.joint_attention_dim], 0.53);
    let pooled = waves(&[1, config.pooled_projection_dim], 0.71);

    let one = |x: f64| Tensor::new(&[x as f32], &Device::Cpu).expect("a number");
    let txt_ids = Tensor::zeros((1, TEXT_TOKENS, 3), DType::F32, &Device::Cpu).expect("ids");
    let theirs = stock(&config)
        .forward(&img, &img_ids(), &txt, &txt_ids, &one(T), &pooled, Some(&one(GUIDANCE)))
        .expect("the stock model runs");

    let store = open_folder(&fixture("tiny-flux/transformer")).expect("shards");
    let weights = Weights::new(Arc::new(store), DType::F32, Device::Cpu);
    let model = Transformer::load(&config, &weights, WeightsMode::Resident, Compute::on(DeviceKind::Cpu, DType::F32))
        .expect("our model loads");
    let scaler = Method::BASE.scaler(None);
    let rope = RopeTables::new(
        &config.position_ids(GRID, TEXT_TOKENS),
        config.base_patches(),
        scaler.as_ref(),
        &Moment::at(T),
        &Device::Cpu,
    )
    .expect("tables");
    let ours = model.forward(&img, &txt, &pooled, T, Some(GUIDANCE), &rope).expect("our model runs");

    let norm = |t: &Tensor| -> f32 { t.sqr().and_then(|t| t.sum_all()?.to_scalar()).expect("a norm") };
    let difference = norm(&(&ours - &theirs).expect("same shapes"));
    assert!(
        difference.sqrt() < 1e-4 * norm(&theirs).sqrt(),
        "off by {} of the norm",
        (difference / norm(&theirs)).sqrt()
    );
}
