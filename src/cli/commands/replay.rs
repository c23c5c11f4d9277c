//! `dype replay`: the same picture again from what it says of itself, or a variation of it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{
    args::{GenerateArgs, ModelArgs},
    commands::{generate, upscale},
    execute::MadeOn,
    image_source,
    items::Wish,
    pictured::{self, Pictured},
    report::Report,
    target::Target,
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    output::Parameters,
    recipe::{Merged, Source, Wanted},
    run::MODEL_ENTRY,
};

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
    if args.flags.upscale.is_some() {
        return upscale::run(&args.flags, &args.file, typed, report);
    }
    let mut flags = args.flags.clone();
    let Said { mut wanted, like } = match pictured::read(&args.file)? {
        Pictured::Stranger(text) => return Err(of_another_program(&text, &args.file).into()),
        pictured => said(pictured, &args.file, &mut flags, typed, report)?,
    };
    wanted.image = wanted.image.map(|image| image_source::from_here(image, &args.file));
    let wish = Wish {
        asked: asked(wanted, &generate::with_stdin(&flags.settings.wanted, flags.allow_empty_prompt)?),
        target: Target::new(flags.output.output.as_deref()),
        origin: None,
    };
    generate::execute(&flags, &wish, like, report)
}

/// What a picture says.
pub(super) struct Said {
    /// Its settings.
    pub(super) wanted: Wanted,
    /// Where and in what it was made, where it says so.
    pub(super) like: Option<MadeOn>,
}

/// What a picture of this program says; the model among `flags` becomes its own unless one is typed.
///
/// # Errors
/// [`Error::Request`] when it does not say where its model lies.
pub(super) fn said(
    pictured: Pictured,
    file: &Path,
    flags: &mut GenerateArgs,
    typed: &HashSet<String>,
    report: &Report,
) -> Result<Said> {
    let is_typed = |id: &str| typed.contains(id);
    let is_its_own = !is_typed("model");
    match pictured {
        Pictured::Whole { json, recipe } => {
            if is_its_own {
                flags.model = model(&json, flags.model.clone(), file, &is_typed);
            }
            let like = made_on(&json, is_its_own && has_its_parts(flags, &is_typed));
            Ok(Said { wanted: Wanted::from(&*recipe), like: Some(like) })
        }
        Pictured::Text { text, wanted } => {
            if is_its_own {
                let name = named_model(&text, file)?;
                flags.model = model(&json!({ "model": { "model": name } }), flags.model.clone(), file, &is_typed);
            }
            report.on(Event::Note(format!(
                "{} has kept only its text for other tools; what that does not say is taken as usual, unless a flag says it: {}",
                file.display(),
                pictured::unknown(&text, &wanted)
            )));
            Ok(Said { wanted: *wanted, like: None })
        }
        Pictured::Stranger(_) => Ok(Said { wanted: Wanted::default(), like: None }),
    }
}

fn has_its_parts(flags: &GenerateArgs, is_typed: &dyn Fn(&str) -> bool) -> bool {
    flags.model.parts.parts.keys().all(|part| !is_typed(part)) && !is_typed("part")
}

/// Where and with what the picture was made; with its model, where that makes it again.
fn made_on(json: &Value, is_its_model: bool) -> MadeOn {
    let said = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    MadeOn {
        device: said("device"),
        dtype: said("dtype"),
        model: is_its_model.then(|| json["model"].clone()).filter(|said| said.get("contents").is_some()),
    }
}

/// The model that a text names, where the name is one that can be found: it has a revision. A file's or folder's name does not say
/// where it lies.
fn named_model(text: &Parameters, file: &Path) -> Result<String> {
    let name = text.get(MODEL_ENTRY);
    if let Some(name) = name.filter(|name| name.contains('@')) {
        return Ok(name.to_owned());
    }
    let what = match name {
        Some(name) => {
            format!("{} was made with a model called {name:?}, and does not say where it lies", file.display())
        }
        None => format!("{} does not say which model it was made with", file.display()),
    };
    Err(Error::request(what, "give it by --model"))
}

fn of_another_program(text: &Parameters, file: &Path) -> Error {
    let model = text.get(MODEL_ENTRY).map(|model| format!(" with the model {model:?}")).unwrap_or_default();
    let what = format!("{} was made by {}{model}: dype cannot make it again", file.display(), pictured::program(text));
    Error::request(what, "`dype info` shows its prompt and settings: give dype those you want for a picture like it")
}

/// What the picture says, with what was typed in its place.
pub(super) fn asked(mut said: Wanted, typed: &Wanted) -> Merged {
    if typed.method.is_some_and(|method| Some(method) != said.method) {
        // The lambdas were those of the other method.
        (said.dype_scale, said.dype_exponent) = (None, None);
    }
    Merged::of(Source::Picture, &said).with(Source::Flag, typed)
}

/// What `--model` calls the model that a file says it was made with.
pub(super) fn named(model: &Value, file: &Path) -> Option<String> {
    let said = |key: &str| model.get(key).and_then(Value::as_str);
    let name = said("model")?;
    Some(match said("revision") {
        Some(revision) => format!("{name}@{revision}"),
        None => from_here(name, file),
    })
}

/// The picture's model, with the parts that were typed in place of its own.
fn model(json: &Value, typed: ModelArgs, file: &Path, is_typed: &dyn Fn(&str) -> bool) -> ModelArgs {
    let Some(model) = named(&json["model"], file) else { return typed };
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
    ModelArgs { variant: if is_typed("variant") { typed.variant } else { variant }, model, parts, search: typed.search }
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
