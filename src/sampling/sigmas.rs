//! The decreasing list of sigmas that a sampler follows, as diffusers' `FlowMatchEulerDiscreteScheduler` makes it when a
//! pipeline drives it.
//!
//! The pipeline asks for `linspace(1, 1/steps, steps)`, or what another [`Spacing`] says; the scheduler shifts every value s
//! towards 1:
//!
//! ```text
//! dynamic, exponential   e^mu / (e^mu + 1/s - 1)
//! dynamic, linear        mu / (mu + 1/s - 1)
//! static                 shift·s / (1 + (shift - 1)·s)
//! ```
//!
//! and appends 0. All three are `shift / (shift + 1/s - 1)`, with shift = e^mu, mu, or itself.

use std::fmt;

use crate::{
    error::{Error, Result},
    models::{Facts, MuRule, SchedulerConfig, TimeShift},
    recipe::{Mu, Recipe, SamplerName, Spacing},
    sampling::beta,
};

/// Sigmas in the tables that ComfyUI's schedules choose from.
const TABLE: usize = 10_000;
/// Where a sampler starts that divides by 1 - t, before the shift. Source: ComfyUI, `offset_first_sigma_for_snr`.
const NEARLY_ONE: f64 = 1.0 - 1e-4;

/// What a schedule is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScheduleFor {
    /// Steps that are asked for.
    pub steps: usize,
    /// How they are spread.
    pub spacing: Spacing,
    /// What follows them.
    pub sampler: SamplerName,
    /// N: picture tokens.
    pub image_tokens: usize,
    /// Picture tokens at the base resolution.
    pub base_tokens: usize,
    /// Which mu is asked for.
    pub mu: Mu,
}

impl ScheduleFor {
    /// What a recipe asks of a model.
    pub fn recipe(recipe: &Recipe, facts: &Facts) -> Self {
        Self {
            steps: recipe.steps,
            spacing: recipe.schedule,
            sampler: recipe.sampler,
            image_tokens: facts.latents.tokens(recipe.size()).count(),
            base_tokens: facts.patches(recipe.base_resolution).pow(2),
            mu: recipe.mu,
        }
    }
}

/// The time shift of a schedule, and why it is that one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shift {
    /// The scheduler's own at every size; mu plays no part.
    Static(f64),
    /// The mu that was asked for.
    Asked(f64),
    /// The scheduler's `max_shift`, at every size; beside it what the stock formula says of this one.
    MaxShift(f64, f64),
    /// What the stock formula says of this size.
    Stock(f64),
    /// What TIDE's formula says of this size.
    Log(f64),
    /// What the stock formula says of so many picture tokens; beside it what it says of this size.
    Held(f64, usize, f64),
}

impl Shift {
    /// The shift of a schedule.
    pub fn of(config: &SchedulerConfig, wanted: &ScheduleFor) -> Self {
        if !config.use_dynamic_shifting {
            return Self::Static(config.shift);
        }
        let stock = |tokens| stock_mu(config, tokens, wanted.steps);
        let here = stock(wanted.image_tokens);
        let most = match (wanted.mu, config.mu_rule) {
            (Mu::Value(mu), _) => return Self::Asked(mu),
            (Mu::Stock, _) => return Self::Stock(here),
            (Mu::Log, _) => return Self::Log(log_mu(config, wanted.image_tokens)),
            (Mu::Pinned, MuRule::MaxShift) => return Self::MaxShift(config.max_shift, here),
            (Mu::Pinned, MuRule::LineUpTo(tokens)) => tokens,
            (Mu::Pinned, MuRule::Empirical) => wanted.base_tokens,
        };
        if wanted.image_tokens > most { Self::Held(stock(most), most, here) } else { Self::Stock(here) }
    }

    /// mu, where the schedule has one.
    pub fn mu(self) -> Option<f64> {
        match self {
            Self::Static(_) => None,
            Self::Asked(mu) | Self::MaxShift(mu, _) | Self::Stock(mu) | Self::Log(mu) | Self::Held(mu, ..) => Some(mu),
        }
    }
}

impl fmt::Display for Shift {
    /// Which shift, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(shift) => write!(f, "static, {shift} at every size"),
            Self::Asked(mu) => write!(f, "mu {mu}, as asked for"),
            Self::MaxShift(mu, stock) => write!(f, "mu {mu} at every size; the stock formula says {stock:.3}"),
            Self::Stock(mu) => write!(f, "mu {mu:.3}, the stock formula's"),
            Self::Log(mu) => write!(f, "mu {mu:.3}, along the logarithm of the tokens"),
            Self::Held(mu, tokens, stock) => {
                write!(f, "mu {mu:.3}, held from {tokens} tokens on; the stock formula says {stock:.3}")
            }
        }
    }
}

/// What the pipeline of the family takes for so many picture tokens and steps.
fn stock_mu(config: &SchedulerConfig, image_tokens: usize, steps: usize) -> f64 {
    match config.mu_rule {
        MuRule::MaxShift | MuRule::LineUpTo(_) => line_mu(config, image_tokens),
        MuRule::Empirical => empirical_mu(image_tokens, steps),
    }
}

/// `calculate_shift` of diffusers' FLUX.1 pipeline, which others share.
fn line_mu(config: &SchedulerConfig, image_tokens: usize) -> f64 {
    let (base, max) = (config.base_image_seq_len as f64, config.max_image_seq_len as f64);
    let slope = (config.max_shift - config.base_shift) / (max - base);
    config.base_shift + slope * (image_tokens as f64 - base)
}

/// Through the same points, along the logarithm of the tokens: 1.8 at 4096 x 4096 px where the line says 11.5.
/// Source: TIDE (arXiv 2603.08928) and its authors' code.
fn log_mu(config: &SchedulerConfig, image_tokens: usize) -> f64 {
    let base = config.base_image_seq_len.max(1) as f64;
    let part = (image_tokens as f64 / base).ln() / (config.max_image_seq_len as f64 / base).ln();
    config.base_shift + (config.max_shift - config.base_shift) * part
}

/// `compute_empirical_mu` of diffusers' FLUX.2 pipelines: a line in the steps between two lines in the tokens, one fitted at
/// 10 steps and one at 200. Above 4300 tokens the latter serves at every number of steps, and mu jumps down.
fn empirical_mu(image_tokens: usize, steps: usize) -> f64 {
    let tokens = image_tokens as f64;
    let at_200 = 0.00016927 * tokens + 0.45666666;
    if image_tokens > 4300 {
        return at_200;
    }
    let at_10 = 8.73809524e-05 * tokens + 1.89833333;
    let slope = (at_200 - at_10) / 190.0;
    slope * steps as f64 + at_200 - 200.0 * slope
}

/// The sigmas of a schedule: one more than steps, strictly decreasing from 1 (hardly less for a sampler that cannot start there),
/// the last 0. Where the spacing comes twice upon a sigma, or upon one that such a sampler cannot start above, there are fewer steps than
/// asked for.
///
/// # Errors
/// [`Error::Request`] when there are no steps, or mu is so extreme, or steps are so many, that the sigmas no longer decrease.
pub fn sigmas(config: &SchedulerConfig, wanted: &ScheduleFor) -> Result<Vec<f64>> {
    let steps = wanted.steps;
    if steps == 0 {
        return Err(Error::request("--steps 0: no step, no picture", "28 steps are usual; 4 for FLUX.1-schnell"));
    }
    let mu = Shift::of(config, wanted).mu();
    let mut sigmas: Vec<f64> = spread(wanted).into_iter().map(|sigma| shifted(sigma, mu, config)).collect();
    if let Some(terminal) = config.shift_terminal.filter(|terminal| *terminal != 0.0) {
        stretch_to(&mut sigmas, terminal);
    }
    if let Some(first) = sigmas.first_mut().filter(|first| **first == 1.0 && wanted.sampler == SamplerName::ErSde) {
        *first = shifted(NEARLY_ONE, mu, config);
        // Of many steps the second may be no further on.
        if sigmas.get(1).is_some_and(|second| *second >= sigmas[0]) {
            sigmas.remove(1);
        }
    }
    sigmas.push(0.0);
    let decreasing = sigmas.windows(2).all(|pair| pair[0] > pair[1]);
    if !decreasing || sigmas[0] > 1.0 {
        let mu = mu.map_or_else(|| format!("shift {}", config.shift), |mu| format!("mu {mu}"));
        let what = format!("{mu} gives no decreasing list of sigmas over {steps} steps");
        let hint = match wanted.mu {
            Mu::Value(_) => "leave --mu out: the default fits every size",
            _ => "ask for fewer --steps",
        };
        return Err(Error::request(what, hint));
    }
    Ok(sigmas)
}

/// The sigmas of steps before the shift, in (0, 1], from 1 down.
fn spread(wanted: &ScheduleFor) -> Vec<f64> {
    let steps = wanted.steps;
    let of_table = |from_end: usize| from_end as f64 / TABLE as f64;
    match wanted.spacing {
        Spacing::Uniform => (0..steps).map(|i| (steps - i) as f64 / steps as f64).collect(),
        // Multiplied before it is cut, as there.
        Spacing::Simple => {
            let stride = TABLE as f64 / steps as f64;
            (0..steps).map(|i| of_table(TABLE - (i as f64 * stride) as usize)).collect()
        }
        Spacing::Beta => {
            let last = (TABLE - 1) as f64;
            let index = |i: usize| (last * beta::quantile(1.0 - i as f64 / steps as f64)).round_ties_even();
            let mut indices: Vec<usize> = (0..steps).map(|i| index(i) as usize).collect();
            indices.dedup();
            indices.into_iter().map(|index| of_table(index + 1)).collect()
        }
    }
}

/// The sigma of a schedule that this one before the shift becomes: where a part of the way through it lies.
pub fn sigma_at(config: &SchedulerConfig, wanted: &ScheduleFor, unshifted: f64) -> f64 {
    shifted(unshifted, Shift::of(config, wanted).mu(), config)
}

/// One sigma after the time shift. `sigma` is in (0, 1].
fn shifted(sigma: f64, mu: Option<f64>, config: &SchedulerConfig) -> f64 {
    let shift = match (mu, config.time_shift_type) {
        (Some(mu), TimeShift::Exponential) => mu.exp(),
        (Some(mu), TimeShift::Linear) => mu,
        (None, _) => config.shift,
    };
    shift / (shift + (1.0 / sigma - 1.0))
}

/// Stretches 1 - sigma so that the last value becomes `terminal` (diffusers' `stretch_shift_to_terminal`, from LTX-Video).
/// A single step stays at 1: it has nothing to stretch (diffusers divides 0 by 0 there).
fn stretch_to(sigmas: &mut [f64], terminal: f64) {
    let last = sigmas.last().map_or(0.0, |last| 1.0 - last);
    if last > 0.0 {
        let scale = last / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}
