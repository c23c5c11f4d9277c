//! Which schedule a FLUX.1 follows: its own folder's, one that was given, or that of its kind.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{FluxConfig, family::PIPELINES};
use crate::{
    error::Result,
    models::{Found, SchedulerConfig, repository::pipeline_around},
    weights::Files,
};

/// The schedule of a model.
pub(super) struct Schedule {
    /// Its numbers.
    pub(super) config: SchedulerConfig,
    /// The file they come from; `None` where they are those of the kind.
    pub(super) file: Option<PathBuf>,
    /// Why a file that lies there was not taken.
    pub(super) remark: Option<String>,
}

/// A file that was given counts, and so does the one that came with the transformer's folder. One that only lies beside the
/// transformer counts where it is of the same kind: a schnell file in a dev folder is no dev.
pub(super) fn schedule(config: &FluxConfig, found: &Found) -> Result<Schedule> {
    let Some((file, is_meant)) = found.scheduler()? else {
        return Ok(Schedule { config: of_kind(config), file: None, remark: None });
    };
    let read = SchedulerConfig::read_among(&file, &found.files);
    if is_meant {
        return Ok(Schedule { config: read?, file: Some(file), remark: None });
    }
    let why = match read {
        Ok(read) => match disagreement(config, &read, &file, &found.files) {
            None => return Ok(Schedule { config: read, file: Some(file), remark: None }),
            Some(why) => why,
        },
        Err(error) => error.to_string(),
    };
    let own = if config.guidance_embeds { "FLUX.1-dev's (dynamic)" } else { "FLUX.1-schnell's (static)" };
    let remark = format!(
        "{} lies beside the transformer and is not taken: {why}. The schedule is {own}; --part scheduler=PATH gives another",
        file.display()
    );
    Ok(Schedule { config: of_kind(config), file: None, remark: Some(remark) })
}

/// FLUX.1's own: dynamic shift for a model with guidance embedding (dev), static for one without (schnell).
/// Source: the scheduler_config.json of FLUX.1-dev (dynamic, shift 3) and FLUX.1-schnell (static, shift 1).
fn of_kind(config: &FluxConfig) -> SchedulerConfig {
    if config.guidance_embeds { SchedulerConfig::flux1_dev() } else { SchedulerConfig::default() }
}

/// Why the schedule in `file` is not one for this transformer, as the folder around it tells.
fn disagreement(config: &FluxConfig, schedule: &SchedulerConfig, file: &Path, files: &Files) -> Option<String> {
    let root = file.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    let read = |path: PathBuf| files.is_file(&path).then(|| files.read_json::<Value>(&path).ok()).flatten();
    if let Some(class) = pipeline_around(file, files).filter(|class| !PIPELINES.contains(&class.as_str())) {
        return Some(format!("the folder is of a {class}"));
    }
    let words = |guided: bool| if guided { "takes guidance (dev)" } else { "takes no guidance (schnell)" };
    let neighbour = read(root.join("transformer/config.json"))
        .and_then(|config| config.get("guidance_embeds").and_then(Value::as_bool));
    if let Some(guided) = neighbour.filter(|guided| *guided != config.guidance_embeds) {
        return Some(format!("the folder's transformer {}, this one {}", words(guided), words(config.guidance_embeds)));
    }
    (schedule.use_dynamic_shifting != config.guidance_embeds).then(|| {
        let shift = if schedule.use_dynamic_shifting { "dynamic" } else { "static" };
        format!("its shift is {shift}, and this transformer {}", words(config.guidance_embeds))
    })
}
