//! Position interpolation: all pairs turn more slowly, so that the longer axis is walked in the turns of training.

use super::base::native;
use super::{
    AxisFrequencies, DYPE_EXPONENT, DYPE_SCALE, DypeSchedule, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis,
    SCALING, Scaling,
};

/// Position interpolation: `inv_freq' = inv_freq / s^kappa(t)`, kappa = 1 when static; amplitude 1.
///
/// Source: "Extending Context Window of Large Language Models via Positional Interpolation" (arXiv 2306.15595); with kappa
/// ComfyUI-DyPE's, which scales both axes by the longer side. At t = 0 kappa is 0 and the frequencies are native.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pi {
    /// DyPE's schedule, or none for the static method.
    pub dype: Option<DypeSchedule>,
    /// Which side's length an axis is scaled by.
    pub scaling: Scaling,
}

impl Pi {
    /// The paper has no lambdas for it: these are ComfyUI-DyPE's.
    pub const SPEC: MethodSpec = MethodSpec {
        name: "pi",
        help: "all pairs slowed alike, so that the longer axis is walked in the turns of training",
        dype: Some(DypeSchedule { scale: 2.0, exponent: 2.0 }),
        knobs: &[DYPE_SCALE, DYPE_EXPONENT, SCALING],
        scaler: |tuning| Box::new(Self { dype: tuning.dype, scaling: tuning.knobs.scaling }),
    };
}

impl PositionScaler for Pi {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        if self.dype.is_some() { Looks::Time } else { Looks::Nothing }
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        if self.scaling.scaled(axis).scale() <= 1.0 {
            return native(axis);
        }
        let slower = self.scaling.interpolation(axis).powf(self.dype.map_or(1.0, |dype| dype.kappa(at.t)));
        let inv_freq = axis.native().into_iter().map(|native| native / slower).collect();
        AxisFrequencies { inv_freq, amplitude: vec![1.0; axis.pairs()] }
    }
}
