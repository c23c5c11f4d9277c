//! Position scaling: which rotary frequencies an axis of more patches than the model was trained on gets, step by step.

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
