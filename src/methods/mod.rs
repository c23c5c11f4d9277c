//! Position scaling: which rotary frequencies an axis of more patches than the model was trained on gets, step by step.
//!
//! | scaler | frequencies of pair i on an axis with s = L'/L > 1 |
//! |---|---|
//! | [`Base`] | theta^(-2i/D): native, whatever the size |
//! | [`Pi`] | native / s^kappa(t) |
//! | [`Ntk`] | the same with theta' = theta · s^(D/(D-2) · kappa(t)) |
//! | [`Yarn`] | native/s for the slowest pairs, NTK's between, native for the fastest |
//! | [`Sega`] | NTK's with a stronger factor from the longer side; amplitudes from the spectrum of the latents |
//!
//! kappa(t) = lambda_s · t^lambda_t is DyPE's schedule ([`DypeSchedule`]); a scaler without one is static. An axis with
//! s <= 1 is native under every scaler, unless it is told to go by the longer side ([`Scaling`]). All of it is f64 on plain
//! numbers: no tensors, and nothing else of this crate.
//!
//! A method is a file: the scaler, and beside it its [`MethodSpec`], which says its name, what DyPE does with it and what
//! else tunes it. A line in [`Method::ALL`] makes it known to the command line, files of prompts and old pictures.
//!
//! Source: Issachar et al., "DyPE: Dynamic Position Extrapolation for Ultra High Resolution Diffusion",
//! arXiv 2510.20766v2, and the authors' reference code of 2026-02, whose tables `tests/methods/position.rs` holds.

mod anchor;
mod axis;
mod base;
mod dype;
mod label;
mod method;
mod ntk;
mod pi;
#[cfg(test)]
mod properties;
mod proportional;
mod scaling;
mod sega;
mod spec;
mod spectrum;
mod words;
mod yarn;

use serde::Serialize;

pub use anchor::TEXT_ANCHOR;
pub use axis::{AxisFrequencies, RotaryAxis, Side};
pub use base::Base;
pub use dype::{DYPE_EXPONENT, DYPE_SCALE, DYPE_THRESHOLDS, DypeSchedule, DypeSettings, Thresholds};
pub use label::{Label, label};
pub use method::{Method, UnknownName};
pub use ntk::Ntk;
pub use pi::Pi;
pub use proportional::{proportional, sharpens};
pub use scaling::{AMPLITUDE, Amplitude, FADING_START, Fading, SCALING, Scaling};
pub use sega::Sega;
pub use spec::{Knob, Knobs, MethodSpec, Takes, Tuning};
pub use spectrum::Spectrum;
pub use yarn::Yarn;

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

/// What the answers of a scaler depend on, next to the axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// Nothing: they hold for all steps.
    Nothing,
    /// The time of the step.
    Time,
    /// The spectrum of the latents that enter the step, and the time if it likes.
    Spectrum,
}

/// What is added to the logit of every text token as a key, whatever the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextBias(pub f64);

/// A ramp over the pairs of an axis, and what it leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RampSpan {
    /// The kind of frequency behind it.
    pub to: &'static str,
    /// The pair it begins at.
    pub from_pair: f64,
    /// The pair it ends at.
    pub to_pair: f64,
    /// Whether it has left the table and turned round, so that every pair stands behind it.
    pub is_inverted: bool,
}

/// Something that a method computes on the way to its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// A number.
    One(f64),
    /// Numbers in a row.
    Many(Vec<f64>),
}

/// A rule that gives each axis its frequencies at each step.
pub trait PositionScaler: Send + Sync {
    /// The method this is a scaler of.
    fn spec(&self) -> &'static MethodSpec;

    /// What the answers depend on. Tables are built once for [`Looks::Nothing`], else at every step; [`Moment::spectrum`]
    /// is there for [`Looks::Spectrum`] alone.
    fn looks(&self) -> Looks;

    /// Frequencies of one spatial axis for one denoising step.
    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies;

    /// Where a method of ramps leads from one kind of frequency to the next, in pairs from the fastest on; for whoever wants to
    /// see them. None by default, and on an axis that needs no extrapolation.
    fn ramps(&self, _axis: &RotaryAxis, _at: &Moment) -> Vec<RampSpan> {
        Vec::new()
    }

    /// What else the method computes for an axis, by name; for whoever wants to see it. None by default.
    fn details(&self, _axis: &RotaryAxis, _at: &Moment) -> Vec<(&'static str, Detail)> {
        Vec::new()
    }

    /// How strongly text is attended to in a picture of these two axes; `None` leaves it as it was trained.
    fn key_bias(&self, _axes: &[RotaryAxis; 2], _at: &Moment) -> Option<TextBias> {
        None
    }
}
