//! `dype replay`: the same picture again from what it says of itself, or a variation of it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use crate::cli::{
    args::{GenerateArgs, ModelArgs},
    commands::generate,
    execute::MadeOn,
    items::Wish,
    pictured,
    report::Report,
    target::Target,
};
use crate::recipe::{Merged, Recipe, Source, Wanted};

/// Which picture, and what is to be different.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A picture made by dype: PNG, JPEG or WebP
    #[arg(value_name = "PICTURE")]
    file: PathBuf,
    /// What replaces the picture's own settings.
    #[command(flatten)]
    pub flags: GenerateArgs,
}

/// Runs `dype replay`; `typed` are the ids of the flags that were typed: only those replace the picture's settings.
pub fn run(args: &ReplayArgs, typed: &HashSet<String>, report: &Report) -> anyhow::Result<()> {
    let pictured = pictured::read(&args.file)?;
    let is_typed = |id: &str| typed.contains(id);
    let mut flags = args.flags.clone();
    let is_its_own = !is_typed("model");
    if is_its_own {
        flags.model = model(&pictured.json, flags.model, &args.file, &is_typed);
    }
    let has_its_parts = is_its_own && flags.model.parts.parts.keys().all(|part| !is_typed(part)) && !is_typed("part");
    let said = |key: &str| pictured.json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let wish = Wish {
        asked: asked(&pictured.recipe, &generate::with_stdin(&flags.settings.wanted, flags.allow_empty_prompt)?),
        target: Target::new(flags.output.output.as_deref()),
        origin: None,
    };
    let like = MadeOn {
        device: said("device"),
        dtype: said("dtype"),
        model: has_its_parts.then(|| pictured.json["model"].clone()).filter(|said| said.get("contents").is_some()),
    };
    generate::execute(&flags, &wish, Some(like), report)
}

/// What the picture says, with what was typed in its place.
fn asked(picture: &Recipe, typed: &Wanted) -> Merged {
    let mut said = Wanted::from(picture);
    if typed.method.is_some_and(|method| method != picture.method) {
        // The lambdas were those of the other method.
        (said.dype_scale, said.dype_exponent) = (None, None);
    }
    Merged::of(Source::Picture, &said).with(Source::Flag, typed)
}

/// The picture's model, with the parts that were typed in place of its own.
fn model(json: &Value, typed: ModelArgs, file: &Path, is_typed: &dyn Fn(&str) -> bool) -> ModelArgs {
    let said = |key: &str| json["model"].get(key).and_then(Value::as_str);
    let Some(model) = said("model") else { return typed };
    let mut parts = typed.parts;
    // A variable is not typed, and stands in no picture's way.
    if !is_typed("part") {
        parts.parts.retain(|name, _| is_typed(name));
    }
    for (name, path) in json["model"]["parts"].as_object().into_iter().flatten() {
        if let (false, Some(path)) = (parts.parts.contains_key(name), path.as_str()) {
            parts.parts.insert(name.clone(), from_here(path, file).into());
        }
    }
    let variants = json["model"]["variants"].as_object();
    let variant = variants.and_then(|variants| variants.values().next()?.as_str().map(str::to_owned));
    let model = match said("revision") {
        Some(revision) => format!("{model}@{revision}"),
        None => from_here(model, file),
    };
    ModelArgs { variant: if is_typed("variant") { typed.variant } else { variant }, model, parts }
}

/// A path that a picture says. Older pictures say it as it was typed, seen from a folder that is not told: most often one around
/// the picture.
fn from_here(path: &str, picture: &Path) -> String {
    if Path::new(path).exists() {
        return path.to_owned();
    }
    let mut around = picture.parent().into_iter().flat_map(Path::ancestors).map(|folder| folder.join(path));
    around.find(|found| found.exists()).map_or_else(|| path.to_owned(), |found| found.display().to_string())
}
