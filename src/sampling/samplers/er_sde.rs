//! ER-SDE: the reverse-time SDE with noise added afresh in each step, of third order over the steps before.
//!
//! Source: Cui et al. 2023 (arXiv 2309.06169), as ComfyUI's `sample_er_sde` has it for flows: lambda = t/(1 - t), noise scale
//! g(lambda) = lambda·(e^(lambda^0.3) + 10), three stages, integrals over 200 points.

use candle_core::Tensor;

use super::{Field, Sampler, Span, clean};
use crate::{error::Result, sampling::State};

const CLEAN: &str = "sampler.clean";
const SLOPE: &str = "sampler.slope";
/// Points of the integrals. Source: ComfyUI.
const POINTS: u32 = 200;

/// One evaluation a step, and noise of the latents' shape for every step but the last.
pub struct ErSde<'a> {
    /// Standard normal noise for the step of this index.
    noise: Box<dyn Fn(usize) -> Result<Tensor> + 'a>,
    /// D of the step before.
    clean: Option<Tensor>,
    /// The change of D with lambda over the two steps before.
    slope: Option<Tensor>,
}

impl<'a> ErSde<'a> {
    /// With noise [1, N, C] by the index of the step.
    pub fn new(noise: impl Fn(usize) -> Result<Tensor> + 'a) -> Self {
        Self { noise: Box::new(noise), clean: None, slope: None }
    }
}

/// What multiplies each part of a step.
struct Weights {
    /// x before it.
    x: f64,
    /// D.
    clean: f64,
    /// The change of D with lambda.
    slope: f64,
    /// The change of that.
    curve: f64,
    /// Noise.
    noise: f64,
}

impl Weights {
    /// From t to `t_next`, above 0.
    fn new(t: f64, t_next: f64) -> Self {
        let [from, to] = [t, t_next].map(lambda);
        let (ratio, kept, change) = (noise_scale(to) / noise_scale(from), 1.0 - t_next, to - from);
        let part = -change / f64::from(POINTS);
        let points = || (0..POINTS).map(|j| to + f64::from(j) * part);
        let first: f64 = points().map(|at| part / noise_scale(at)).sum();
        let second: f64 = points().map(|at| part * (at - from) / noise_scale(at)).sum();
        Self {
            x: kept / (1.0 - t) * ratio,
            clean: kept * (1.0 - ratio),
            slope: kept * (change + first * noise_scale(to)),
            curve: kept * (change * change / 2.0 + second * noise_scale(to)),
            noise: kept * (to * to - from * from * ratio * ratio).max(0.0).sqrt(),
        }
    }
}

/// Noise over signal at sigma t, below 1.
fn lambda(t: f64) -> f64 {
    t / (1.0 - t)
}

fn noise_scale(lambda: f64) -> f64 {
    lambda * (lambda.powf(0.3).exp() + 10.0)
}

impl Sampler for ErSde<'_> {
    fn step(&mut self, x: &Tensor, span: &Span<'_>, field: &mut Field<'_>) -> Result<Tensor> {
        let clean = clean(x, &field.before(x)?, span.t())?;
        let last = self.clean.replace(clean.clone());
        if span.is_last() {
            return Ok(clean);
        }
        let weights = Weights::new(span.t(), span.t_next());
        let mut next = ((x * weights.x)? + (&clean * weights.clean)?)?; // [1, N, C]
        let slope_before = self.slope.take();
        if let (Some(last), Some(before)) = (last, span.before(1)) {
            let here = lambda(span.t());
            let slope = ((clean - last.to_device(x.device())?)? / (here - lambda(before)))?;
            next = (next + (&slope * weights.slope)?)?;
            if let (Some(last), Some(before)) = (slope_before, span.before(2)) {
                let curve = ((&slope - last.to_device(x.device())?)? / ((here - lambda(before)) / 2.0))?;
                next = (next + (curve * weights.curve)?)?;
            }
            self.slope = Some(slope);
        }
        Ok((next + ((self.noise)(span.index())?.to_dtype(x.dtype())? * weights.noise)?)?)
    }

    fn clean(&self) -> Option<&Tensor> {
        self.clean.as_ref()
    }

    fn state(&self) -> Result<State> {
        let carried = [(CLEAN, &self.clean), (SLOPE, &self.slope)];
        Ok(carried.into_iter().filter_map(|(name, tensor)| Some((name.to_owned(), tensor.clone()?))).collect())
    }

    fn restore(&mut self, state: &mut State) -> Result<()> {
        (self.clean, self.slope) = (state.remove(CLEAN), state.remove(SLOPE));
        Ok(())
    }
}
