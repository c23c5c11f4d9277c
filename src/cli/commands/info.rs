//! `dype info`: what a picture says of how it was made, or what a file of weights holds.

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use serde_json::Value;

use super::info_model;
use crate::cli::{
    pictured::{self, Pictured},
    report::Report,
    search_args::SearchArgs,
};
use crate::{
    base::printable::printable,
    models::MuRule,
    output::{self, Parameters},
    recipe::Recipe,
    run::PROGRAM_ENTRY,
};

/// Which picture, or which weights.
#[derive(Debug, Clone, Args)]
pub struct InfoArgs {
    /// A picture made by dype, or by another program that writes A1111's text: PNG, JPEG or WebP; or a file of weights, or a
    /// folder in diffusers layout
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print all it says, as one line of JSON
    #[arg(long)]
    json: bool,
    /// Where the parts of a model are looked for.
    #[command(flatten)]
    search: SearchArgs,
}

/// Runs `dype info`.
pub fn run(args: &InfoArgs, report: &Report) -> anyhow::Result<()> {
    if info_model::is_meant(&args.file) {
        return Ok(info_model::run(&args.file, &args.search, args.json, report)?);
    }
    if args.json {
        report.result(&pictured::json(&args.file)?.to_string());
        return Ok(());
    }
    let pictured = pictured::read(&args.file)?;
    report.result(lines(&pictured).trim_end());
    if !output::is_whole(&args.file).unwrap_or(true) {
        let again = if matches!(pictured, Pictured::Stranger(_)) { "" } else { "; `dype replay` makes it again" };
        report.line(&format!("note: {} is cut short{again}", args.file.display()));
    }
    Ok(())
}

/// What people want to know, a line each.
fn lines(pictured: &Pictured) -> String {
    let entries = match pictured {
        Pictured::Whole { json, recipe } => whole(json, recipe),
        Pictured::Text { text, wanted } => {
            let mut entries = told(text);
            entries.push(("unknown".into(), pictured::unknown(text, wanted)));
            entries
        }
        Pictured::Stranger(text) => told(text),
    };
    let mut lines = String::new();
    for (name, value) in entries {
        // A value of several lines is told from the next value by where it begins.
        let value = printable(&value).replace('\n', "\n           ");
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{name:<10} {value}");
    }
    lines
}

/// What dype says of a picture.
fn whole(json: &Value, recipe: &Recipe) -> Vec<(String, String)> {
    let said = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or("unknown");
    let said_model = json.get("model").unwrap_or(&Value::Null);
    let mut entries = recipe.info_lines();
    entries.push(("model", model(said_model)));
    entries.extend(contents(said_model).map(|text| ("holds", text)));
    entries.extend(schedule(said_model).map(|text| ("schedule", text)));
    let made_by = format!("dype {} on {} in {}", said("program_version"), said("device"), said("dtype"));
    entries.push(("made by", made_by));
    if let Some(preview) = json.get(output::PREVIEW) {
        let of_stages = |stage: &Value| format!(" of stage {stage} of {}", preview["stages"]);
        let stage = preview.get("stage").map(of_stages).unwrap_or_default();
        let steps = format!("after step {} of {}{stage}", preview["step"], preview["steps"]);
        entries.push(("preview", format!("{steps}; `dype replay` makes the picture")));
    }
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the text for other tools says, whoever wrote it, in its own words.
fn told(text: &Parameters) -> Vec<(String, String)> {
    let (prompt, negative) = pictured::prompts(text);
    let mut entries = vec![("prompt".to_owned(), prompt.to_owned())];
    entries.extend(negative.map(|negative| ("negative".to_owned(), negative.to_owned())));
    entries.extend(text.settings.iter().filter(|(name, _)| name != PROGRAM_ENTRY).cloned());
    entries.push(("made by".to_owned(), pictured::program(text)));
    entries
}

fn model(model: &Value) -> String {
    let said = |key: &str| model.get(key).and_then(Value::as_str);
    let mut text = said("model").unwrap_or("unknown").to_owned();
    if let Some(revision) = said("revision") {
        let _ = write!(text, "@{revision}");
    }
    for (part, path) in model.get("parts").and_then(Value::as_object).into_iter().flatten() {
        let _ = write!(text, ", {part} {}", path.as_str().unwrap_or_default());
    }
    text
}

/// The beginnings of what tells its parts from others.
fn contents(model: &Value) -> Option<String> {
    const SHOWN: usize = 8;
    let parts = model.get("contents")?.as_object()?;
    let start = |text: &Value| text.as_str().unwrap_or_default().chars().take(SHOWN).collect::<String>();
    let parts: Vec<String> = parts.iter().map(|(part, text)| format!("{part} {}", start(text))).collect();
    Some(parts.join(", "))
}

/// The schedule in words.
fn schedule(model: &Value) -> Option<String> {
    let said = model.get("schedule")?;
    Some(match said.get("use_dynamic_shifting")? {
        Value::Bool(true) => {
            let line = format!("base {} to max {}", said.get("base_shift")?, said.get("max_shift")?);
            let rule = said.get("mu_rule").cloned().map(serde_json::from_value).transpose().ok()?.unwrap_or_default();
            match rule {
                MuRule::MaxShift => format!("dynamic shift, {line}"),
                MuRule::LineUpTo(tokens) => format!("dynamic shift, {line}, held from {tokens} tokens on"),
                // The file's numbers play no part.
                MuRule::Empirical => {
                    "dynamic shift, mu by tokens and steps, held from the base resolution on".to_owned()
                }
            }
        }
        _ => format!("static shift {}", said.get("shift")?),
    })
}
