//! NTK-aware scaling: a larger theta, so that the slowest pair turns over the longer axis as it did over the shorter.

use super::base::{geometric, native};
use super::{
    AxisFrequencies, DYPE_EXPONENT, DYPE_SCALE, DypeSchedule, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis,
    SCALING, Scaling,
};

/// NTK-aware scaling: `theta' = theta * s^(D/(D-2) * kappa(t))`, kappa = 1 when static; amplitude 1.
///
/// The fastest pair stays as it is, and the slowest is divided by s^kappa (paper, Eq. 14; static: "NTK-aware scaled
/// RoPE", bloc97 2023). At t = 0 kappa is 0 and the frequencies are native.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ntk {
    /// DyPE's schedule, or none for the static method.
    pub dype: Option<DypeSchedule>,
    /// Which side's length an axis is scaled by.
    pub scaling: Scaling,
}

impl Ntk {
    /// DyPE's lambdas for it are the paper's for DY-NTK (section 4.2).
    pub const SPEC: MethodSpec = MethodSpec {
        name: "ntk",
        help: "a larger theta, so that the slowest pair turns over the longer axis as it did over the shorter",
        dype: Some(DypeSchedule { scale: 2.0, exponent: 2.0 }),
        knobs: &[DYPE_SCALE, DYPE_EXPONENT, SCALING],
        scaler: |tuning| Box::new(Self { dype: tuning.dype, scaling: tuning.knobs.scaling }),
    };
}

impl PositionScaler for Ntk {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        if self.dype.is_some() { Looks::Time } else { Looks::Nothing }
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        let axis = &self.scaling.scaled(axis);
        if axis.scale() <= 1.0 {
            return native(axis);
        }
        let kappa = self.dype.map_or(1.0, |dype| dype.kappa(at.t));
        AxisFrequencies { inv_freq: ntk_frequencies(axis, kappa), amplitude: vec![1.0; axis.pairs()] }
    }
}

/// The frequencies [D/2] under theta' = theta · s^(D/(D-2) · kappa), never below theta.
pub(super) fn ntk_frequencies(axis: &RotaryAxis, kappa: f64) -> Vec<f64> {
    let dim = axis.dim as f64;
    let theta = axis.theta * axis.scale().powf(dim / (dim - 2.0) * kappa);
    // `max` also answers for D = 2 at kappa = 0, where the exponent is infinity times nothing.
    geometric(axis.dim, theta.max(axis.theta))
}
