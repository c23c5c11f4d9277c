//! What a picture says of itself, read back.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    output::{self, Parameters},
    recipe::{Recipe, Rng, Wanted},
    run::{self, MODEL_ENTRY, PROGRAM_ENTRY, PROVENANCE_VERSION},
};

/// What a picture says that this version understands.
pub enum Pictured {
    /// All that dype writes.
    Whole {
        /// The whole of it.
        json: Value,
        /// What it was made with.
        recipe: Box<Recipe>,
    },
    /// The text for other tools alone, which dype wrote: a program has dropped what stood beside it.
    Text {
        /// The text.
        text: Parameters,
        /// The settings it says.
        wanted: Box<Wanted>,
    },
    /// The text of another program.
    Stranger(Parameters),
}

/// Reads what a picture says.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be read; [`Error::Request`] when it is no picture, says nothing of how it was made, or what only
/// a newer version knows, or what no flag would be allowed to say.
pub fn read(file: &Path) -> Result<Pictured> {
    if let Some(json) = output::read_provenance(file)?.filter(Value::is_object) {
        let recipe = Box::new(recipe(&json, file)?);
        return Ok(Pictured::Whole { json, recipe });
    }
    let text = output::read_parameters(file)?.ok_or_else(|| none(file))?;
    Ok(match run::of_parameters(&text).map_err(|error| senseless(file, &error))? {
        Some(wanted) => Pictured::Text { text, wanted: Box::new(wanted) },
        None => Pictured::Stranger(text),
    })
}

/// The recipe that `file` says it was made with.
///
/// # Errors
/// [`Error::Request`] when it says none, or that of a newer version, or what no flag would be allowed to say.
pub fn recipe(json: &Value, file: &Path) -> Result<Recipe> {
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let version = json.get("provenance_version").and_then(Value::as_u64);
    if text("program") != Some("dype") || version.is_none() {
        return Err(none(file));
    }
    if version > Some(PROVENANCE_VERSION) {
        let what = format!(
            "{} was made by dype {}, which is newer than this one ({}): its settings have layout {}, this one knows {}",
            file.display(),
            text("program_version").unwrap_or("of an unknown version"),
            env!("CARGO_PKG_VERSION"),
            version.unwrap_or_default(),
            PROVENANCE_VERSION
        );
        return Err(Error::request(what, "update dype; `dype info --json` prints what the picture says"));
    }
    Recipe::of_picture(json.get("settings").unwrap_or(&Value::Null)).map_err(|error| senseless(file, &error))
}

/// What the picture says, whatever version or program wrote it.
///
/// # Errors
/// As [`read`], but for the version and the settings.
pub fn json(file: &Path) -> Result<Value> {
    if let Some(json) = output::read_provenance(file)?.filter(Value::is_object) {
        return Ok(json);
    }
    let text = output::read_parameters(file)?.ok_or_else(|| none(file))?;
    let entries = text.settings.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let entries: serde_json::Map<_, _> = entries.collect();
    let (prompt, negative_prompt) = prompts(&text);
    Ok(json!({ "parameters": { "prompt": prompt, "negative_prompt": negative_prompt, "settings": entries } }))
}

/// Prompt and negative prompt of a text, as its program means them.
pub fn prompts(text: &Parameters) -> (String, Option<String>) {
    if run::is_ours(text) {
        return run::prompts(text);
    }
    let (prompt, negative) = text.prompts();
    (prompt.to_owned(), negative.map(str::to_owned))
}

/// What made the picture, as its text says it.
pub fn program(text: &Parameters) -> String {
    match text.get(PROGRAM_ENTRY) {
        Some(program) if run::is_ours(text) => program.to_owned(),
        Some(version) => format!("another program (Version {version})"),
        None => "another program".to_owned(),
    }
}

/// What a text of dype leaves open: the settings it does not say, and where and with what exactly it was computed.
pub fn unknown(text: &Parameters, wanted: &Wanted) -> String {
    let mut open = wanted.unsaid();
    if wanted.rng == Some(Rng::TorchCudaInUse) {
        open.push("the card of its noise");
    }
    open.extend(["device", "dtype", "the weights' contents and parts from elsewhere"]);
    if text.get(MODEL_ENTRY).is_none() {
        open.push("the model");
    }
    open.join(", ")
}

fn senseless(file: &Path, error: &Error) -> Error {
    let what = format!("{}: its settings make no sense: {error}", file.display());
    Error::request(what, "the picture was edited, or comes from another version of dype")
}

fn none(file: &Path) -> Error {
    let what = format!("{} does not say how it was made", file.display());
    let hint = "give a picture as dype wrote it: editors and chat programs remove what it says of itself";
    Error::request(what, hint)
}
