//! `dype inspect` as a command: from flags to a table, JSON or a plot.

use super::{
    inspect::{InspectArgs, inspect},
    model_source, plot,
    report::Report,
};
use crate::{
    flux::FluxConfig,
    progress::{Event, Observer},
    sampling::{self, Mu, SchedulerConfig},
};

/// Runs `dype inspect`.
pub fn run(args: &InspectArgs, report: &Report) -> anyhow::Result<()> {
    let (config, scheduler) = match &args.model {
        Some(model) => model_source::dimensions(model, report)?,
        None => (FluxConfig::flux1_dev(), SchedulerConfig::flux1_dev()),
    };
    let size = args.extent.size()?;
    let mu = args.position.tuning.mu.unwrap_or(Mu::Pinned);
    let tokens = size.tokens().count();
    let mut sigmas = sampling::sigmas(&scheduler, args.extent.steps, tokens, mu)?;
    sigmas.pop();
    let settings = args.settings(&config, sampling::resolve_mu(&scheduler, tokens, mu), &sigmas)?;
    let inspection = inspect(&settings)?;
    for note in args.position.without_effect() {
        report.on(Event::Note(note.into()));
    }
    if let Some(file) = &args.plot {
        plot::save(&inspection, file)?;
        report.result(&file.display().to_string());
    }
    if args.json {
        report.result(&serde_json::to_string(&inspection)?);
    } else if args.plot.is_none() {
        report.result(inspection.table().trim_end());
    }
    Ok(())
}
