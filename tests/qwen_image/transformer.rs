//! The transformer: one forward pass at a usual size and one beyond it.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{Base, Method, Moment, PositionScaler},
    models::{
        ForwardOptions, Model,
        qwen_image::{QwenImageConfig, Transformer, transformer_tensors},
    },
    nn::{Compute, RopeTables, WeightsMode, launches},
};

use crate::{
    support::{fixture, manifest::ManifestSource, relative_error, values},
    tiny,
};

/// 1328 px.
const BASE_PATCHES: usize = 83;

fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("qwen-image/expected/transformer.safetensors"), &Device::Cpu)
        .expect("fixture")
}

fn loaded(mode: WeightsMode, dtype: DType) -> Transformer {
    let model = tiny();
    let weights = model.transformer.weights(dtype, &Device::Cpu);
    Transformer::load(&model.transformer.config, &weights, mode, Compute::on(DeviceKind::Cpu, dtype)).expect("loads")
}

fn rope(rows: usize, columns: usize, text_tokens: usize, scaler: &dyn PositionScaler, t: f64) -> RopeTables {
    let grid = TokenGrid { height_patches: rows, width_patches: columns };
    let ids = tiny().transformer.config.position_ids(grid, text_tokens);
    RopeTables::new(&ids, BASE_PATCHES, scaler, &Moment::at(t), &Device::Cpu).expect("tables")
}

/// How far the velocities at 6 x 11 and at 128 x 3 tokens are from the reference's.
fn errors(transformer: &Transformer) -> [f64; 2] {
    let golden = golden();
    let t = f64::from(golden["timestep"].to_vec1::<f32>().expect("one number")[0]);
    let text = &golden["prompt_embeds"];
    let off = |img: &str, velocity: &str, rope: &RopeTables| {
        let found = transformer.forward(&golden[img], text, t, rope).expect("runs");
        relative_error(&values(&found), &values(&golden[velocity]))
    };
    let stretched = Method::YARN.scaler(Some(dype::testing::methods::DypeSettings::default()));
    // What the authors' class takes for t (transformer.json).
    let upstream = 0.999_300_000_011_920_9;
    [
        off("img", "velocity", &rope(6, 11, 23, &Base, t)),
        off("dype_img", "dype_velocity", &rope(128, 3, 23, &*stretched, upstream)),
    ]
}

#[test]
fn velocities_meet_the_reference() {
    for mode in [WeightsMode::Resident, WeightsMode::Stream] {
        for error in errors(&loaded(mode, DType::F32)) {
            assert!(error < 1e-5, "{mode:?}: off by {error:e}");
        }
    }
}

#[test]
fn the_moment_is_embedded_as_the_reference_embeds_it() {
    let golden = golden();
    let t = f64::from(golden["timestep"].to_vec1::<f32>().expect("one number")[0]);
    let found = loaded(WeightsMode::Stream, DType::F32).time_embedding(t, &Device::Cpu).expect("embedded");
    let error = relative_error(&values(&found), &values(&golden["time_embedding"]));
    assert!(error < 1e-5, "off by {error:e}");
}

/// Pieces change memory and speed alone; weights that are streamed nothing at all.
#[test]
fn pieces_and_streams_change_nothing() {
    let golden = golden();
    let rope = rope(6, 11, 23, &Base, 0.5);
    let run = |transformer: &Transformer| -> Vec<f32> {
        values(&transformer.forward(&golden["img"], &golden["prompt_embeds"], 0.5, &rope).expect("runs"))
    };
    let whole = run(&loaded(WeightsMode::Resident, DType::F32));
    assert_eq!(run(&loaded(WeightsMode::Stream, DType::F32)), whole);
    let pieces = ForwardOptions { token_chunk: 7, query_rows: 5, heads: 1 };
    let error = relative_error(&run(&loaded(WeightsMode::Resident, DType::F32).with_options(pieces)), &whole);
    assert!(error < 1e-5, "off by {error:e}");
}

#[test]
fn rounded_products_stay_near() {
    for error in errors(&loaded(WeightsMode::Resident, DType::BF16)) {
        assert!(error < 2e-2, "off by {error:e}");
    }
}

/// The loader asks for all 1933 tensors of the real model, by name and shape.
#[test]
fn the_real_model_is_asked_for_exactly_its_tensors() {
    let listed: BTreeMap<_, _> =
        transformer_tensors(&QwenImageConfig::qwen_image()).expect("a configuration").into_iter().collect();
    let real = ManifestSource::fixture("qwen-image/real_tensors.json", "transformer");
    assert_eq!((listed.len(), &listed == real.shapes()), (1933, true));
}

/// The dry pass launches what a real one launches, where tensors are launched at all.
#[test]
fn the_dry_pass_is_the_real_one() {
    let model = tiny();
    let golden = golden();
    let rope = rope(6, 11, 23, &Base, 0.5);
    let pieces = ForwardOptions { token_chunk: 16, query_rows: 16, heads: 2 };
    for (mode, dtype) in [WeightsMode::Resident, WeightsMode::Stream]
        .into_iter()
        .flat_map(|mode| [(mode, DType::F32), (mode, DType::F16)])
    {
        let transformer = loaded(mode, dtype).with_options(pieces);
        let before = launches();
        transformer.forward(&golden["img"], &golden["prompt_embeds"], 0.5, &rope).expect("runs");
        let real = launches() - before;
        let dry =
            model.step_cost((DeviceKind::Cpu, dtype), mode, [66, 23].into(), pieces).expect("a dry pass").launches;
        assert_eq!(dry, real, "{mode:?} {dtype:?}");
    }
}
