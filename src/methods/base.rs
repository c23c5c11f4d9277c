//! The frequencies of training, at every size.

use super::{AxisFrequencies, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis};

/// No scaling: every axis keeps its native frequencies, `inv_freq[i] = theta^(-2i/D)`, amplitude 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base;

impl Base {
    /// DyPE has nothing to move here, and nothing tunes it.
    pub const SPEC: MethodSpec = MethodSpec {
        name: "base",
        help: "the frequencies of training, at every size",
        dype: None,
        knobs: &[],
        scaler: |_| Box::new(Self),
    };
}

impl PositionScaler for Base {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Nothing
    }

    fn frequencies(&self, axis: &RotaryAxis, _at: &Moment) -> AxisFrequencies {
        native(axis)
    }
}

/// What an axis gets that needs no extrapolation.
pub(super) fn native(axis: &RotaryAxis) -> AxisFrequencies {
    AxisFrequencies { inv_freq: axis.native(), amplitude: vec![1.0; axis.pairs()] }
}

/// The geometric progression theta^(-2i/D) of rotary embeddings [D/2] (Su et al., arXiv 2104.09864, section 3.3).
pub(super) fn geometric(dim: usize, theta: f64) -> Vec<f64> {
    (0..dim / 2).map(|pair| theta.powf(-((2 * pair) as f64) / dim as f64)).collect()
}
