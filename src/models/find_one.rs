//! Where one part of a model is, for which the others need not be there.

use std::{path::Path, sync::Arc};

use serde_json::Value;

use super::{
    Decode, Family, Found, ModelRequest, PartKind, PartSpec, Place, Seen,
    find::Finder,
    given::given,
    repository::PIPELINE_INDEX,
    whose::{family_of_folder, first, surest},
};
use crate::{
    error::{Error, Result},
    weights::TensorSource,
};

/// What every family calls its autoencoder, as diffusers does.
pub const AUTOENCODER: &str = "vae";

/// A part of a family's models, and where it is.
pub(super) type FoundPart = (&'static dyn Family, Found, &'static PartSpec);

/// Where a part is that `request` names: the model that holds it, of which it is the transformer where no `name` says otherwise, or its
/// own file, which may be the same part of several families.
///
/// # Errors
/// [`Error::Model`] when there is none; [`Error::Request`] for a part that the model's family has not.
pub(super) fn part(
    request: &ModelRequest,
    name: Option<&str>,
    families: &[&'static dyn Family],
) -> Result<Vec<FoundPart>> {
    let finder = match Finder::new(request, families) {
        Ok(finder) => finder,
        Err(error) => return Some(own_file(request, name, families)).filter(|found| !found.is_empty()).ok_or(error),
    };
    let family = finder.family();
    let is_wanted = |part: &&PartSpec| name.map_or(part.kind == PartKind::Denoiser, |name| part.name == name);
    let Some(part) = family.parts().iter().find(is_wanted) else {
        let is_one = |part: &&PartSpec| part.has_weights() && part.name != AUTOENCODER;
        let names: Vec<_> = family.parts().iter().filter(is_one).map(|part| part.name).collect();
        let what = format!("--part {}: a {} model has no such part", name.unwrap_or_default(), family.name());
        return Err(Error::request(what, format!("what is converted of it are {}", names.join(", "))));
    };
    let found = finder.found(|other| other.name == part.name).map_err(|error| by_itself(error, part))?;
    Ok(vec![(family, found, part)])
}

/// Who looks for one part alone gives it in the model's place, and by no flag.
fn by_itself(error: Error, part: &PartSpec) -> Error {
    match error {
        Error::Model { what, hint } if hint.contains(&part.flag()) => {
            let hint =
                format!("fetch the model again, or give the file of its {} itself in place of the model", part.name);
            Error::model(what, hint)
        }
        other => other,
    }
}

/// A file that holds a network which is no transformer.
fn own_file(request: &ModelRequest, name: Option<&str>, families: &[&'static dyn Family]) -> Vec<FoundPart> {
    let Ok(store) = request.files.open(std::slice::from_ref(&request.model)) else { return Vec::new() };
    let source: Arc<dyn TensorSource> = Arc::new(store);
    let all = families.iter().flat_map(|family| family.parts().iter().map(move |part| (*family, part)));
    let is_it = |part: &PartSpec| {
        part.kind == PartKind::Network && name.is_none_or(|name| part.name == name) && (part.is_inside)(&source)
    };
    let place = || Place::from(request.model.clone());
    all.filter(|(_, part)| is_it(part))
        .map(|(family, part)| (family, Found::alone(request, part, place()), part))
        .collect()
}

/// Opens the autoencoder that `request` names: its file or folder, or a model's that holds it. Whose it is, it says itself.
///
/// # Errors
/// [`Error::Model`] when there is none.
pub(super) fn autoencoder(request: &ModelRequest, families: &[&'static dyn Family]) -> Result<Box<dyn Decode>> {
    let (path, files) = (&request.model, &request.files);
    if files.is_file(path) {
        let source: Arc<dyn TensorSource> = Arc::new(files.open(std::slice::from_ref(path))?);
        let seen = Seen { tensors: Some(Arc::clone(&source)), ..Seen::default() };
        // A transformer's file leads to its autoencoder.
        if surest(&seen, families).is_some() {
            let finder = Finder::new(request, families)?;
            return finder.family().autoencoder(&finder.found(|part| part.name == AUTOENCODER)?);
        }
        return bare_autoencoder(request, families, |part| (part.is_inside)(&source));
    }
    if files.is_file(&path.join(PIPELINE_INDEX)) {
        return bare_autoencoder(request, &[family_of_folder(path, files, families)?], |_| true);
    }
    let class = |folder: &Path| {
        let config: Value = files.read_json(&folder.join("config.json")).ok()?;
        Some(config.get("_class_name")?.as_str()?.to_owned())
    };
    let class = class(path).or_else(|| class(&path.join(AUTOENCODER)));
    let is_said = |part: &PartSpec| class.is_none() || part.class.is_none() || class.as_deref() == part.class;
    bare_autoencoder(request, families, is_said)
}

/// The same without a transformer, of the first family that can open it among those whose part `may_be` it; of the usual one where
/// it may be nobody's.
fn bare_autoencoder(
    request: &ModelRequest,
    families: &[&'static dyn Family],
    may_be: impl Fn(&PartSpec) -> bool,
) -> Result<Box<dyn Decode>> {
    let part = |family: &dyn Family| family.parts().iter().find(|part| part.name == AUTOENCODER);
    let is_candidate = |family: &&&'static dyn Family| part(**family).is_some_and(&may_be);
    let mut candidates: Vec<_> = families.iter().filter(is_candidate).copied().collect();
    if candidates.is_empty() {
        candidates.push(first(families)?);
    }
    let open = |family: &'static dyn Family| {
        let none = || Error::model(format!("{} models have no autoencoder", family.name()), "");
        let part = part(family).ok_or_else(none)?;
        family.autoencoder(&Found::alone(request, part, given(part, &request.model)?))
    };
    let mut refused: Vec<Error> = Vec::new();
    for family in candidates {
        match open(family) {
            Ok(autoencoder) => return Ok(autoencoder),
            Err(error) => refused.push(error),
        }
    }
    Err(all_of(refused))
}

/// One error that says what several do, each once.
fn all_of(errors: Vec<Error>) -> Error {
    let mut said: Vec<String> = Vec::new();
    for error in &errors {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push(text);
        }
    }
    match (errors.into_iter().next(), said.len()) {
        (Some(Error::Model { hint, .. }), 2..) => Error::Model { what: said.join("; or "), hint },
        (Some(first), _) => first,
        (None, _) => Error::model("no kind of model is known", ""),
    }
}
