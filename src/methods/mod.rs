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
mod spectrum;
mod yarn;

pub use base::Base;
pub use dype::{DypeSchedule, Thresholds};
pub use method::{DypeSettings, Method, UnknownName};
pub use ntk::Ntk;
pub use spectrum::Spectrum;
pub use yarn::Yarn;

/// Which side of the picture an axis runs along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Rows of tokens, from top to bottom.
    Height,
    /// Columns of tokens, from left to right.
    Width,
}

impl Side {
    /// The word for it: "height" or "width".
    pub fn name(self) -> &'static str {
        match self {
            Self::Height => "height",
            Self::Width => "width",
        }
    }
}

/// One spatial axis of the token grid, and the rotary embedding the model gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotaryAxis {
    /// Which of the picture's two axes this is.
    pub side: Side,
    /// D: rotary channels of this axis; pairs are D/2.
    pub dim: usize,
    /// theta: the base of the geometric progression of frequencies.
    pub theta: f64,
    /// L: patches along this axis at the training resolution.
    pub base_patches: usize,
    /// L': patches along this axis in the picture being made.
    pub patches: usize,
    /// Patches along the longer side of the picture; some methods scale both axes by it.
    pub longest_patches: usize,
}

impl RotaryAxis {
    /// Height and width of a picture of `patches`, with the rotary channels of each.
    pub fn of_picture(dims: [usize; 2], theta: f64, base_patches: usize, patches: [usize; 2]) -> [Self; 2] {
        let longest_patches = patches[0].max(patches[1]);
        let axis = |side, dim, patches| Self { side, dim, theta, base_patches, patches, longest_patches };
        [axis(Side::Height, dims[0], patches[0]), axis(Side::Width, dims[1], patches[1])]
    }

    /// s = L'/L: how many times longer than in training this axis is; at most 1 where nothing is extrapolated.
    pub fn scale(&self) -> f64 {
        self.patches as f64 / self.base_patches as f64
    }

    /// S: the s of the longer side.
    pub fn longest(&self) -> f64 {
        self.longest_patches as f64 / self.base_patches as f64
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
pub struct Moment<'a> {
    /// t: the current sigma of the schedule, after the shift; 1 is pure noise, 0 the picture.
    pub t: f64,
    /// Index of the step, from 0.
    pub step: usize,
    /// Number of steps of the whole schedule.
    pub steps: usize,
    /// The spectrum of the latents that enter the step; there for a scaler that looks at it, and for no other.
    pub spectrum: Option<&'a Spectrum>,
}

impl Moment<'_> {
    /// The moment t, in [0, 1], by itself: the only step of a schedule, no latents at hand.
    pub fn at(t: f64) -> Self {
        Self { t, step: 0, steps: 1, spectrum: None }
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
    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies;

    /// Whether the frequencies depend on the step; a static scaler's tables are built once.
    fn is_dynamic(&self) -> bool;
}
