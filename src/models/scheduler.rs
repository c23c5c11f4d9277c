//! `scheduler_config.json`: the schedule a model was trained for, as data. What follows from it is computed in
//! [`crate::sampling::sigmas`].

use std::path::Path;

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    weights::Files,
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
        Self::read_among(path, &Files::default())
    }

    /// [`SchedulerConfig::read`] where files may be known before they are here.
    pub(crate) fn read_among(path: &Path, files: &Files) -> Result<Self> {
        let unsupported: Unsupported = files.read_json(path)?;
        let config: Self = files.read_json(path)?;
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
