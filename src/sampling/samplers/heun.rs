//! Heun's method: Euler's step, asked again where it leads, and taken along the mean of both velocities.
//!
//! Source: `sample_heun` of k-diffusion without churn, `FlowMatchHeunDiscreteScheduler` of diffusers; the trapezoidal rule of
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 1.

use candle_core::Tensor;

use super::{Field, Sampler, Span};
use crate::error::Result;

/// Two evaluations a step but for the last, which is Euler's; nothing is carried from one to the next.
#[derive(Debug, Clone, Copy)]
pub struct Heun;

impl Sampler for Heun {
    fn step(&mut self, x: &Tensor, span: &Span<'_>, field: &mut Field<'_>) -> Result<Tensor> {
        let dt = span.dt(x.dtype());
        let first = field.before(x)?;
        if span.is_last() {
            return Ok((x + (first * dt)?)?);
        }
        let second = field.after(&(x + (&first * dt)?)?)?;
        Ok((x + ((first + second)? * (0.5 * dt))?)?) // [1, N, C]
    }
}
