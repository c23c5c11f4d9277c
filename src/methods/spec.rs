//! What a method says of itself: the command line, comparisons and `dype inspect` read it.

use std::fmt;

use super::{Amplitude, DypeSchedule, Fading, PositionScaler, Scaling, Thresholds};

/// A method: its name, what moves and tunes it, and how its scaler is made.
pub struct MethodSpec {
    /// The word that names it on the command line and in files.
    pub name: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    /// DyPE's schedule as the paper has it for this method; `None` where DyPE has nothing to move.
    pub dype: Option<DypeSchedule>,
    /// What tunes it.
    pub knobs: &'static [Knob],
    /// The scaler.
    pub scaler: fn(Tuning) -> Box<dyn PositionScaler>,
}

/// How a scaler is tuned, once the method has filled the gaps of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tuning {
    /// DyPE's schedule; `None` for the static scaler.
    pub dype: Option<DypeSchedule>,
    /// How kappa moves thresholds.
    pub thresholds: Thresholds,
    /// What has nothing to do with DyPE.
    pub knobs: Knobs,
}

/// What tunes a method with and without DyPE; a method without such a knob takes no notice of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Knobs {
    /// Which side's length an axis is scaled by.
    pub scaling: Scaling,
    /// The amplitude of methods that have one for all pairs.
    pub amplitude: Amplitude,
    /// When an amplitude begins to fade that does.
    pub fading: Fading,
    /// Whether text is anchored.
    pub text_anchor: bool,
}

/// A setting that tunes a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knob {
    /// Its name in files and pictures; as a flag it is written with hyphens.
    pub name: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    /// What values it takes.
    pub takes: Takes,
}

/// The values of a knob.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Takes {
    /// A finite number of at least this.
    Number {
        /// The least.
        least: f64,
    },
    /// One of these words, the usual one first.
    Word(&'static [&'static str]),
    /// On, or as usual off.
    Switch,
}

impl MethodSpec {
    /// Whether this knob tunes the method.
    pub fn has(&self, knob: &Knob) -> bool {
        self.knobs.iter().any(|own| own.name == knob.name)
    }
}

impl Takes {
    /// Whether this number is among the values.
    pub fn number(&self, value: f64) -> bool {
        matches!(self, Self::Number { least } if value.is_finite() && value >= *least)
    }
}

impl fmt::Debug for MethodSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
