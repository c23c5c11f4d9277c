//! EasyCache: a step is skipped where latents and velocities say that its velocity would hardly be another.
//!
//! With x_kept and v_kept those of the last step that was computed, and d = mean|x - x_kept|:
//!
//! ```text
//! sum += rate·d / mean|v_kept|        once a rate is known
//! sum < threshold:  skip, v = x + (v_kept - x_kept)
//! else:             sum = 0, compute v, rate = mean|v - v_kept| / d, keep x and v
//! ```
//!
//! between two sigmas; outside all is computed and nothing kept. Source: `easycache` of stable-diffusion.cpp, and of ComfyUI, which
//! measures on every eighth cell. The rule of arXiv 2507.02860 under this name is another: it measures d from the step before.

use std::{cell::Cell, rc::Rc};

use candle_core::{DType, Device, Tensor};

use super::{Denoiser, Skips, State, StepInfo};
use crate::error::Result;

const LATENTS: &str = "easy_cache.latents";
const VELOCITY: &str = "easy_cache.velocity";
const MEASURE: &str = "easy_cache.measure";

/// When a step is skipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EasyRule {
    /// Which part of the velocity may have changed.
    pub threshold: f64,
    /// It acts at and below this sigma.
    pub start: f64,
    /// It acts above this sigma.
    pub end: f64,
}

impl EasyRule {
    /// How much of a schedule lies before the sigmas at which it acts, and how much up to their end. Source: ComfyUI.
    pub const WINDOW: [f64; 2] = [0.15, 0.95];

    fn acts_at(&self, t: f64) -> bool {
        t <= self.start && t > self.end
    }
}

/// Whether the step that is being done is skipped: decided once for all denoisers of a picture.
#[derive(Debug, Default, Clone)]
pub struct Decision(Rc<Cell<bool>>);

/// A denoiser some of whose steps are skipped. A second evaluation within a step follows the first.
pub struct EasyCache<D> {
    inner: D,
    rule: EasyRule,
    decision: Decision,
    /// Whether it decides, or does as was decided.
    leads: bool,
    kept: Option<Kept>,
    measure: Measure,
    skips: Skips,
}

/// What the last computed step leaves.
struct Kept {
    latents: Tensor,
    velocity: Tensor,
}

/// What a decision is made from.
#[derive(Debug, Default, Clone, Copy)]
struct Measure {
    /// How much the velocity changes with the latents.
    rate: Option<f64>,
    /// What the velocity is expected to have changed since the last computed step.
    sum: f64,
}

impl<D: Denoiser> EasyCache<D> {
    /// Around a denoiser that is asked first in each step; it decides.
    pub fn leading(inner: D, rule: EasyRule, decision: Decision) -> Self {
        let (kept, measure, skips) = (None, Measure::default(), Skips::default());
        Self { inner, rule, decision, leads: true, kept, measure, skips }
    }

    /// Around one that is asked after the one that decides.
    pub fn following(inner: D, rule: EasyRule, decision: Decision) -> Self {
        Self { leads: false, ..Self::leading(inner, rule, decision) }
    }

    /// Whether the step at these latents is skipped, and how far they lie from those that were kept.
    fn decide(&mut self, latents: &Tensor) -> Result<(bool, Option<f64>)> {
        let Some(kept) = &self.kept else { return Ok((false, None)) };
        let distance = mean_of_difference(latents, &kept.latents)?;
        if let Some(rate) = self.measure.rate {
            self.measure.sum += rate * distance / mean(&kept.velocity)?;
            if self.measure.sum < self.rule.threshold {
                return Ok((true, Some(distance)));
            }
        }
        self.measure.sum = 0.0;
        Ok((false, Some(distance)))
    }

    /// The velocity of a skipped step.
    fn expected(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Option<Tensor>> {
        let Some(kept) = &self.kept else { return Ok(None) };
        self.skips.count(step);
        Ok(Some((latents + (&kept.velocity - &kept.latents)?)?)) // [1, N, C]
    }

    /// Computes the first evaluation of a step, whose latents lie so far from those that were kept, and keeps it.
    fn compute(&mut self, latents: &Tensor, step: &StepInfo, distance: Option<f64>) -> Result<Tensor> {
        let velocity = self.inner.velocity(latents, step)?.to_dtype(latents.dtype())?;
        if let (Some(kept), Some(distance)) = (&self.kept, distance.filter(|distance| *distance != 0.0)) {
            self.measure.rate = Some(mean_of_difference(&velocity, &kept.velocity)? / distance);
        }
        self.kept = Some(Kept { latents: latents.clone(), velocity: velocity.clone() });
        Ok(velocity)
    }

    fn bring_to(&mut self, device: &Device) -> Result<()> {
        if let Some(Kept { latents, velocity }) = &mut self.kept {
            (*latents, *velocity) = (latents.to_device(device)?, velocity.to_device(device)?);
        }
        Ok(())
    }
}

impl<D: Denoiser> Denoiser for EasyCache<D> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        let is_first = step.evaluation == 0;
        if is_first && self.leads {
            self.decision.0.set(false);
        }
        // A second evaluation lies at the end of its step, and goes as the step does.
        if is_first && !self.rule.acts_at(step.t) {
            return self.inner.velocity(latents, step);
        }
        self.bring_to(latents.device())?;
        let mut distance = None;
        if is_first && self.leads {
            let (skips, found) = self.decide(latents)?;
            self.decision.0.set(skips);
            distance = found;
        }
        if self.decision.0.get()
            && let Some(velocity) = self.expected(latents, step)?
        {
            return Ok(velocity);
        }
        if is_first { self.compute(latents, step, distance) } else { self.inner.velocity(latents, step) }
    }

    fn state(&self) -> Result<State> {
        let mut state = self.inner.state()?;
        if let Some(Kept { latents, velocity }) = &self.kept {
            let Measure { rate, sum } = self.measure;
            let numbers: Vec<f64> = [sum].into_iter().chain(rate).collect();
            let measure = Tensor::new(numbers, &Device::Cpu)?;
            let own = [(LATENTS, latents.clone()), (VELOCITY, velocity.clone()), (MEASURE, measure)];
            state.extend(own.map(|(name, tensor)| (name.to_owned(), tensor)));
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: State) -> Result<()> {
        let [latents, velocity, measure] = [LATENTS, VELOCITY, MEASURE].map(|name| state.remove(name));
        self.kept = latents.zip(velocity).map(|(latents, velocity)| Kept { latents, velocity });
        if let Some([sum, rate @ ..]) = measure.map(|measure| measure.to_vec1::<f64>()).transpose()?.as_deref() {
            self.measure = Measure { rate: rate.first().copied(), sum: *sum };
        }
        self.inner.restore(state)
    }

    fn skips(&self) -> Skips {
        self.skips
    }
}

/// mean|a - b|
fn mean_of_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    mean(&(a - b)?)
}

/// mean|a|
fn mean(a: &Tensor) -> Result<f64> {
    Ok(a.abs()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}
