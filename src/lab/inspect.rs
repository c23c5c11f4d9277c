//! `dype inspect`: the frequencies a run would use, as a table, as exact JSON, or as a picture ([`super::plot`]).

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::base::geometry::{ImageSize, LatentGeometry};
use crate::error::{Error, Result};
use crate::methods::{
    self, AMPLITUDE, Amplitude, Detail, DypeSchedule, DypeSettings, Fading, Knobs, Looks, Method, Moment,
    PositionScaler, RampSpan, RotaryAxis, SCALING, Scaling, Spectrum,
};

/// Share of the first kappa that is much for a last step: 28 steps of FLUX.1 leave 1%, 4 of schnell 6%.
const LATE: f64 = 0.1;

/// What is inspected.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectSettings {
    /// Which scaler.
    pub method: Method,
    /// DyPE's settings; none for the static method.
    pub dype: Option<DypeSettings>,
    /// What tunes the method beside DyPE.
    pub knobs: Knobs,
    /// Tokens of text, where attention is proportional to their number and the picture's.
    pub proportional_with: Option<usize>,
    /// The picture's size.
    pub size: ImageSize,
    /// How the model's pixels become tokens.
    pub geometry: LatentGeometry,
    /// The training resolution in pixels, at least one token.
    pub base_resolution_px: usize,
    /// Rotary channels of the three axes (text, height, width), each even.
    pub axes_dim: [usize; 3],
    /// theta of the rotary embedding, above 1.
    pub theta: f64,
    /// The time shift, where the schedule has one; reported, not used.
    pub mu: Option<f64>,
    /// The t of each step, in [0, 1].
    pub t: Vec<f64>,
    /// The spectrum of the latents that enter each step, where latents are at hand.
    pub spectrum: Option<Spectrum>,
}

/// Every frequency of a run. Its JSON, through serde, holds each f64 in the shortest form that reads back the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The method's name.
    pub method: &'static str,
    /// Rules of the method that are not the usual ones, by name.
    #[serde(flatten)]
    pub rules: BTreeMap<&'static str, &'static str>,
    /// The t at which the amplitude begins to fade, where that is not the first step's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fading_start: Option<f64>,
    /// Whether DyPE acts: false with `--no-dype`, and for `base`, which nothing moves.
    pub dype: bool,
    /// Height in pixels, as asked.
    pub height: usize,
    /// Width in pixels, as asked.
    pub width: usize,
    /// The time shift; null for a schedule without one.
    pub mu: Option<f64>,
    /// What logits are multiplied by, where attention is proportional.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_scale: Option<f64>,
    /// One entry for each t, in the order of the schedule.
    pub steps: Vec<StepInspection>,
    /// DyPE's schedule, where it acts.
    #[serde(skip)]
    pub schedule: Option<DypeSchedule>,
    /// What the frequencies depend on.
    #[serde(skip)]
    pub looks: Looks,
    /// Whether latents are at hand.
    #[serde(skip)]
    pub has_spectrum: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepInspection {
    /// The step's number, from 1.
    pub step: usize,
    /// The sigma at which the model is asked.
    pub t: f64,
    /// DyPE's kappa(t); null where DyPE does not act.
    pub kappa: Option<f64>,
    /// What is added to the logits of text, where the method asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_bias: Option<f64>,
    /// Whether the frequencies depend on t.
    #[serde(skip)]
    pub follows_t: bool,
    /// Height and width.
    pub axes: [AxisInspection; 2],
}

/// One spatial axis at one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AxisInspection {
    /// "height" or "width".
    pub axis: &'static str,
    /// L': patches along the axis.
    pub patches: usize,
    /// s = L'/L; 1 or less needs no extrapolation.
    pub scale: f64,
    /// S: that of the longer side.
    #[serde(skip)]
    pub longest: f64,
    /// Radians per patch [D/2].
    pub inv_freq: Vec<f64>,
    /// Factor on cos and sin [D/2].
    pub amplitude: Vec<f64>,
    /// Whether a ramp has left the table and turned round, as the reference's does at small t.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ramp_inverted: bool,
    /// What else the method computes, by name.
    #[serde(flatten)]
    pub details: BTreeMap<&'static str, Detail>,
    /// The frequencies of training [D/2].
    #[serde(skip)]
    pub native: Vec<f64>,
    /// The method's ramps, where it has such.
    #[serde(skip)]
    pub ramps: Vec<RampSpan>,
}

/// Computes the frequencies of every t.
///
/// # Errors
/// [`Error::Request`] for a base resolution, lambdas or a t out of range.
pub fn inspect(settings: &InspectSettings) -> Result<Inspection> {
    let schedule = settings.dype.and_then(|dype| settings.method.schedule(dype));
    check(settings, schedule)?;
    let scaler = settings.method.tuned(settings.dype, settings.knobs);
    let axes = settings.axes();
    let step = |(index, &t): (usize, &f64)| {
        let spectrum = settings.spectrum.as_ref().filter(|_| scaler.looks() == Looks::Spectrum);
        let at = Moment { step: index, steps: settings.t.len(), spectrum, ..Moment::at(t) };
        StepInspection {
            step: index + 1,
            t,
            kappa: schedule.map(|schedule| schedule.kappa(t)),
            text_bias: scaler.key_bias(&axes, &at).map(|bias| bias.0),
            follows_t: scaler.looks() == Looks::Time,
            axes: axes.map(|axis| AxisInspection::of(&axis, &*scaler, &at)),
        }
    };
    Ok(Inspection {
        method: settings.method.name(),
        rules: settings.rules(),
        fading_start: settings.fading_start(),
        dype: schedule.is_some(),
        height: settings.size.height_px,
        width: settings.size.width_px,
        mu: settings.mu,
        logit_scale: settings.logit_scale(),
        steps: settings.t.iter().enumerate().map(step).collect(),
        schedule,
        looks: scaler.looks(),
        has_spectrum: settings.spectrum.is_some(),
    })
}

impl InspectSettings {
    /// The two spatial axes as the model's config, which was checked when it was read, gives them; the text's axis is never
    /// extrapolated.
    fn axes(&self) -> [RotaryAxis; 2] {
        let grid = self.geometry.tokens(self.size);
        let [_, height, width] = self.axes_dim;
        let patches = [grid.height_patches, grid.width_patches];
        RotaryAxis::of_picture([height, width], self.theta, self.base_patches(), patches)
    }

    fn base_patches(&self) -> usize {
        self.base_resolution_px / self.geometry.px_per_token()
    }

    fn fading_start(&self) -> Option<f64> {
        Some(self.knobs.fading).filter(|fading| *fading != Fading::default()).map(|fading| fading.start)
    }

    fn logit_scale(&self) -> Option<f64> {
        let (picture, trained) = (self.geometry.tokens(self.size).count(), self.base_patches().pow(2));
        self.proportional_with.map(|text| methods::proportional(picture + text, trained + text))
    }

    /// The rules that are not the usual ones, of those the method has.
    fn rules(&self) -> BTreeMap<&'static str, &'static str> {
        let Knobs { scaling, amplitude, text_anchor, .. } = self.knobs;
        let has = |knob| self.method.spec().has(knob);
        let scaling = (SCALING.name, scaling.name(), has(&SCALING) && scaling != Scaling::default());
        let acts = has(&AMPLITUDE) && !text_anchor && amplitude != Amplitude::default();
        let amplitude = ("amplitude_rule", amplitude.name(), acts);
        [scaling, amplitude].into_iter().filter(|(.., acts)| *acts).map(|(name, word, _)| (name, word)).collect()
    }
}

fn check(settings: &InspectSettings, schedule: Option<DypeSchedule>) -> Result<()> {
    let token_px = settings.geometry.px_per_token();
    if settings.base_resolution_px < token_px {
        let what = format!("a base resolution of {} px: less than one token", settings.base_resolution_px);
        return Err(Error::request(what, format!("give at least {token_px} px")));
    }
    if let Some(schedule) = schedule.filter(|schedule| !schedule.is_valid()) {
        let what = format!("a DyPE schedule of {} * t^{}: not 0 or more", schedule.scale, schedule.exponent);
        return Err(Error::request(what, "give --dype-scale and --dype-exponent as numbers of 0 or more"));
    }
    match settings.t.iter().find(|t| !(0.0..=1.0).contains(*t)) {
        Some(t) => Err(Error::request(format!("t = {t}: outside [0, 1]"), "1 is pure noise, 0 the picture")),
        None => Ok(()),
    }
}

impl Inspection {
    /// The method, its schedule, the size and the shift in one line, as a heading.
    pub fn title(&self) -> String {
        let moved = match (self.schedule, self.looks) {
            (Some(DypeSchedule { scale, exponent }), _) => format!("DyPE kappa = {scale} t^{exponent}"),
            (None, Looks::Nothing) => "static".to_owned(),
            (None, Looks::Time) => "moving with t".to_owned(),
            (None, Looks::Spectrum) if self.has_spectrum => "by the spectrum of these latents".to_owned(),
            (None, Looks::Spectrum) => "before the latents' spectrum is known".to_owned(),
        };
        let mu = self.mu.map_or(String::new(), |mu| format!(", mu {mu}"));
        let rules: String =
            self.rules.iter().map(|(name, word)| format!(" {} {word},", name.replace('_', " "))).collect();
        let fading = self.fading_start.map_or(String::new(), |t| format!(" fading below t = {t},"));
        format!("{},{rules}{fading} {moved}, {} x {} px{mu}", self.method, self.height, self.width)
    }

    /// Whether some axis is longer than in training; where none is, every frequency is native.
    pub fn extrapolates(&self) -> bool {
        self.steps.iter().any(|step| step.axes.iter().any(|axis| axis.scale > 1.0))
    }

    /// A table of at most 80 columns: t, kappa, and for each axis how many of its pairs are native, interpolated and between,
    /// where its ramps lie, or how far it is slowed. It ends with a line break.
    pub fn table(&self) -> String {
        let mut text = self.title();
        text.push('\n');
        for axis in self.steps.first().map(|step| &step.axes).into_iter().flatten() {
            text.push_str(&axis.summary());
        }
        if let Some(bias) = self.steps.first().and_then(|step| step.text_bias) {
            let _ = writeln!(text, "  text is attended to by {bias:.4} more");
        }
        if let Some(factor) = self.logit_scale {
            let _ = writeln!(text, "  attention is sharper: its logits are multiplied by {factor:.4}");
        }
        if !self.extrapolates() {
            text.push_str("Nothing exceeds the base resolution: neither method nor DyPE has an effect.\n");
        }
        let ramps = self.ramp_names();
        let (legend, columns) = if ramps.is_empty() {
            ("slowed: by how much the slowest pair is slower than in training".to_owned(), format!("{:>16}", "slowed"))
        } else {
            let says = |(index, to)| format!("ramp {} leads to {to}", index + 1);
            let legend = ramps.iter().enumerate().map(says).collect::<Vec<_>>().join(", ");
            (legend, (1..=ramps.len()).map(|index| format!("{:>8}", format!("ramp {index}"))).collect())
        };
        let columns = format!("{:>4}{:>4}{:>4}{columns}", "nat", "btw", "int");
        let width = columns.len();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Pairs: nat native, int interpolated (native / scale), btw between.\n{legend}.");
        let heading = |name: &str, axis: usize| {
            let pairs = self.steps.first().map_or(0, |step| step.axes[axis].native.len());
            format!("{name}, {pairs} pairs")
        };
        let [height, second] = [heading("height", 0), heading("width", 1)];
        let _ = writeln!(text, "\n{:20}{height:>width$}{second:>width$}", "");
        let _ = writeln!(text, "{:>4}{:>8}{:>8}{columns}{columns}", "step", "t", "kappa");
        for step in &self.steps {
            let kappa = step.kappa.map_or("-".to_string(), |kappa| format!("{kappa:.4}"));
            let [height, width] = step.axes.each_ref().map(|axis| axis.row(ramps.len()));
            let _ = writeln!(text, "{:>4}{:>8.4}{kappa:>8}{height}{width}", step.step, step.t);
        }
        if let Some(steps) = self.inverted_steps() {
            let _ = writeln!(
                text,
                "\nA ramp leaves the table and turns round, as the reference's does: pairs behind\nit are interpolated {steps}; not with --dype-thresholds settled."
            );
        }
        if let Some(kappa) = self.late_kappa() {
            let _ = writeln!(
                text,
                "\nThe last step still extrapolates (kappa {kappa:.2}): so few steps end before DyPE\nhas faded; a smaller --mu or more steps go further down."
            );
        }
        text
    }

    /// The steps in which a ramp of some axis turns round, in words; `None` where none does.
    fn inverted_steps(&self) -> Option<String> {
        let is_inverted = |step: &&StepInspection| step.axes.iter().any(|axis| axis.ramp_inverted);
        let steps: Vec<_> = self.steps.iter().filter(is_inverted).map(|step| step.step).collect();
        match *steps {
            [] => None,
            [one] => Some(format!("in step {one}")),
            [first, .., last] => Some(format!("in steps {first} to {last}")),
        }
    }

    /// kappa of the last step of a schedule, where much of the extrapolation is left then.
    fn late_kappa(&self) -> Option<f64> {
        let last = self.steps.last().filter(|_| self.steps.len() > 1 && self.extrapolates())?;
        last.kappa.zip(self.schedule).filter(|(kappa, schedule)| *kappa > LATE * schedule.scale).map(|(kappa, _)| kappa)
    }

    /// What the method's ramps lead to, from the first on; none for a method without.
    fn ramp_names(&self) -> Vec<&'static str> {
        let axes = self.steps.iter().flat_map(|step| &step.axes);
        let ramps = axes.map(|axis| &axis.ramps).max_by_key(|ramps| ramps.len());
        ramps.into_iter().flatten().map(|ramp| ramp.to).collect()
    }
}

impl AxisInspection {
    fn of(axis: &RotaryAxis, scaler: &dyn PositionScaler, at: &Moment) -> Self {
        let (found, ramps) = (scaler.frequencies(axis, at), scaler.ramps(axis, at));
        Self {
            axis: axis.side.name(),
            patches: axis.patches,
            scale: axis.scale(),
            longest: axis.longest(),
            inv_freq: found.inv_freq,
            amplitude: found.amplitude,
            ramp_inverted: ramps.iter().any(|ramp| ramp.is_inverted),
            details: scaler.details(axis, at).into_iter().collect(),
            native: axis.native(),
            ramps,
        }
    }

    /// How many pairs turn as in training, how many turn neither so nor by the scale slower, and how many by the scale slower,
    /// the axis's own or the longer side's;
    /// to the precision of the f32 tables a run computes with.
    fn kinds(&self) -> [usize; 3] {
        let is = |found: f64, wanted: f64| (found - wanted).abs() <= f64::from(f32::EPSILON) * wanted;
        let mut counts = [0; 3];
        for (found, native) in self.inv_freq.iter().zip(&self.native) {
            let kind = match () {
                () if is(*found, *native) => 0,
                () if is(*found, *native / self.scale) || is(*found, *native / self.longest) => 2,
                () => 1,
            };
            counts[kind] += 1;
        }
        counts
    }

    /// By how much the pair is slower that is slowed the most; 1 where none is.
    fn slowed(&self) -> f64 {
        self.native.iter().zip(&self.inv_freq).map(|(native, found)| native / found).fold(1.0, f64::max)
    }

    /// Largest amplitude of the axis.
    pub fn max_amplitude(&self) -> f64 {
        self.amplitude.iter().copied().fold(1.0, f64::max)
    }

    /// Smallest amplitude of the axis.
    pub fn min_amplitude(&self) -> f64 {
        self.amplitude.iter().copied().fold(self.max_amplitude(), f64::min)
    }

    /// The amplitude of all pairs, or the range it lies in, to four decimals.
    pub fn amplitude_text(&self) -> String {
        let [least, most] = [self.min_amplitude(), self.max_amplitude()].map(|amplitude| format!("{amplitude:.4}"));
        if least == most { most } else { format!("{least} to {most}") }
    }

    fn summary(&self) -> String {
        let Self { axis, patches, scale, details, .. } = self;
        let numbers = details.iter().filter_map(|(name, detail)| match detail {
            Detail::One(number) => Some(format!(", {name} {number:.4}")),
            Detail::Many(_) => None,
        });
        let numbers: String = numbers.collect();
        format!("  {axis:<6} {patches:>5} patches, scale {scale:.4}, amplitude {}{numbers}\n", self.amplitude_text())
    }

    /// How many pairs there are of each kind, and the ramps of a method that has some: 28 columns.
    fn row(&self, ramps: usize) -> String {
        let [native, between, interpolated] = self.kinds();
        let counts = format!("{native:>4}{between:>4}{interpolated:>4}");
        if ramps == 0 {
            return format!("{counts}{:>16.4}", self.slowed());
        }
        let span = |index| match self.ramps.get(index) {
            Some(RampSpan { from_pair, to_pair, .. }) => format!("{from_pair:.0}-{to_pair:.0}"),
            None => "-".to_owned(),
        };
        (0..ramps).fold(counts, |row, index| format!("{row}{:>8}", span(index)))
    }
}

#[cfg(test)]
mod tests;
