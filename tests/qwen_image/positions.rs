//! Where tokens stand, and what turns them: the authors' tables of one axis, and whole tables of picture and text.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use dype::testing::{
    base::{geometry::TokenGrid, json::read_json},
    methods::{Base, DypeSettings, Method, Moment, PositionScaler, RotaryAxis},
    nn::RopeTables,
};
use serde::Deserialize;

use crate::{
    support::{fixture, relative_error, values},
    tiny,
};

const BASE_PATCHES: usize = 83;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    grids: Vec<Grid>,
}

#[derive(Debug, Deserialize)]
struct Case {
    case: usize,
    method: String,
    dim: usize,
    patches: usize,
    #[serde(default)]
    t: f64,
    amplitude: f64,
}

#[derive(Debug, Deserialize)]
struct Grid {
    grid: usize,
    height_tokens: usize,
    width_tokens: usize,
    text_tokens: usize,
    dype: bool,
    t: Option<f64>,
    axes_dims_rope: [usize; 3],
    /// "every 97th", where not all were kept.
    rows: Option<String>,
}

fn golden() -> (Golden, HashMap<String, Tensor>) {
    let tensors = candle_core::safetensors::load(fixture("qwen-image/expected/position.safetensors"), &Device::Cpu);
    (read_json(&fixture("qwen-image/expected/position.json")).expect("fixture"), tensors.expect("fixture"))
}

/// "dype" is YaRN with the schedule.
fn scaler(method: &str) -> Box<dyn PositionScaler> {
    match method {
        "dype" => Method::YARN.scaler(Some(DypeSettings::default())),
        "yarn" => Method::YARN.scaler(None),
        "ntk" => Method::NTK.scaler(None),
        _ => Box::new(Base),
    }
}

#[test]
fn tables_of_one_axis_are_the_authors() {
    let (golden, tensors) = golden();
    assert_eq!(golden.cases.len(), 182);
    for case in &golden.cases {
        let axis = RotaryAxis::of_picture([case.dim; 2], 10_000.0, BASE_PATCHES, [case.patches; 2])[0];
        let found = scaler(&case.method).frequencies(&axis, &Moment::at(case.t));
        let expected = values(&tensors[&format!("case{:04}", case.case)]);
        assert_eq!(found.inv_freq.len(), expected.len());
        for (found, expected) in found.inv_freq.iter().zip(&expected) {
            let error = (found - f64::from(*expected)).abs() / f64::from(*expected);
            assert!(error < 1e-6, "{found} for {expected}, off by {error:e}: {case:?}");
        }
        for amplitude in &found.amplitude {
            assert!((amplitude - case.amplitude).abs() < 1e-6, "{amplitude}: {case:?}");
        }
    }
}

/// Picture tokens stand around (0, 0), each axis by its own scale; text behind the longer half, as it was trained.
#[test]
fn whole_tables_are_the_authors() {
    let (golden, tensors) = golden();
    for grid in &golden.grids {
        let mut config = tiny().transformer.config;
        config.axes_dims_rope = grid.axes_dims_rope;
        let tokens = TokenGrid { height_patches: grid.height_tokens, width_patches: grid.width_tokens };
        let ids = config.position_ids(tokens, grid.text_tokens);
        let scaler = scaler(if grid.dype { "dype" } else { "base" });
        let at = Moment::at(grid.t.unwrap_or(1.0));
        let tables = RopeTables::new(&ids, BASE_PATCHES, &*scaler, &at, &Device::Cpu).expect("tables");
        let image_tokens = tables.tokens() - grid.text_tokens;
        let sides = [("txt", 0, grid.text_tokens), ("img", grid.text_tokens, image_tokens)];
        for (side, start, count) in sides {
            let table = tables.rows(start, count).expect("rows");
            for (name, found) in [("cos", &table.cos), ("sin", &table.sin)] {
                let expected = &tensors[&format!("grid{}/{side}_{name}", grid.grid)];
                let all: Vec<u32> = (0..count as u32).collect();
                let kept: Vec<u32> = match (&grid.rows, side) {
                    (Some(rows), "img") => {
                        assert_eq!(rows, "every 97th");
                        all.into_iter().step_by(97).collect()
                    }
                    _ => all,
                };
                let kept = Tensor::new(kept, &Device::Cpu).and_then(|kept| found.index_select(&kept, 0)).expect("rows");
                assert_eq!(kept.dims(), expected.dims(), "{grid:?}");
                let error = relative_error(&values(&kept), &values(expected));
                assert!(error < 1e-6, "{name} of {side}: off by {error:e}: {grid:?}");
            }
        }
    }
}
