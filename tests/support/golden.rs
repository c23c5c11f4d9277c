//! What the fixtures' README asks of float32 on a CPU, and how it is held.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use dype::testing::{
    base::json::read_json,
    methods::{DypeSettings, Method, Moment, RotaryAxis, Thresholds},
};
use serde::Deserialize;

/// Latents of a whole run, relative to their norm.
pub const LATENTS_TOLERANCE: f64 = 1e-4;
/// Pictures: the mean of the differences of channels, and the largest.
const MEAN_TOLERANCE: f64 = 0.02;
const CHANNEL_TOLERANCE: u8 = 2;

/// Mean and most of the differences between the channels of two pictures.
#[track_caller]
pub fn differences(found: &[u8], expected: &[u8]) -> (f64, u8) {
    assert_eq!(found.len(), expected.len());
    let differences = || found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let mean = differences().map(f64::from).sum::<f64>() / found.len() as f64;
    (mean, differences().max().unwrap_or(0))
}

/// The pictures are as near as the fixtures' README asks.
#[track_caller]
pub fn assert_same_picture(found: &[u8], expected: &[u8]) {
    let (mean, most) = differences(found, expected);
    assert!(mean < MEAN_TOLERANCE, "mean difference {mean}");
    assert!(most <= CHANNEL_TOLERANCE, "a channel is off by {most}");
}

/// One frequency table of the reference: what was asked, and its amplitude; the frequencies are the tensor `key`.
#[derive(Debug, Deserialize)]
pub struct Table {
    pub key: String,
    pub method: String,
    pub dype: bool,
    pub revision: String,
    pub t: Option<f64>,
    pub patches: usize,
    pub base_patches: usize,
    pub dim: usize,
    pub theta: f64,
    /// The amplitude.
    pub mscale: f64,
    /// Whether the ramps of beta and gamma turn round.
    pub ramp_inverted: Option<[bool; 2]>,
}

impl Table {
    /// What of DyPE is asked for.
    fn settings(&self) -> Option<DypeSettings> {
        let thresholds = match self.revision.as_str() {
            "2026-02" => Thresholds::Product,
            "2025-10" => Thresholds::Power,
            other => panic!("unknown revision {other}"),
        };
        self.dype.then_some(DypeSettings { thresholds, ..DypeSettings::default() })
    }

    /// The reference computes YaRN's ramps and amplitude in f32; all else is f64.
    fn tolerance(&self) -> f64 {
        if self.method == "yarn" { 1e-7 } else { 1e-12 }
    }

    fn assert_met(&self, expected: &[f64]) {
        let method: Method = self.method.parse().expect("a known method");
        let axis = RotaryAxis::of_picture([self.dim; 2], self.theta, self.base_patches, [self.patches; 2])[0];
        let found = method.scaler(self.settings()).frequencies(&axis, &Moment::at(self.t.unwrap_or(1.0)));
        let relative = |found: f64, expected: f64| (found - expected).abs() / expected.abs();
        assert_eq!(found.inv_freq.len(), expected.len(), "{self:?}");
        assert_eq!(found.amplitude.len(), expected.len(), "{self:?}");
        for (pair, (&found, &expected)) in found.inv_freq.iter().zip(expected).enumerate() {
            let error = relative(found, expected);
            assert!(error <= self.tolerance(), "pair {pair}: {found} for {expected}, off by {error:e}: {self:?}");
        }
        for &amplitude in &found.amplitude {
            assert!(relative(amplitude, self.mscale) <= self.tolerance(), "amplitude {amplitude}: {self:?}");
        }
    }
}

/// Holds every table of `position.json` and `position.safetensors` in a folder, which it gives.
pub fn assert_tables(folder: &Path) -> Vec<Table> {
    let tables: Vec<Table> = read_json(&folder.join("position.json")).expect("golden");
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(folder.join("position.safetensors"), &Device::Cpu).expect("golden");
    for table in &tables {
        table.assert_met(&tensors[&table.key].to_vec1().expect("f64"));
    }
    tables
}
