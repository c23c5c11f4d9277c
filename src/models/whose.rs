//! Which family's model a file or folder is, by what it holds.

use std::{path::Path, sync::Arc};

use serde_json::Value;

use super::{
    Family, PartKind, Seen,
    repository::PIPELINE_INDEX,
    strangers::{derived_from_a_model, looks_like, prefix_of_flux},
};
use crate::{
    error::{Error, Result},
    weights::{Files, TensorSource, has_weights_ending},
};

/// The usual family.
pub(super) fn first(families: &[&'static dyn Family]) -> Result<&'static dyn Family> {
    families.first().copied().ok_or_else(|| Error::model("no kind of model is known", ""))
}

/// The family that is surest of a model; the first of them where several are equally sure.
pub(super) fn surest(seen: &Seen, families: &[&'static dyn Family]) -> Option<&'static dyn Family> {
    let sure = families.iter().filter_map(|family| Some((family.recognise(seen)?, *family)));
    sure.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, family)| family)
}

/// "FLUX.1", or all their names.
fn names_of(families: &[&'static dyn Family]) -> String {
    families.iter().map(|family| family.name()).collect::<Vec<_>>().join(" or ")
}

/// Whose single file it is.
pub(super) fn family_of_file(
    source: &Arc<dyn TensorSource>,
    families: &[&'static dyn Family],
) -> Result<&'static dyn Family> {
    let seen = Seen { tensors: Some(Arc::clone(source)), ..Seen::default() };
    surest(&seen, families).map_or_else(|| Err(no_transformer(&**source, families)), Ok)
}

fn no_transformer(source: &dyn TensorSource, families: &[&'static dyn Family]) -> Error {
    let names = names_of(families);
    if let Some(prefix) = prefix_of_flux(source).filter(|_| derived_from_a_model(source).is_none()) {
        let what = format!("{}: the names of its tensors begin with {prefix}, which is not known", source.describe());
        return Error::model(what, "save it with plain names, or with the prefix \"model.diffusion_model.\" once");
    }
    let what = format!("{} is not a {names} transformer: {}", source.describe(), looks_like(source));
    let example = first(families).map_or("", |family| family.examples().file);
    Error::model(what, format!("give a {names} transformer, for example {example}, or a {names} model folder"))
}

/// Whose model in diffusers layout the folder holds.
pub(super) fn family_of_folder(
    folder: &Path,
    files: &Files,
    families: &[&'static dyn Family],
) -> Result<&'static dyn Family> {
    let index = folder.join(PIPELINE_INDEX);
    let denoisers = || families.iter().flat_map(|family| family.parts()).filter(|p| p.kind == PartKind::Denoiser);
    if !files.is_file(&index) && !denoisers().any(|part| files.is_dir(&folder.join(part.name))) {
        return Err(no_model_in(folder, families));
    }
    let pipeline = if files.is_file(&index) {
        files.read_json::<Value>(&index)?.get("_class_name").and_then(Value::as_str).map(str::to_owned)
    } else {
        None
    };
    let config = denoisers().map(|part| folder.join(part.name).join("config.json")).find(|path| files.is_file(path));
    // A config that cannot be read is told of by who needs it.
    let config = config.and_then(|path| files.read_json(&path).ok());
    let seen = Seen { pipeline, config, tensors: None };
    surest(&seen, families).ok_or_else(|| {
        let class = seen.pipeline.as_deref().or(seen.class()).unwrap_or("unknown");
        let names = names_of(families);
        let what = format!("{}: this is a {class} model, not {names}", folder.display());
        let example = first(families).map_or("", |family| family.examples().hub);
        Error::model(what, format!("give a {names} model, for example {example}"))
    })
}

fn no_model_in(folder: &Path, families: &[&'static dyn Family]) -> Error {
    let parts = || families.iter().flat_map(|family| family.parts());
    let mut looked = vec![PIPELINE_INDEX.to_owned()];
    for part in parts().filter(|part| part.kind == PartKind::Denoiser) {
        let name = format!("{}/", part.name);
        if !looked.contains(&name) {
            looked.push(name);
        }
    }
    let what = format!("{} holds no model in diffusers layout (looked for {})", folder.display(), looked.join(" and "));
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(e) => return Error::disk("cannot read", folder, e),
    };
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.sort();
    let is_part =
        |path: &Path| path.file_name().is_some_and(|name| parts().any(|p| p.is_beside(&name.to_string_lossy())));
    let is_single = |path: &Path| has_weights_ending(&path.to_string_lossy()) && !is_part(path);
    let single = files.iter().find(|path| is_single(path));
    let hint = match single {
        Some(file) => format!("if the model is a single file, give the file: --model {}", file.display()),
        None => "give the folder that holds model_index.json, or a single .safetensors file".into(),
    };
    Error::model(what, hint)
}
