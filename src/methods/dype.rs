//! The time in DyPE: how strongly a scaler acts at each moment of the denoising loop.

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
    /// The paper's choice for DY-NTK.
    pub const NTK: Self = Self { scale: 2.0, exponent: 2.0 };
    /// The paper's choice for DY-YaRN.
    pub const YARN: Self = Self { scale: 1.0, exponent: 2.0 };

    /// kappa at time t in [0, 1].
    pub fn kappa(&self, t: f64) -> f64 {
        self.scale * t.powf(self.exponent)
    }

    /// Whether both numbers are finite and not negative, as the scalers need them.
    pub fn is_valid(&self) -> bool {
        [self.scale, self.exponent].iter().all(|lambda| lambda.is_finite() && *lambda >= 0.0)
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
}

impl Thresholds {
    /// The threshold `r` (in rotations over the training length) as kappa moves it.
    pub(super) fn moved(self, r: f64, kappa: f64) -> f64 {
        match self {
            Self::Product => r * kappa,
            Self::Power => r.powf(2.0 * kappa),
        }
    }
}
