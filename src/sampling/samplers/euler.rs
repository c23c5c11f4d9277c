//! Euler's method: `x += (t_next - t)·v`.
//!
//! Source: `FlowMatchEulerDiscreteScheduler.step` of diffusers; Euler's method for the ODE of rectified flow
//! (arXiv 2209.03003), whose time runs from 1 (noise) to 0 (image).

use candle_core::Tensor;

use super::{Field, Sampler, Span};
use crate::error::Result;

/// One evaluation a step, and nothing carried from one to the next.
#[derive(Debug, Clone, Copy)]
pub struct Euler;

impl Sampler for Euler {
    fn step(&mut self, x: &Tensor, span: &Span<'_>, field: &mut Field<'_>) -> Result<Tensor> {
        let velocity = field.before(x)?;
        Ok((x + (velocity * span.dt(x.dtype()))?)?) // [1, N, C]
    }
}
