//! Position scaling: which rotary frequencies an axis of more patches than the model was trained on gets, step by step.
//!
//! | scaler | frequencies of pair i on an axis with s = L'/L > 1 |
//! |---|---|
//! | [`Base`] | theta^(-2i/D): native, whatever the size |
//! | [`Ntk`] | the same with theta' = theta · s^(D/(D-2) · kappa(t)) |
//! | [`Yarn`] | native/s for the slowest pairs, NTK's between, native for the fastest |
//!
//! kappa(t) = lambda_s · t^lambda_t is DyPE's schedule ([`DypeSchedule`]); a scaler without one is static. An axis with
//! s <= 1 is native under every scaler. All of it is f64 on plain numbers: no tensors, and nothing else of this crate.
//!
//! Source: Issachar et al., "DyPE: Dynamic Position Extrapolation for Ultra High Resolution Diffusion",
//! arXiv 2510.20766v2, and the authors' reference code of 2026-02, whose tables `tests/position.rs` holds.

mod base;
mod dype;
mod method;
mod ntk;
#[cfg(test)]
mod properties;
mod yarn;

pub use base::Base;
pub use dype::{DypeSchedule, Thresholds};
pub use method::{DypeSettings, Method, UnknownName};
pub use ntk::Ntk;
pub use yarn::Yarn;

/// One spatial axis of the token grid, and the rotary embedding the model gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotaryAxis {
    /// D: rotary channels of this axis; pairs are D/2.
    pub dim: usize,
    /// theta: the base of the geometric progression of frequencies.
    pub theta: f64,
    /// L: patches along this axis at the training resolution.
    pub base_patches: usize,
    /// L': patches along this axis in the picture being made.
    pub patches: usize,
}

impl RotaryAxis {
    /// s = L'/L: how many times longer than in training this axis is; at most 1 where nothing is extrapolated.
    pub fn scale(&self) -> f64 {
        self.patches as f64 / self.base_patches as f64
    }

    /// D/2: pairs of channels, each turning at its own frequency.
    pub fn pairs(&self) -> usize {
        self.dim / 2
    }

    /// The frequencies of the model's training [D/2]: theta^(-2i/D), radians per patch.
    pub fn native(&self) -> Vec<f64> {
        base::geometric(self.dim, self.theta)
    }
}

/// The moment of the denoising loop for which frequencies are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// t: the current sigma of the schedule, after the shift; 1 is pure noise, 0 the picture.
    pub t: f64,
}

impl Step {
    /// The moment t, in [0, 1].
    pub fn at(t: f64) -> Self {
        Self { t }
    }
}

/// What one axis turns by at one step: the angle of pair i at position p is `p * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisFrequencies {
    /// Radians per patch, one for each pair [D/2].
    pub inv_freq: Vec<f64>,
    /// Factor on cos and sin, one for each pair [D/2].
    pub amplitude: Vec<f64>,
}

/// A rule that gives each axis its frequencies at each step.
pub trait PositionScaler: Send + Sync {
    /// Frequencies of one spatial axis for one denoising step.
    fn frequencies(&self, axis: &RotaryAxis, step: &Step) -> AxisFrequencies;

    /// Whether the frequencies depend on the step; a static scaler's tables are built once.
    fn is_dynamic(&self) -> bool;
}
