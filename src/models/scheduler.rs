//! `scheduler_config.json`: the schedule a model was trained for, as data. What follows from it is computed in
//! [`crate::sampling::sigmas`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::parts::{
    config::{Config, Key, Said, computed, one_of, optional},
    open,
};
use crate::{
    error::{Error, Result},
    weights::Files,
};

/// The one scheduler whose sigmas are implemented, under diffusers' name.
const SCHEDULER_CLASS: &str = "FlowMatchEulerDiscreteScheduler";

/// `scheduler_config.json`, and what the family says of its shift.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SchedulerConfig {
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
    /// Which mu a size gets. The family's; no file says it.
    #[serde(default, skip_serializing_if = "MuRule::is_usual")]
    pub mu_rule: MuRule,
}

/// Source: diffusers, `FlowMatchEulerDiscreteScheduler.__init__`.
const KEYS: &[Key] = &[
    // The time that FLUX's embedding sees is this times sigma; FLUX was trained for 1000.
    one_of("num_train_timesteps", "1000", &["1000"]),
    computed("shift", "1.0"),
    computed("use_dynamic_shifting", "false"),
    computed("base_shift", "0.5"),
    computed("max_shift", "1.15"),
    computed("base_image_seq_len", "256"),
    computed("max_image_seq_len", "4096"),
    one_of("invert_sigmas", "false", &["false"]),
    optional("shift_terminal", "0.1"),
    one_of("use_karras_sigmas", "false", &["false"]),
    one_of("use_exponential_sigmas", "false", &["false"]),
    one_of("use_beta_sigmas", "false", &["false"]),
    one_of("time_shift_type", r#""exponential""#, &[r#""exponential""#, r#""linear""#]),
    one_of("stochastic_sampling", "false", &["false"]),
];

/// How mu enters the dynamic shift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeShift {
    /// Through `e^mu`.
    #[default]
    Exponential,
    /// As it is.
    Linear,
}

/// Which mu the dynamic shift takes at a size: the stock formula of the family's pipeline, and how far it is followed. Far
/// beyond the sizes of training a formula leaves the range the model was trained in and ruins the picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MuRule {
    /// The line through (`base_image_seq_len`, `base_shift`) and (`max_image_seq_len`, `max_shift`); not followed, but
    /// pinned at `max_shift` at every size. Source: DyPE's reference, for FLUX.1.
    #[default]
    MaxShift,
    /// The same line, followed up to so many picture tokens and held at its value there.
    LineUpTo(usize),
    /// The empirical formula of FLUX.2's pipelines, which looks at the number of steps too; followed up to the base
    /// resolution's picture tokens and held at its value there.
    Empirical,
}

impl MuRule {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for SchedulerConfig {
    /// The defaults of diffusers' constructor.
    fn default() -> Self {
        Self {
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            time_shift_type: TimeShift::Exponential,
            shift_terminal: None,
            mu_rule: MuRule::MaxShift,
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
        let value = open::read_config(files, path, ["_class_name", SCHEDULER_CLASS, Self::ADVICE])?;
        Ok(Said::by_file(&value, path)?.config)
    }
}

impl Config for SchedulerConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str =
        "FLUX.1's scheduler is a plain FlowMatchEulerDiscreteScheduler; use the file of the original model";

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::model(what, Self::ADVICE));
        if !(self.shift.is_finite() && self.shift > 0.0) {
            return refuse(format!("shift is {}, expected a number above 0", self.shift));
        }
        if self.base_image_seq_len >= self.max_image_seq_len {
            let (base, max) = (self.base_image_seq_len, self.max_image_seq_len);
            return refuse(format!("base_image_seq_len {base} is not below max_image_seq_len {max}"));
        }
        match self.shift_terminal.filter(|end| !(0.0..1.0).contains(end)) {
            Some(end) => refuse(format!("shift_terminal is {end}, expected a number in [0, 1)")),
            None => Ok(()),
        }
    }
}
