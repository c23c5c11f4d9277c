//! Which schedule a Z-Image follows, and with it whether it is Turbo or base, which have the same tensors.

use std::path::PathBuf;

use super::family::PIPELINES;
use crate::{
    error::Result,
    models::{Found, SchedulerConfig, repository::pipeline_around},
};

/// The static shift of Z-Image-Turbo. Source: its scheduler_config.json.
const TURBO_SHIFT: f64 = 3.0;
/// From this static shift on it is the base model, whose own is 6. Source: Tongyi-MAI/Z-Image, scheduler_config.json.
const BASE_SHIFT: f64 = 6.0;

/// The schedule of a model.
pub(super) struct Schedule {
    /// Its numbers.
    pub(super) config: SchedulerConfig,
    /// What is to be told of where they come from.
    pub(super) remark: Option<String>,
}

/// Turbo's.
pub(super) fn turbo() -> SchedulerConfig {
    SchedulerConfig { shift: TURBO_SHIFT, ..SchedulerConfig::default() }
}

/// Whether this is the schedule of the base model, which was not distilled to few steps.
pub(super) fn is_base(scheduler: &SchedulerConfig) -> bool {
    !scheduler.use_dynamic_shifting && scheduler.shift >= BASE_SHIFT
}

/// A file that was given counts, and so does the one that came with the transformer's folder. One that only lies beside the
/// transformer counts where its folder is a Z-Image's.
pub(super) fn schedule(found: &Found) -> Result<Schedule> {
    let is_ours =
        |file: &PathBuf| pipeline_around(file, &found.files).is_some_and(|class| PIPELINES.contains(&class.as_str()));
    match found.scheduler()?.filter(|(file, is_meant)| *is_meant || is_ours(file)) {
        Some((file, _)) => Ok(Schedule { config: SchedulerConfig::read_among(&file, &found.files)?, remark: None }),
        None => Ok(Schedule { config: turbo(), remark: Some(unknown()) }),
    }
}

fn unknown() -> String {
    "no scheduler_config.json came with the transformer: it is taken for Z-Image-Turbo (shift 3, 8 steps, no cfg). For the base \
     model give --part scheduler=PATH with its file (shift 6), which brings 50 steps and --cfg 4"
        .to_owned()
}
