//! `dype info`: what a picture says of how it was made.

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use serde_json::Value;

use crate::cli::{
    pictured::{self, Pictured},
    report::Report,
};
use crate::{base::printable::printable, output};

/// Which picture.
#[derive(Debug, Clone, Args)]
pub struct InfoArgs {
    /// A picture made by dype: PNG, JPEG or WebP
    #[arg(value_name = "PICTURE")]
    file: PathBuf,
    /// Print all it says, as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs `dype info`.
pub fn run(args: &InfoArgs, report: &Report) -> anyhow::Result<()> {
    if args.json {
        report.result(&pictured::json(&args.file)?.to_string());
        return Ok(());
    }
    let pictured = pictured::read(&args.file)?;
    report.result(text(&pictured).trim_end());
    if !output::is_whole(&args.file).unwrap_or(true) {
        report.line(&format!("note: {} is cut short; `dype replay` makes it again", args.file.display()));
    }
    Ok(())
}

/// What people want to know, a line each.
fn text(pictured: &Pictured) -> String {
    let Pictured { json, recipe } = pictured;
    let said = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or("unknown");
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        // A value of several lines is told from the next value by where it begins.
        let value = printable(&value).replace('\n', "\n           ");
        let _ = writeln!(text, "{name:<10} {value}");
    };
    recipe.info_lines().into_iter().for_each(|(name, value)| line(name, value));
    let said_model = json.get("model").unwrap_or(&Value::Null);
    line("model", model(said_model));
    contents(said_model).into_iter().for_each(|text| line("holds", text));
    schedule(said_model).into_iter().for_each(|text| line("schedule", text));
    line("made by", format!("dype {} on {} in {}", said("program_version"), said("device"), said("dtype")));
    if let Some(preview) = json.get("preview") {
        line(
            "preview",
            format!("after step {} of {}; `dype replay` makes the picture", preview["step"], preview["steps"]),
        );
    }
    text
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
            format!("dynamic shift, base {} to max {}", said.get("base_shift")?, said.get("max_shift")?)
        }
        _ => format!("static shift {}", said.get("shift")?),
    })
}
