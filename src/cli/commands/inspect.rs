//! `dype inspect` as a command: from flags to a table, JSON or a plot.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use candle_core::Tensor;

use crate::{
    base::{
        geometry::{ImageSize, TokenGrid},
        progress::{Event, Observer},
    },
    cli::{
        args::DEFAULT_MODEL,
        latents_file, model_source, notes,
        report::Report,
        search_args::SearchArgs,
        setting_flags::{Extent, Position, SettingFlags},
    },
    error::{Error, Result},
    lab::{self, InspectSettings},
    methods::{Looks, Side, Spectrum},
    models::{Facts, Reading, Registry, parts::Piece},
    output::LatentsFile,
    recipe::{Merged, Recipe, Source},
    sampling::{self, ScheduleFor, Shift},
};

/// Flags that have a sense with `--tokens` alone.
pub const OF_TOKENS: [&str; 2] = ["prompt", "max_sequence_length"];

/// Show the position frequencies of each step: kappa, and each axis's scale and frequencies
#[derive(Debug, Clone, clap::Args)]
pub struct InspectArgs {
    /// Size and steps.
    #[command(flatten)]
    pub extent: SettingFlags<Extent>,

    /// Look at latents that --save-latents wrote, or a checkpoint in .dype/, as a method does that follows their spectrum
    /// (sega); the size is theirs, and the one moment is --t, else 0
    #[arg(long, value_name = "FILE")]
    pub latents: Option<PathBuf>,

    /// One moment t, from 1 (noise) to 0 (picture), instead of a schedule
    #[arg(long, value_name = "T", value_parser = moment, allow_negative_numbers = true)]
    pub t: Option<f64>,

    /// Take axes, theta and schedule from this model instead of FLUX.1's
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// Where parts of the model are looked for.
    #[command(flatten)]
    pub search: SearchArgs,

    /// Write JSON with every number exact
    #[arg(long)]
    pub json: bool,

    /// Draw the frequencies into this PNG file
    #[arg(long, value_name = "FILE", value_parser = png_file)]
    pub plot: Option<PathBuf>,

    /// Show the pieces and ids that each text encoder reads of a prompt, instead of frequencies
    #[arg(long, requires = "prompt", conflicts_with_all = ["t", "plot", "latents"])]
    pub tokens: bool,

    /// The prompt whose tokens are shown
    #[arg(long, value_name = "TEXT", requires = "tokens", allow_hyphen_values = true)]
    pub prompt: Option<String>,

    /// Tokens of text, of which longer prompts are cut; by default what the model's tokenizer reads, at most 512
    #[arg(long, value_name = "N", requires = "tokens")]
    pub max_sequence_length: Option<usize>,

    /// How positions are extrapolated.
    #[command(flatten)]
    pub position: SettingFlags<Position>,
}

impl InspectArgs {
    /// What a run with these flags would be made with, by a model that says this about itself.
    ///
    /// # Errors
    /// As [`Recipe::new`].
    pub fn recipe(&self, facts: &Facts) -> Result<Recipe> {
        let asked = Merged::of(Source::Flag, &self.extent.wanted).with(Source::Flag, &self.position.wanted);
        Recipe::new(&asked.wanted, &facts.recipe)
    }

    /// What is inspected of a `recipe`: the shift and t of each step of the `schedule`; `--t` replaces the schedule, and so do
    /// latents.
    pub fn settings(&self, recipe: &Recipe, facts: &Facts, mu: Option<f64>, schedule: &[f64]) -> InspectSettings {
        let along = |side| facts.axes.iter().find(|axis| axis.side == side);
        let dim = |side| along(side).map_or(0, |axis| axis.dim);
        InspectSettings {
            method: recipe.method,
            dype: recipe.dype_settings(),
            knobs: recipe.knobs(),
            proportional_with: recipe.proportional_attention.then_some(recipe.max_sequence_length),
            size: recipe.size(),
            geometry: facts.latents,
            base_resolution_px: recipe.base_resolution,
            axes_dim: [dim(None), dim(Some(Side::Height)), dim(Some(Side::Width))],
            theta: along(Some(Side::Height)).map_or(0.0, |axis| axis.theta),
            mu,
            t: match self.t.or(self.latents.as_ref().map(|_| 0.0)) {
                Some(t) => vec![t],
                None => schedule.to_vec(),
            },
            spectrum: None,
        }
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
    if let Some(prompt) = args.prompt.as_deref().filter(|_| args.tokens) {
        return show_tokens(args, prompt, report);
    }
    let facts = match &args.model {
        Some(model) => model_source::facts(model, &args.search, report)?,
        None => Registry::default().usual(),
    };
    let scheduler = &facts.scheduler;
    let recipe = args.recipe(&facts)?;
    let latents = args.latents.as_deref().map(|file| latents_of(args, file, &recipe, &facts)).transpose()?;
    let wanted = ScheduleFor::recipe(&recipe, &facts);
    let mut sigmas = sampling::sigmas(scheduler, &wanted)?;
    sigmas.pop();
    let mu = Shift::of(scheduler, &wanted).mu();
    let mut settings = args.settings(&recipe, &facts, mu, &sigmas);
    if let Some((latents, size)) = &latents {
        settings.size = *size;
        settings.spectrum = Some(spectrum(args, latents, facts.latents.tokens(*size), report)?);
    }
    let inspection = lab::inspect(&settings)?;
    let idle = notes::without_effect(&args.position.wanted).into_iter().map(str::to_owned);
    for note in idle.chain(notes::sharper(&recipe)) {
        report.on(Event::Note(note));
    }
    if let Some(file) = &args.plot {
        report.path(&lab::save_plot(&inspection, file)?);
    }
    if args.json {
        report.result(&serde_json::to_string(&inspection)?);
    } else if args.plot.is_none() {
        report.result(inspection.table().trim_end());
    }
    Ok(())
}

/// The latents of a file that a recipe's method looks at, and the size of their picture.
fn latents_of(args: &InspectArgs, file: &Path, recipe: &Recipe, facts: &Facts) -> Result<(Tensor, ImageSize)> {
    if recipe.scaler().looks() != Looks::Spectrum {
        let what = "--latents: this method does not look at latents";
        return Err(Error::request(what, "add --method sega, or leave --latents out"));
    }
    let asked = args.extent.wanted.height.zip(args.extent.wanted.width);
    latents_file::of_model(file, &LatentsFile::read(file)?, asked, &facts.latents)
}

/// The spectrum of latents as the model reads them.
fn spectrum(args: &InspectArgs, latents: &Tensor, grid: TokenGrid, report: &Report) -> Result<Spectrum> {
    let model = args.model.as_deref().unwrap_or(DEFAULT_MODEL);
    sampling::spectrum(latents, grid, &model_source::token_reading(model, &args.search, report)?)
}

fn show_tokens(args: &InspectArgs, prompt: &str, report: &Report) -> anyhow::Result<()> {
    let model = args.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let readings = model_source::tokens(model, prompt, args.max_sequence_length, &args.search, report)?;
    if args.json {
        report.result(&serde_json::json!({ "prompt": prompt, "encoders": readings }).to_string());
    } else {
        report.result(&readings.iter().map(list).collect::<Vec<_>>().join("\n\n"));
    }
    Ok(())
}

/// One encoder's tokens, a line each; pieces are quoted, so that spaces and odd characters are seen.
fn list(reading: &Reading) -> String {
    let Reading { encoder, length, tokens, padding, cut } = reading;
    let mut text = format!("{encoder}: {} of {length} tokens, {padding} of padding", tokens.len());
    for Piece { id, piece } in tokens {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{id:>8}  {piece:?}");
    }
    match cut {
        Some(cut) => text + &format!("\n  not read: {cut:?}"),
        None => text,
    }
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
        let facts = Registry::default().usual();
        let recipe = args.recipe(&facts).expect("valid");
        let settings = args.settings(&recipe, &facts, Some(1.15), &[1.0, 0.5]);
        assert_eq!((settings.axes_dim, settings.theta, settings.base_resolution_px), ([16, 56, 56], 10_000.0, 1024));
        assert_eq!((settings.size.height_px, settings.size.width_px), (4096, 4096));
        assert_eq!((recipe.steps, settings.t.as_slice()), (28, [1.0, 0.5].as_slice()));
        let args = parse(&["--t", "0.25"]).expect("valid");
        assert_eq!(args.settings(&recipe, &facts, None, &[1.0]).t, [0.25]);
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
