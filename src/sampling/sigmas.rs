//! The decreasing list of sigmas that the Euler loop follows, as diffusers' `FlowMatchEulerDiscreteScheduler` makes it
//! when `FluxPipeline` drives it.
//!
//! The pipeline asks for `linspace(1, 1/steps, steps)`; the scheduler shifts every value s towards 1:
//!
//! ```text
//! dynamic, exponential   e^mu / (e^mu + 1/s - 1)
//! dynamic, linear        mu / (mu + 1/s - 1)
//! static                 shift·s / (1 + (shift - 1)·s)
//! ```
//!
//! and appends 0. All three are `shift / (shift + 1/s - 1)`, with shift = e^mu, mu, or itself.

use crate::{
    error::{Error, Result},
    models::{SchedulerConfig, TimeShift},
    recipe::Mu,
};

/// The mu a schedule will use, or `None` when the scheduler has a static shift and mu plays no part.
pub fn resolve_mu(config: &SchedulerConfig, image_tokens: usize, mu: Mu) -> Option<f64> {
    config.use_dynamic_shifting.then(|| match mu {
        Mu::Pinned => config.max_shift,
        Mu::Value(value) => value,
        Mu::Stock => stock_mu(config, image_tokens),
    })
}

/// `calculate_shift` of diffusers' FLUX pipeline.
fn stock_mu(config: &SchedulerConfig, image_tokens: usize) -> f64 {
    let (base, max) = (config.base_image_seq_len as f64, config.max_image_seq_len as f64);
    let slope = (config.max_shift - config.base_shift) / (max - base);
    config.base_shift + slope * (image_tokens as f64 - base)
}

/// The sigmas of `steps` Euler steps: `steps + 1` values, strictly decreasing from 1, the last 0.
///
/// `image_tokens` is N, used by [`Mu::Stock`] alone.
///
/// # Errors
/// [`Error::Request`] when `steps` is 0, or mu is so extreme that the sigmas no longer decrease.
pub fn sigmas(config: &SchedulerConfig, steps: usize, image_tokens: usize, mu: Mu) -> Result<Vec<f64>> {
    if steps == 0 {
        return Err(Error::request("--steps 0: no step, no picture", "28 steps are usual; 4 for FLUX.1-schnell"));
    }
    let mu = resolve_mu(config, image_tokens, mu);
    let mut sigmas: Vec<f64> = (0..steps).map(|i| shifted((steps - i) as f64 / steps as f64, mu, config)).collect();
    if let Some(terminal) = config.shift_terminal.filter(|terminal| *terminal != 0.0) {
        stretch_to(&mut sigmas, terminal);
    }
    sigmas.push(0.0);
    let decreasing = sigmas.windows(2).all(|pair| pair[0] > pair[1]);
    if !decreasing || sigmas[0] > 1.0 {
        let mu = mu.map_or_else(|| format!("shift {}", config.shift), |mu| format!("mu {mu}"));
        let what = format!("{mu} gives no decreasing list of sigmas over {steps} steps");
        return Err(Error::request(what, "leave --mu out: the default fits every size"));
    }
    Ok(sigmas)
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
/// A single step stays at 1: it has nothing to stretch.
fn stretch_to(sigmas: &mut [f64], terminal: f64) {
    let last = sigmas.last().map_or(0.0, |last| 1.0 - last);
    if last > 0.0 {
        let scale = last / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}
