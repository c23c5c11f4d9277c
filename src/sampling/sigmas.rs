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

use std::path::Path;

use serde::Deserialize;

use crate::{
    base::json::read_json,
    error::{Error, Result},
    recipe::Mu,
};

/// The one scheduler whose sigmas are implemented, under diffusers' name.
const SCHEDULER_CLASS: &str = "FlowMatchEulerDiscreteScheduler";

/// `scheduler_config.json` of a FLUX model. Missing keys take the defaults of diffusers' constructor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// Length of the training schedule; FLUX's time embedding sees `num_train_timesteps · sigma`.
    pub num_train_timesteps: usize,
    /// The static shift, used when `use_dynamic_shifting` is off (FLUX.1-schnell).
    pub shift: f64,
    /// Whether the shift comes from mu (FLUX.1-dev) instead of `shift`.
    pub use_dynamic_shifting: bool,
    /// mu at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// mu at `max_image_seq_len` tokens, and at every size when mu is pinned.
    pub max_shift: f64,
    /// Image tokens where the stock formula gives `base_shift`.
    pub base_image_seq_len: usize,
    /// Image tokens where the stock formula gives `max_shift`.
    pub max_image_seq_len: usize,
    /// How mu enters the dynamic shift.
    pub time_shift_type: TimeShift,
    /// Where the schedule is stretched to end, before the final 0. `None` (and 0, as in diffusers): nowhere.
    pub shift_terminal: Option<f64>,
}

/// What of the same file changes the sigmas or the step in ways that are not implemented.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Unsupported {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    invert_sigmas: Option<bool>,
    stochastic_sampling: Option<bool>,
    use_beta_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_karras_sigmas: Option<bool>,
}

/// How mu enters the dynamic shift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeShift {
    /// Through `e^mu`.
    #[default]
    Exponential,
    /// As it is.
    Linear,
}

impl Default for SchedulerConfig {
    /// The defaults of diffusers' constructor.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            time_shift_type: TimeShift::Exponential,
            shift_terminal: None,
        }
    }
}

impl SchedulerConfig {
    /// FLUX.1-dev's and Krea-dev's. Source: their `scheduler_config.json`.
    pub fn flux1_dev() -> Self {
        Self { use_dynamic_shifting: true, shift: 3.0, ..Self::default() }
    }

    /// Reads and checks a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read; [`Error::Model`] when it is not JSON, has a value of the wrong type or
    /// range, or asks for a scheduler that is not implemented.
    pub fn read(path: &Path) -> Result<Self> {
        let unsupported: Unsupported = read_json(path)?;
        let config: Self = read_json(path)?;
        unsupported.check().and_then(|()| config.check()).map_err(|why| {
            let hint = format!("FLUX.1's scheduler is a plain {SCHEDULER_CLASS}; use the file of the original model");
            Error::model(format!("{}: {why}", path.display()), hint)
        })?;
        Ok(config)
    }

    /// The first value out of its range, if any.
    fn check(&self) -> Result<(), String> {
        if !(self.shift.is_finite() && self.shift > 0.0) {
            return Err(format!("shift is {}, expected a number above 0", self.shift));
        }
        if self.num_train_timesteps == 0 {
            return Err("num_train_timesteps is 0".into());
        }
        if self.base_image_seq_len >= self.max_image_seq_len {
            let (base, max) = (self.base_image_seq_len, self.max_image_seq_len);
            return Err(format!("base_image_seq_len {base} is not below max_image_seq_len {max}"));
        }
        if self.shift_terminal.is_some_and(|end| !(0.0..1.0).contains(&end)) {
            return Err(format!("shift_terminal is {:?}, expected a number in [0, 1)", self.shift_terminal));
        }
        Ok(())
    }
}

impl Unsupported {
    /// The first setting that cannot be followed, if any.
    fn check(&self) -> Result<(), String> {
        if let Some(class) = self.class_name.as_deref().filter(|class| *class != SCHEDULER_CLASS) {
            return Err(format!("the scheduler is {class}; only {SCHEDULER_CLASS} is implemented"));
        }
        let switches = [
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_karras_sigmas", self.use_karras_sigmas),
        ];
        match switches.iter().find(|(_, on)| *on == Some(true)) {
            Some((name, _)) => Err(format!("{name} is true, which is not implemented")),
            None => Ok(()),
        }
    }
}

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
