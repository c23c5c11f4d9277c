//! One forward pass against the reference's, and against itself: streamed, in other pieces, in bf16, dry.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{DypeSettings, Method, Moment, PositionScaler},
    models::{
        ForwardOptions, Model,
        flux2::{Flux2, Transformer},
    },
    nn::{Compute, RopeTables, WeightsMode, launches},
};

use super::{expected, relative_error, tiny};
use crate::support::values;

const GRID: TokenGrid = TokenGrid { height_patches: 11, width_patches: 19 };
/// 128 px.
const BASE_PATCHES: usize = 8;
const SIGMA: f64 = 0.7;
const TEXT_TOKENS: usize = 512;

fn scaler(is_stretched: bool) -> Box<dyn PositionScaler> {
    if is_stretched { Method::YARN.scaler(Some(DypeSettings::default())) } else { Method::BASE.scaler(None) }
}

fn rope(model: &Flux2, is_stretched: bool) -> RopeTables {
    let ids = model.transformer.config.position_ids(GRID, TEXT_TOKENS);
    RopeTables::new(&ids, BASE_PATCHES, &*scaler(is_stretched), &Moment::at(SIGMA), &Device::Cpu).expect("tables")
}

fn load(model: &Flux2, mode: WeightsMode, dtype: DType) -> Transformer {
    let weights = model.transformer_weights(dtype, &Device::Cpu);
    Transformer::load(&model.transformer.config, &weights, mode, Compute::on(DeviceKind::Cpu, dtype)).expect("loads")
}

fn velocity(model: &Flux2, transformer: &Transformer, is_stretched: bool) -> Tensor {
    let golden = expected("transformer");
    let rope = rope(model, is_stretched);
    transformer.forward(&golden["latents"], &golden["prompt_embeds"], SIGMA, &rope).expect("a velocity")
}

#[test]
fn the_velocity_is_the_references_native_and_stretched() {
    let (model, golden) = (tiny(), expected("transformer"));
    let transformer = load(&model, WeightsMode::Resident, DType::F32);
    for (is_stretched, name) in [(false, "native.velocity"), (true, "stretched.velocity")] {
        let error = relative_error(&velocity(&model, &transformer, is_stretched), &golden[name]);
        assert!(error < 1e-4, "{name}: {error:e}");
    }
    let apart = relative_error(&golden["stretched.velocity"], &golden["native.velocity"]);
    assert!(apart > 1e-3, "the two differ by {apart:e}");
}

#[test]
fn streamed_and_in_other_pieces_it_is_the_same() {
    let model = tiny();
    let resident = values(&velocity(&model, &load(&model, WeightsMode::Resident, DType::F32), true));
    assert!(resident == values(&velocity(&model, &load(&model, WeightsMode::Stream, DType::F32), true)), "streamed");
    let pieces = ForwardOptions { token_chunk: 100, query_rows: 33, heads: 1 };
    let parted = load(&model, WeightsMode::Resident, DType::F32).with_options(pieces);
    let error = crate::support::relative_error(&values(&velocity(&model, &parted, true)), &resident);
    assert!(error < 1e-5, "in pieces: {error:e}");
}

#[test]
fn bf16_stays_near() {
    let (model, golden) = (tiny(), expected("transformer"));
    // On a CPU bf16 means products whose inputs are rounded, where the processor has such.
    let error = relative_error(
        &velocity(&model, &load(&model, WeightsMode::Resident, DType::BF16), true),
        &golden["stretched.velocity"],
    );
    assert!(error < 2e-2, "{error:e}");
}

/// Kernels of tensors: the dry pass counts those the real one launches.
#[test]
fn the_dry_pass_launches_what_the_real_one_does() {
    let model = tiny();
    let tokens = [GRID.count(), TEXT_TOKENS];
    for mode in [WeightsMode::Resident, WeightsMode::Stream] {
        let pieces = ForwardOptions { token_chunk: 300, ..ForwardOptions::default() };
        let cost = model.step_cost((DeviceKind::Cpu, DType::F16), mode, tokens.into(), pieces).expect("a cost");
        let transformer = load(&model, mode, DType::F16).with_options(pieces);
        let (rope, golden) = (rope(&model, true), expected("transformer"));
        let before = launches();
        transformer.forward(&golden["latents"], &golden["prompt_embeds"], SIGMA, &rope).expect("a velocity");
        assert_eq!(launches() - before, cost.launches, "{mode:?}");
        assert!(cost.flops > 0 && cost.weights_bytes > 0);
    }
}
