//! `dype inspect` as a command: from flags to a table, JSON or a plot.

use std::path::PathBuf;

use crate::{
    base::progress::{Event, Observer},
    cli::{args::ExtentArgs, model_source, position_args::PositionArgs, report::Report},
    error::Result,
    lab::{self, InspectSettings},
    methods::Side,
    models::{Facts, Registry},
    sampling::{self, Mu},
};

/// Show the position frequencies of each step: kappa, and each axis's scale and frequencies
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct InspectArgs {
    /// Size and steps.
    #[command(flatten)]
    pub extent: ExtentArgs,

    /// One moment t, from 1 (noise) to 0 (picture), instead of a schedule
    #[arg(long, value_name = "T", value_parser = moment, allow_negative_numbers = true)]
    pub t: Option<f64>,

    /// Take axes, theta and schedule from this model instead of FLUX.1's
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// Write JSON with every number exact
    #[arg(long)]
    pub json: bool,

    /// Draw the frequencies into this PNG file
    #[arg(long, value_name = "FILE", value_parser = png_file)]
    pub plot: Option<PathBuf>,

    /// How positions are extrapolated.
    #[command(flatten)]
    pub position: PositionArgs,
}

impl InspectArgs {
    /// Validated settings from the flags, what the model says about itself (FLUX.1 where none is given), and the shift and
    /// t of each step of the `schedule`; `--t` replaces the schedule.
    ///
    /// # Errors
    /// [`Error::Request`] for an impossible size.
    pub fn settings(&self, facts: &Facts, mu: Option<f64>, schedule: &[f64]) -> Result<InspectSettings> {
        let model = &facts.recipe;
        let along = |side| facts.axes.iter().find(|axis| axis.side == side);
        let dim = |side| along(side).map_or(0, |axis| axis.dim);
        Ok(InspectSettings {
            method: self.position.choice.method,
            dype: model.dype(self.position.dype()),
            size: self.extent.size()?,
            geometry: facts.latents,
            base_resolution_px: model.base_resolution_px(self.position.tuning.base_resolution),
            axes_dim: [dim(None), dim(Some(Side::Height)), dim(Some(Side::Width))],
            theta: along(Some(Side::Height)).map_or(0.0, |axis| axis.theta),
            mu,
            t: self.t.map_or_else(|| schedule.to_vec(), |t| vec![t]),
        })
    }
}

fn moment(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(t) if (0.0..=1.0).contains(&t) => Ok(t),
        _ => Err("expected a number from 0 (the picture) to 1 (pure noise)".into()),
    }
}

fn png_file(text: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let is_png = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    if is_png { Ok(path) } else { Err("expected a file name ending in .png".into()) }
}

/// Runs `dype inspect`.
pub fn run(args: &InspectArgs, report: &Report) -> anyhow::Result<()> {
    let facts = match &args.model {
        Some(model) => model_source::facts(model, report)?,
        None => Registry::default().usual(),
    };
    let scheduler = &facts.scheduler;
    let size = args.extent.size()?;
    let mu = args.position.tuning.mu.unwrap_or(Mu::Pinned);
    let tokens = facts.latents.tokens(size).count();
    let mut sigmas = sampling::sigmas(scheduler, args.extent.steps, tokens, mu)?;
    sigmas.pop();
    let settings = args.settings(&facts, sampling::resolve_mu(scheduler, tokens, mu), &sigmas)?;
    let inspection = lab::inspect(&settings)?;
    for note in args.position.without_effect() {
        report.on(Event::Note(note.into()));
    }
    if let Some(file) = &args.plot {
        lab::save_plot(&inspection, file)?;
        report.result(&file.display().to_string());
    }
    if args.json {
        report.result(&serde_json::to_string(&inspection)?);
    } else if args.plot.is_none() {
        report.result(inspection.table().trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        inspect: InspectArgs,
    }

    fn parse(words: &[&str]) -> std::result::Result<InspectArgs, clap::Error> {
        Cli::try_parse_from([&["dype"], words].concat()).map(|cli| cli.inspect)
    }

    #[test]
    fn defaults_are_flux1_at_4096() {
        let args = parse(&[]).expect("no flags are needed");
        let settings = args.settings(&Registry::default().usual(), Some(1.15), &[1.0, 0.5]).expect("valid");
        assert_eq!((settings.axes_dim, settings.theta, settings.base_resolution_px), ([16, 56, 56], 10_000.0, 1024));
        assert_eq!((settings.size.height_px, settings.size.width_px), (4096, 4096));
        assert_eq!((args.extent.steps, settings.t.as_slice()), (28, [1.0, 0.5].as_slice()));
        let args = parse(&["--t", "0.25"]).expect("valid");
        assert_eq!(args.settings(&Registry::default().usual(), None, &[1.0]).expect("valid").t, [0.25]);
    }

    #[test]
    fn flags_out_of_range_are_requests_that_make_no_sense() {
        let wrong = [
            ["--steps", "0"],
            ["--t", "-0.5"],
            ["--t", "1.5"],
            ["--t", "nan"],
            ["--plot", "x.jpg"],
            ["--height", "15"],
            ["--width", "0"],
            ["--base-resolution", "8"],
        ];
        for words in wrong {
            assert_eq!(parse(&words).expect_err("out of range").exit_code(), 2, "{words:?}");
        }
    }
}
