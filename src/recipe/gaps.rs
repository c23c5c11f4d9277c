//! What several settings say together: how one of them fills another's gap, and how entries of other tools' texts are read.

use std::str::FromStr;

use super::{
    CfgRescale, Recipe, Wanted,
    fields::declared,
    setting::{Field, Gaps},
};
use crate::methods::{AMPLITUDE, Amplitude, DypeSchedule, DypeSettings, Knob, Label};

/// What other tools call the scale of classifier-free guidance.
pub const CFG_SCALE: &str = "CFG scale";

/// Asks for what a text says; `None` where it says none.
pub(super) fn read<T: FromStr>(text: &str, into: &mut Option<T>) -> Option<()> {
    *into = Some(text.parse().ok()?);
    Some(())
}

pub(super) fn read_size(text: &str, wanted: &mut Wanted) -> Option<()> {
    let (across, down) = text.split_once('x')?;
    (wanted.width, wanted.height) = (Some(across.parse().ok()?), Some(down.parse().ok()?));
    Some(())
}

pub(super) fn read_position(text: &str, wanted: &mut Wanted) -> Option<()> {
    let label: Label = text.parse().ok()?;
    (wanted.method, wanted.dype) = (Some(label.method), Some(label.dype));
    Some(())
}

/// What other programs call 1 is off; a scale of 1 that is asked for is told apart by its point.
pub(super) fn cfg_elsewhere(scale: Option<f64>) -> String {
    match scale {
        None => "1".to_owned(),
        Some(scale) if scale.fract() == 0.0 => format!("{scale:.1}"),
        Some(scale) => scale.to_string(),
    }
}

pub(super) fn read_cfg(text: &str, wanted: &mut Wanted) -> Option<()> {
    if text != "1" {
        wanted.cfg = Some(text.parse().ok()?);
    }
    Some(())
}

/// How positions were made, in words.
pub(super) fn position(recipe: &Recipe) -> String {
    let base = format!("trained at {} px", recipe.base_resolution);
    match recipe.dype_schedule() {
        Some(DypeSchedule { scale, exponent }) => {
            format!("{} with DyPE, kappa(t) = {scale} t^{exponent}, {base}", recipe.method)
        }
        None => format!("{} without DyPE, {base}", recipe.method),
    }
}

impl Gaps<'_> {
    /// The scale of classifier-free guidance: what is asked for, else the model's own; `None` where it is off as usual.
    pub(super) fn cfg(&self) -> Option<f64> {
        let (rule, usual) = (self.facts.cfg_rule, self.facts.cfg);
        self.wanted.cfg.or(usual).filter(|scale| rule.is_on(*scale) || usual.is_some())
    }

    pub(super) fn is_cfg_on(&self) -> bool {
        self.cfg().is_some_and(|scale| self.facts.cfg_rule.is_on(scale))
    }

    pub(super) fn normalizes_cfg(&self) -> bool {
        self.is_cfg_on() && self.facts.cfg_rule.rescale == CfgRescale::OnRequest
    }

    /// Whether a rule of the amplitude acts: the method has one, and anchored text has not put its own in its place.
    pub(super) fn takes_amplitude(&self) -> bool {
        self.has_knob(&AMPLITUDE) && self.wanted.text_anchor != Some(true)
    }

    /// Whether the amplitude fades as the picture forms.
    pub(super) fn fades(&self) -> bool {
        self.takes_amplitude() && self.wanted.amplitude == Some(Amplitude::Fading)
    }

    /// Whether this knob tunes the method.
    pub(super) fn has_knob(&self, knob: &Knob) -> bool {
        self.wanted.method.unwrap_or_default().spec().has(knob)
    }

    /// The DyPE schedule: what is asked for, else the model's own, else the paper's. `None` without DyPE, and for a method
    /// that it does not move.
    pub(super) fn dype_schedule(&self) -> Option<DypeSchedule> {
        let method = self.wanted.method.filter(|_| self.wanted.dype == Some(true))?;
        method.schedule(DypeSettings {
            scale: self.wanted.dype_scale.or(self.facts.dype_scale),
            exponent: self.wanted.dype_exponent.or(self.facts.dype_exponent),
            ..DypeSettings::default()
        })
    }
}

impl Recipe {
    /// Scale and negative prompt of classifier-free guidance, where it is on.
    pub fn cfg(&self) -> Option<(f64, &str)> {
        self.cfg.zip(self.negative_prompt.as_deref())
    }

    /// The DyPE schedule; `None` for a static method.
    pub fn dype_schedule(&self) -> Option<DypeSchedule> {
        let (scale, exponent) = self.dype_scale.zip(self.dype_exponent).filter(|_| self.dype)?;
        Some(DypeSchedule { scale, exponent })
    }
}

impl Wanted {
    /// Whether it asks for anything of how DyPE acts.
    pub(super) fn tunes_dype(&self) -> bool {
        self.dype_scale.is_some() || self.dype_exponent.is_some() || self.dype_thresholds.is_some()
    }

    /// Keys of how DyPE acts.
    pub(super) fn tuning() -> [&'static str; 3] {
        [declared::dype_scale.key(), declared::dype_exponent.key(), declared::dype_thresholds.key()]
    }

    /// Forgets how DyPE acts.
    pub(super) fn forget_tuning(&mut self) {
        (self.dype_scale, self.dype_exponent, self.dype_thresholds) = (None, None, None);
    }
}
