//! DPM++ 2M: multistep of second order, from D of this step and of the one before.
//!
//! ```text
//! x' = (t_next/t)·x + (1 - t_next/t)·D'        D' = D + (D - D_last)·h/(2·h_last),  h = ln(t/t_next)
//! ```
//!
//! Source: `sample_dpmpp_2m` of k-diffusion (Lu et al. 2022, arXiv 2211.01095), whose clock is -ln t. Other programs use it as
//! it is for flows, though the solver's own clock would there be ln((1 - t)/t).

use candle_core::Tensor;

use super::{Field, Sampler, Span, clean, toward};
use crate::{error::Result, sampling::State};

const CLEAN: &str = "sampler.clean";

/// One evaluation a step; the first and the last are of first order.
#[derive(Debug, Default)]
pub struct Dpmpp2m {
    /// D of the step before.
    clean: Option<Tensor>,
}

impl Sampler for Dpmpp2m {
    fn step(&mut self, x: &Tensor, span: &Span<'_>, field: &mut Field<'_>) -> Result<Tensor> {
        let clean = clean(x, &field.before(x)?, span.t())?;
        let heading = match (self.clean.take(), span.before(1)) {
            (Some(last), Some(before)) if !span.is_last() => {
                let clock = |from: f64, to: f64| (from / to).ln();
                let half = clock(span.t(), span.t_next()) / (2.0 * clock(before, span.t())); // 1/(2 r)
                toward(&clean, &last.to_device(x.device())?, -half)?
            }
            _ => clean.clone(),
        };
        self.clean = Some(clean);
        toward(&heading, x, span.t_next() / span.t()) // [1, N, C]
    }

    fn clean(&self) -> Option<&Tensor> {
        self.clean.as_ref()
    }

    fn state(&self) -> Result<State> {
        Ok(self.clean.iter().map(|clean| (CLEAN.to_owned(), clean.clone())).collect())
    }

    fn restore(&mut self, state: &mut State) -> Result<()> {
        self.clean = state.remove(CLEAN);
        Ok(())
    }
}
