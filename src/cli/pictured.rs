//! What a picture says of itself, read back.

use std::path::Path;

use serde_json::Value;

use crate::{
    error::{Error, Result},
    output,
    recipe::Recipe,
    run::PROVENANCE_VERSION,
};

/// The provenance of a picture that this version understands.
pub struct Pictured {
    /// The whole of it.
    pub json: Value,
    /// What it was made with.
    pub recipe: Recipe,
}

/// Reads a picture's provenance.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be read; [`Error::Request`] when it is no picture, has no provenance, or that of a
/// newer version.
pub fn read(file: &Path) -> Result<Pictured> {
    let json = json(file)?;
    let recipe = recipe(&json, file)?;
    Ok(Pictured { json, recipe })
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
    Recipe::of_picture(json.get("settings").unwrap_or(&Value::Null)).map_err(|error| {
        let what = format!("{}: its settings make no sense: {error}", file.display());
        Error::request(what, "the picture was edited, or comes from another version of dype")
    })
}

/// What the picture says, whatever version wrote it.
///
/// # Errors
/// As [`read`], but for the version.
pub fn json(file: &Path) -> Result<Value> {
    output::read_provenance(file)?.filter(Value::is_object).ok_or_else(|| none(file))
}

fn none(file: &Path) -> Error {
    let what = format!("{} does not say how it was made", file.display());
    let hint = "give a picture as dype wrote it: editors and chat programs remove what it says of itself";
    Error::request(what, hint)
}
