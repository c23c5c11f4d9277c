//! Frequencies at theta 256 against the reference: 367 cases, among them those in which its ramps turn round.

use dype::testing::{
    base::json::read_json,
    methods::{DypeSettings, Method, Moment, RotaryAxis, Thresholds},
};
use serde::Deserialize;

use super::{golden, tensors};

/// One table: what was asked, and its amplitude; the frequencies are the tensor `key`.
#[derive(Debug, Deserialize)]
struct Case {
    key: String,
    method: String,
    dype: bool,
    revision: String,
    t: Option<f64>,
    patches: usize,
    base_patches: usize,
    dim: usize,
    theta: f64,
    mscale: f64,
    ramp_inverted: Option<[bool; 2]>,
}

impl Case {
    fn settings(&self) -> Option<DypeSettings> {
        let thresholds = match self.revision.as_str() {
            "2026-02" => Thresholds::Product,
            "2025-10" => Thresholds::Power,
            other => panic!("unknown revision {other}"),
        };
        self.dype.then_some(DypeSettings { thresholds, ..DypeSettings::default() })
    }
}

#[test]
fn every_table_is_the_references() {
    let cases: Vec<Case> = read_json(&golden("expected/position.json")).expect("golden");
    let tables = tensors("expected/position.safetensors");
    assert_eq!(cases.len(), 367);
    let inverted = cases.iter().filter(|case| case.ramp_inverted.is_some_and(|ramps| ramps.contains(&true)));
    assert_eq!(inverted.count(), 26, "ramps that turn round are among them");
    for case in &cases {
        let method: Method = case.method.parse().expect("a method");
        let axis = RotaryAxis::of_picture([case.dim; 2], case.theta, case.base_patches, [case.patches; 2])[0];
        let found = method.scaler(case.settings()).frequencies(&axis, &Moment::at(case.t.unwrap_or(1.0)));
        let expected: Vec<f64> = tables[&case.key].to_vec1().expect("f64");
        // The reference computes YaRN's ramps and amplitude in f32; all else is f64.
        let tolerance = if case.method == "yarn" { 1e-7 } else { 1e-12 };
        assert_eq!(found.inv_freq.len(), expected.len(), "{case:?}");
        for (found, expected) in found.inv_freq.iter().zip(&expected) {
            assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} for {expected}: {case:?}");
        }
        for amplitude in found.amplitude {
            assert!((amplitude - case.mscale).abs() <= tolerance * case.mscale, "amplitude {amplitude}: {case:?}");
        }
    }
}
