//! Samplers: how a velocity field is followed through a step, each a function of the latents, the sigmas and what the steps
//! before have left, as in k-diffusion (`sampling.py`).
//!
//! With x the latents, v the velocity and t the sigma, D = x - t·v is the picture that the field is heading for.

mod dpmpp_2m;
mod er_sde;
mod euler;
mod heun;

use candle_core::{DType, Tensor};

use super::{Denoiser, State, StepInfo};
use crate::error::Result;

pub use dpmpp_2m::Dpmpp2m;
pub use er_sde::ErSde;
pub use euler::Euler;
pub use heun::Heun;

/// A way through a step. What it carries to the next is its state.
pub trait Sampler {
    /// The latents [1, N, C] after the step `span`, from `x` before it; `field` gives velocities within it.
    ///
    /// # Errors
    /// Whatever kept a velocity from being computed.
    fn step(&mut self, x: &Tensor, span: &Span<'_>, field: &mut Field<'_>) -> Result<Tensor>;

    /// The clean latents that the last step was heading for, where they do not lie on the line through the latents before and
    /// after it.
    fn clean(&self) -> Option<&Tensor> {
        None
    }

    /// What it must find again to go on as if nothing had happened, under names of its own.
    ///
    /// # Errors
    /// When the device fails.
    fn state(&self) -> Result<State> {
        Ok(State::new())
    }

    /// Takes what [`Sampler::state`] gave out of `state`, on any device.
    ///
    /// # Errors
    /// When the device fails.
    fn restore(&mut self, _state: &mut State) -> Result<()> {
        Ok(())
    }
}

/// A step of a schedule, as samplers see it: its sigmas, and those of the steps before.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    sigmas: &'a [f64],
    index: usize,
}

impl<'a> Span<'a> {
    /// Step `index` of a schedule that has it.
    pub(super) fn new(sigmas: &'a [f64], index: usize) -> Self {
        Self { sigmas, index }
    }

    /// Its index in the schedule, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The sigma before the step.
    pub fn t(&self) -> f64 {
        self.sigmas[self.index]
    }

    /// The sigma after the step; 0 after the last.
    pub fn t_next(&self) -> f64 {
        self.sigmas[self.index + 1]
    }

    /// Whether nothing of the noise is left after it.
    pub fn is_last(&self) -> bool {
        self.t_next() == 0.0
    }

    /// The sigma before the step that lies `steps` before this one, where the schedule has it.
    pub fn before(&self, steps: usize) -> Option<f64> {
        Some(self.sigmas[self.index.checked_sub(steps)?])
    }

    /// t_next - t. Beside f32 latents diffusers holds its sigmas in f32 and subtracts there.
    pub fn dt(&self, dtype: DType) -> f64 {
        let (t, t_next) = (self.t(), self.t_next());
        if dtype == DType::F64 { t_next - t } else { f64::from(t_next as f32 - t as f32) }
    }
}

/// The velocities that a sampler may ask for within a step.
pub struct Field<'a> {
    denoiser: &'a mut dyn Denoiser,
    step: StepInfo,
}

impl<'a> Field<'a> {
    /// Those of a denoiser at the first evaluation of this step.
    pub(super) fn new(denoiser: &'a mut dyn Denoiser, step: StepInfo) -> Self {
        Self { denoiser, step }
    }

    /// The velocity at the latents before the step, of their shape and number type.
    ///
    /// # Errors
    /// Whatever kept it from being computed.
    pub fn before(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(self.denoiser.velocity(x, &self.step)?.to_dtype(x.dtype())?)
    }

    /// The velocity at latents for the end of the step: a second evaluation. There is none where t is 0.
    ///
    /// # Errors
    /// Whatever kept it from being computed.
    pub fn after(&mut self, x: &Tensor) -> Result<Tensor> {
        let end = StepInfo { t: self.step.t_next, evaluation: 1, ..self.step };
        Ok(self.denoiser.velocity(x, &end)?.to_dtype(x.dtype())?)
    }
}

/// D: the picture that a velocity at x heads for.
fn clean(x: &Tensor, velocity: &Tensor, t: f64) -> Result<Tensor> {
    Ok((x - (velocity * t)?)?)
}

/// The point that lies `part` of the way from one tensor to another.
fn toward(from: &Tensor, to: &Tensor, part: f64) -> Result<Tensor> {
    Ok((from + ((to - from)? * part)?)?)
}
