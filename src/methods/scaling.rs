//! Which side's length an axis is scaled by, and the amplitude that goes with it: knobs for pictures that are far from square.

use super::words::words;
use super::{Knob, RotaryAxis, Takes};

/// The rule of [`Scaling`], as a knob of methods that scale each axis by its own length.
pub const SCALING: Knob = Knob {
    name: "scaling",
    help: "What each side is scaled by: axis by its own length, longest both by the longer side's, so that shapes keep their \
           proportions in wide pictures, mixed interpolates by its own and takes the rest from the longer side's",
    takes: Takes::Word(&Scaling::NAMES),
};
/// The rule of [`Amplitude`], as a knob of methods that have one amplitude for all pairs.
pub const AMPLITUDE: Knob = Knob {
    name: "amplitude",
    help: "How yarn sharpens attention: yarn by 0.1 ln(s) + 1 at every step, fading by less and less as the picture forms, damped \
           by 0.1 ln(s) / sqrt(s) + 1",
    takes: Takes::Word(&Amplitude::NAMES),
};
/// The start of [`Fading`], as a knob of methods whose amplitude may fade.
pub const FADING_START: Knob = Knob {
    name: "fading_start",
    help: "With --amplitude fading, the t below which the amplitude fades; at 1 it does so from the first step on",
    takes: Takes::Number { least: 0.0 },
};
/// lambda_t of an amplitude that fades where there is no DyPE. Source: ComfyUI-DyPE, whose exponent this is.
const FADING_EXPONENT: f64 = 2.0;
/// The amplitude's slope over ln(s). Source: YaRN (arXiv 2309.00071), Eq. 22, applied to q and to k.
const SLOPE: f64 = 0.1;

/// What an axis is scaled by. Two axes that are scaled by their own lengths turn at different frequencies, and what is round
/// may come out oval in a picture that is far from square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scaling {
    /// Its own s, as the reference does it.
    #[default]
    Axis,
    /// S of the longer side, for both axes alike. Source: ComfyUI-DyPE's `yarn` and `ntk`, isotropic.
    Longest,
    /// Interpolation by its own s, NTK's frequencies and the amplitude by S. Source: ComfyUI-DyPE's `vision_yarn`.
    Mixed,
}

words!("scaling", Scaling: Axis = "axis", Longest = "longest", Mixed = "mixed");

/// The factor of all pairs on cos and sin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Amplitude {
    /// `0.1 ln(s) + 1` at every step.
    #[default]
    Yarn,
    /// `0.1 ln(s) min(t / start, 1)^lambda_t + 1`: YaRN's down to t = start, and 1 at the end. Source: ComfyUI-DyPE's `vision_yarn`.
    Fading,
    /// `0.1 ln(s) / sqrt(s) + 1` at every step. Source: ComfyUI-DyPE's `yarn`.
    Damped,
}

/// When a fading amplitude begins to fade.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fading {
    /// t in [0, 1] down to which it is whole. Source: ComfyUI-DyPE's `dype_start_sigma`.
    pub start: f64,
}

impl Default for Fading {
    fn default() -> Self {
        Self { start: 1.0 }
    }
}

impl Fading {
    /// What is left at time t: `min(t / start, 1)^exponent`; `exponent` is DyPE's lambda_t, where it acts.
    pub(super) fn left(self, t: f64, exponent: Option<f64>) -> f64 {
        let is_whole = t >= self.start;
        if is_whole { 1.0 } else { (t / self.start).powf(exponent.unwrap_or(FADING_EXPONENT)) }
    }
}

words!("amplitude", Amplitude: Yarn = "yarn", Fading = "fading", Damped = "damped");

impl Scaling {
    /// The axis as it is scaled: as it is, or as long as the longer side.
    pub(super) fn scaled(self, axis: &RotaryAxis) -> RotaryAxis {
        match self {
            Self::Axis => *axis,
            Self::Longest | Self::Mixed => RotaryAxis { patches: axis.longest_patches, ..*axis },
        }
    }

    /// What the axis is slowed by where it is interpolated.
    pub(super) fn interpolation(self, axis: &RotaryAxis) -> f64 {
        match self {
            Self::Axis => axis.scale(),
            Self::Longest => axis.longest(),
            Self::Mixed => axis.scale().max(1.0),
        }
    }
}

impl Amplitude {
    /// Whether it depends on t.
    pub(super) fn follows_time(self) -> bool {
        self == Self::Fading
    }

    /// The amplitude of an axis that is scaled by `scale` > 1, where so much is left of one that fades.
    pub(super) fn of(self, scale: f64, left: f64) -> f64 {
        match self {
            Self::Yarn => SLOPE * scale.ln() + 1.0,
            Self::Fading => SLOPE * scale.ln() * left + 1.0,
            Self::Damped => SLOPE * scale.ln() / scale.sqrt() + 1.0,
        }
    }
}
