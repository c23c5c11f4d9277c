//! The time in DyPE: how strongly a scaler acts at each moment of the denoising loop.

use super::words::words;
use super::{Knob, Takes};

/// lambda_s, as a knob of every method that DyPE moves.
pub const DYPE_SCALE: Knob = Knob {
    name: "dype_scale",
    help: "DyPE's strength at the first step, lambda_s",
    takes: Takes::Number { least: 0.0 },
};
/// lambda_t, as a knob of every method that DyPE moves.
pub const DYPE_EXPONENT: Knob = Knob {
    name: "dype_exponent",
    help: "How soon DyPE fades, lambda_t in kappa = lambda_s * t^lambda_t",
    takes: Takes::Number { least: 0.0 },
};
/// The rule of [`Thresholds`], as a knob of methods that have such.
pub const DYPE_THRESHOLDS: Knob = Knob {
    name: "dype_thresholds",
    help: "How DyPE moves yarn's thresholds: product multiplies by kappa, settled does too and never interpolates for lack of \
           slower pairs at small t, power is the method's 2025-10 revision",
    takes: Takes::Word(&Thresholds::NAMES),
};

/// What differs from the paper's DyPE, where anything does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DypeSettings {
    /// lambda_s in place of the paper's for the method.
    pub scale: Option<f64>,
    /// lambda_t in place of the paper's for the method.
    pub exponent: Option<f64>,
    /// How kappa moves thresholds.
    pub thresholds: Thresholds,
}

/// How strongly the extrapolation acts at time t: `kappa(t) = lambda_s * t^lambda_t` (paper, Eq. 13).
///
/// t is the current sigma of the schedule, 1 for pure noise: the coarse structure forms under the full extrapolation,
/// and the last steps see the frequencies of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DypeSchedule {
    /// lambda_s >= 0: kappa at t = 1.
    pub scale: f64,
    /// lambda_t >= 0: how soon kappa falls as t does; 0 keeps it constant.
    pub exponent: f64,
}

impl DypeSchedule {
    /// kappa at time t in [0, 1].
    pub fn kappa(&self, t: f64) -> f64 {
        self.scale * t.powf(self.exponent)
    }

    /// Whether both numbers are finite and not negative, as the scalers need them.
    pub fn is_valid(&self) -> bool {
        DYPE_SCALE.takes.number(self.scale) && DYPE_EXPONENT.takes.number(self.exponent)
    }
}

/// How kappa moves the thresholds beta and gamma of DY-YaRN. Nothing else, in particular not NTK, depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Thresholds {
    /// `r * kappa`: the paper, and the reference code of 2026-02.
    #[default]
    Product,
    /// `r^(2 * kappa)`, that is beta^(2 t^2) with the paper's lambdas: the reference code of 2025-10. At t = 0 its
    /// thresholds are all 1, so that the last moment is not native.
    Power,
    /// `r * kappa` as [`Thresholds::Product`], with both borders of each ramp held inside the table of pairs. Where even the
    /// slowest pair turns too often to be interpolated, none is; `Product`'s ramp, of which only the end is held, turns
    /// round there and interpolates all. It happens at small t, and the earlier the smaller theta is (below t = 0.024 for
    /// theta 10,000 and 56 channels, 0.050 for 2000 and 32, 0.159 for 256 and 48).
    Settled,
}

words!("thresholds", Thresholds: Product = "product", Power = "power", Settled = "settled");

impl Thresholds {
    /// The last pair at which a ramp over so many may begin.
    pub(super) fn last_start(self, pairs: usize) -> f64 {
        match self {
            Self::Settled => pairs as f64,
            Self::Product | Self::Power => f64::INFINITY,
        }
    }

    /// The threshold `r` (in rotations over the training length) as kappa moves it.
    pub(super) fn moved(self, r: f64, kappa: f64) -> f64 {
        match self {
            Self::Product | Self::Settled => r * kappa,
            Self::Power => r.powf(2.0 * kappa),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambdas_are_finite_and_not_negative() {
        let valid = |scale, exponent| DypeSchedule { scale, exponent }.is_valid();
        assert!(valid(0.0, 0.0) && valid(1e9, 2.0));
        for wrong in [-1e-9, f64::NAN, f64::INFINITY] {
            assert!(!valid(wrong, 2.0) && !valid(1.0, wrong), "{wrong}");
        }
    }
}
