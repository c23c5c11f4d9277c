//! What a scaler is given of an axis, and what it answers.

use super::base;

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

/// What one axis turns by at one step: the angle of pair i at position p is `p * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisFrequencies {
    /// Radians per patch, one for each pair [D/2].
    pub inv_freq: Vec<f64>,
    /// Factor on cos and sin, one for each pair [D/2].
    pub amplitude: Vec<f64>,
}
