//! Where each part of a model is, and which family's model it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{
    Contents, Family, Identity, ModelRequest, PartKind, PartSpec, Seen, contents,
    part::has_weights_ending,
    repository::PIPELINE_INDEX,
    strangers::{derived_from_a_model, looks_like, prefix_of_flux},
};
use crate::{
    base::paths,
    error::{Error, Result},
    weights::{Files, TensorSource},
};

/// Where a part is.
#[derive(Clone)]
pub enum Place {
    /// In a folder of its own.
    Folder(PathBuf),
    /// In a file of its own.
    File(PathBuf),
    /// In the single file that also holds the transformer.
    Inside(Arc<dyn TensorSource>),
}

/// Where the parts of a model are that were looked for.
#[derive(Clone)]
pub struct Found {
    /// Which model it is.
    pub identity: Identity,
    /// The files they are among.
    pub files: Files,
    places: BTreeMap<&'static str, Place>,
}

impl Found {
    /// Where a part is.
    ///
    /// # Errors
    /// [`Error::Model`] when it was not looked for: a bug of the caller.
    pub fn place(&self, part: &str) -> Result<&Place> {
        self.places.get(part).ok_or_else(|| Error::model(format!("no part {part}"), "please report this"))
    }

    /// What the parts hold, as [`super::Model::contents`] tells it.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Model`] when a file cannot be read, or is not here yet.
    pub fn contents(&self, parts: &[PartSpec]) -> Result<Contents> {
        contents::of(self, parts)
    }

    /// Whether a flag gave this part: it is meant, whatever lies beside it.
    pub fn is_given(&self, part: &str) -> bool {
        self.identity.parts.contains_key(part)
    }

    /// Where a part is that a model may lack.
    pub fn optional(&self, part: &str) -> Option<&Place> {
        self.places.get(part)
    }

    /// The file or folder of a part that is no network.
    ///
    /// # Errors
    /// As [`Found::place`].
    pub fn path(&self, part: &str) -> Result<PathBuf> {
        match self.place(part)? {
            Place::Folder(path) | Place::File(path) => Ok(path.clone()),
            Place::Inside(_) => Err(Error::model(format!("{part} has no file of its own"), "please report this")),
        }
    }
}

/// What the model's path is.
enum Base {
    /// A folder in diffusers layout.
    Folder,
    /// A single file.
    File(Arc<dyn TensorSource>),
}

/// Finds parts.
pub(super) struct Finder<'a> {
    request: &'a ModelRequest,
    family: &'static dyn Family,
    base: Base,
    /// The folder in diffusers layout to look in.
    root: PathBuf,
}

impl<'a> Finder<'a> {
    /// Looks at what the model's path is, and whose model.
    ///
    /// # Errors
    /// [`Error::Model`] when there is nothing, or nothing of any of the families; [`Error::Request`] for a part that the
    /// family's models do not have.
    pub(super) fn new(request: &'a ModelRequest, families: &[&'static dyn Family]) -> Result<Self> {
        let path = &request.model;
        if !request.files.is_dir(path) && !request.files.is_file(path) {
            exists(path)?;
        }
        let (family, base, root) = if request.files.is_dir(path) {
            (family_of_folder(path, &request.files, families)?, Base::Folder, path.clone())
        } else {
            let source: Arc<dyn TensorSource> = Arc::new(request.files.open(std::slice::from_ref(path))?);
            let family = family_of_file(&source, families)?;
            (family, Base::File(source), paths::parent(path).to_path_buf())
        };
        let finder = Self { request, family, base, root };
        finder.check_names()?;
        Ok(finder)
    }

    /// Whose model it is.
    pub(super) fn family(&self) -> &'static dyn Family {
        self.family
    }

    /// Every part that was given is one of this family's.
    fn check_names(&self) -> Result<()> {
        let names: Vec<_> = self.family.parts().iter().map(|part| part.name).collect();
        match self.request.parts.keys().find(|given| !names.contains(&given.as_str())) {
            None => Ok(()),
            Some(odd) => {
                let what = format!("--part {odd}: a {} model has no such part", self.family.name());
                Err(Error::request(what, format!("its parts are {}", names.join(", "))))
            }
        }
    }

    /// Where the parts are that `wanted` takes.
    ///
    /// # Errors
    /// [`Error::Model`] that names every missing part, what was looked for and the flag that gives it.
    pub(super) fn found(self, wanted: impl Fn(&PartSpec) -> bool) -> Result<Found> {
        let (mut places, mut missing) = (BTreeMap::new(), Vec::new());
        for part in self.family.parts().iter().filter(|part| wanted(part)) {
            match self.place(part)? {
                Some(place) => {
                    places.insert(part.name, place);
                }
                None if part.kind == PartKind::Scheduler => {}
                None => missing.push(part),
            }
        }
        if !missing.is_empty() {
            return Err(self.lacks(&missing));
        }
        let identity = Identity { variants: self.variants(&places)?, ..self.identity() };
        Ok(Found { identity, files: self.request.files.clone(), places })
    }

    /// The parts whose weights are none of the plain ones.
    fn variants(&self, places: &BTreeMap<&'static str, Place>) -> Result<BTreeMap<&'static str, String>> {
        let files = &self.request.files;
        let mut found = BTreeMap::new();
        for part in self.family.parts().iter().filter(|part| part.has_weights()) {
            let Some(Place::Folder(folder)) = places.get(part.name) else { continue };
            if let Some(variant) = files.stored(folder)?.and_then(|stored| stored.variant) {
                found.insert(part.name, variant);
            }
        }
        match files.variant() {
            Some(wanted) if !found.values().any(|variant| variant == wanted) => {
                let what = format!("{} has no weights in the variant {wanted}", self.request.model.display());
                Err(Error::model(what, "leave out --variant, or check its name: fp16 for model.fp16.safetensors"))
            }
            _ => Ok(found),
        }
    }

    fn lacks(&self, missing: &[&PartSpec]) -> Error {
        let parts: Vec<_> = missing.iter().map(|part| part.missing_from(&self.root)).collect();
        let flags: Vec<_> = missing.iter().map(|part| part.flag()).collect();
        let what = format!("{} lacks {}", self.request.model.display(), parts.join("; "));
        let advice = match self.base {
            Base::Folder => "fetch the model again, or give the missing parts with",
            Base::File(_) => {
                "a single file holds the transformer; put it into a complete model folder, or give the other parts with"
            }
        };
        Error::model(what, format!("{advice} {}", flags.join(", ")))
    }

    /// Where a part is; `None` if nowhere.
    fn place(&self, part: &'static PartSpec) -> Result<Option<Place>> {
        if let Some(path) = self.request.parts.get(part.name) {
            return given(part, path).map(Some);
        }
        if let Base::File(source) = &self.base {
            if part.kind == PartKind::Denoiser {
                return Ok(Some(Place::File(self.request.model.clone())));
            }
            if (part.is_inside)(source) {
                return Ok(Some(Place::Inside(Arc::clone(source))));
            }
        }
        let (folder, files) = (self.root.join(part.name), &self.request.files);
        if part.is_in(&folder, files) {
            return Ok(Some(Place::Folder(folder)));
        }
        Ok(part.file_in(&self.root, files)?.map(Place::File))
    }

    /// Which model it is.
    fn identity(&self) -> Identity {
        let request = self.request;
        let given = |part: &PartSpec| Some((part.name, request.parts.get(part.name)?.display().to_string()));
        let (model, revision) = match &request.name {
            Some((id, revision)) => (id.clone(), Some(revision.clone())),
            None => (request.model.display().to_string(), None),
        };
        let layout = if matches!(self.base, Base::Folder) { "diffusers" } else { "single-file" };
        let parts = self.family.parts().iter().filter_map(given).collect();
        Identity { model, revision, layout, parts, variants: BTreeMap::new() }
    }
}

/// Where an autoencoder is that `path` names: its file or folder, or a model's that holds it. A model's folder says whose it
/// is; anything else is taken for the first family's.
///
/// # Errors
/// [`Error::Model`] when there is none.
pub(super) fn autoencoder(path: &Path, families: &[&'static dyn Family]) -> Result<(&'static dyn Family, Found)> {
    let files = Files::default();
    let is_model = path.join(PIPELINE_INDEX).is_file();
    let family = if is_model { family_of_folder(path, &files, families)? } else { first(families)? };
    let Some(part) = family.parts().iter().find(|part| part.name == AUTOENCODER) else {
        return Err(Error::model(format!("{} models have no autoencoder", family.name()), ""));
    };
    let places = BTreeMap::from([(part.name, given(part, path)?)]);
    let model = path.display().to_string();
    let (parts, variants) = (BTreeMap::new(), BTreeMap::new());
    let identity = Identity { model, revision: None, layout: "diffusers", parts, variants };
    Ok((family, Found { identity, files, places }))
}

/// What every family calls its autoencoder, as diffusers does.
pub(super) const AUTOENCODER: &str = "vae";

fn first(families: &[&'static dyn Family]) -> Result<&'static dyn Family> {
    families.first().copied().ok_or_else(|| Error::model("no kind of model is known", ""))
}

fn exists(path: &Path) -> Result<()> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let hint = "check the path; a model of the Hub is written owner/name";
            Err(Error::model(format!("there is no file or folder {}", path.display()), hint))
        }
        Err(e) => Err(Error::disk("cannot look at", path, e)),
    }
}

/// What a flag gave is there. Parts do not come from the Hub, so no advice about it.
fn given_exists(part: &PartSpec, path: &Path) -> Result<()> {
    if matches!(path.try_exists(), Ok(false)) {
        let what = format!("{}: there is no file or folder {}", part.flag(), path.display());
        return Err(Error::model(what, "check the path"));
    }
    exists(path)
}

/// Where a part is that a flag gave: a file, a part's folder, or a whole model's folder.
fn given(part: &PartSpec, path: &Path) -> Result<Place> {
    given_exists(part, path)?;
    if part.kind == PartKind::Tokenizer {
        return given_tokenizer(part, path);
    }
    if path.is_file() {
        return Ok(Place::File(path.to_path_buf()));
    }
    let files = Files::default();
    let folder = part_folder(part, path);
    // A config may lie among files with names of their own.
    if let Some(folder) = folder.as_ref().filter(|folder| !matches!(files.stored(folder), Ok(None))) {
        return Ok(Place::Folder(folder.clone()));
    }
    let file = part.file_in(path, &files)?;
    if let Some(file) = file.map_or_else(|| part.file_by_contents(path, &files), |file| Ok(Some(file)))? {
        return Ok(Place::File(file));
    }
    if let Some(folder) = folder {
        return Ok(Place::Folder(folder));
    }
    let lacking = part.files.first().and_then(|set| set.first()).copied().unwrap_or("config.json");
    let what = format!("{} {} is a folder without {lacking}", part.flag(), path.display());
    Err(Error::model(what, "give the .safetensors file itself, or a folder in diffusers layout"))
}

/// Where the tokenizer is that a flag gave.
fn given_tokenizer(part: &PartSpec, path: &Path) -> Result<Place> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let sets = || part.files.iter().copied();
    if path.is_file() {
        let known = sets().flatten().any(|file| *file == name);
        // Of a tokenizer in two files either may be given; the folder stands for both.
        if !known || sets().any(|set| set == [name]) {
            return Ok(Place::File(path.to_path_buf()));
        }
    }
    let folder = if path.is_file() { paths::parent(path) } else { path };
    part_folder(part, folder).map(Place::Folder).ok_or_else(|| {
        let sets: Vec<_> = sets().map(|set| set.join(" and ")).collect();
        let what = format!("{} {} holds no tokenizer (looked for {})", part.flag(), path.display(), sets.join(" or "));
        Error::model(what, "give a tokenizer.json or the folder of a tokenizer in the format of transformers")
    })
}

/// The part's folder: this one, or the one of its name in it.
fn part_folder(part: &PartSpec, folder: &Path) -> Option<PathBuf> {
    let files = Files::default();
    [folder.to_path_buf(), folder.join(part.name)].into_iter().find(|folder| part.is_in(folder, &files))
}

/// The family that is surest of a model; the first of them where several are equally sure.
fn surest(seen: &Seen, families: &[&'static dyn Family]) -> Option<&'static dyn Family> {
    let sure = families.iter().filter_map(|family| Some((family.recognise(seen)?, *family)));
    sure.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, family)| family)
}

/// "FLUX.1", or all their names.
fn names_of(families: &[&'static dyn Family]) -> String {
    families.iter().map(|family| family.name()).collect::<Vec<_>>().join(" or ")
}

/// Whose single file it is.
fn family_of_file(source: &Arc<dyn TensorSource>, families: &[&'static dyn Family]) -> Result<&'static dyn Family> {
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
fn family_of_folder(folder: &Path, files: &Files, families: &[&'static dyn Family]) -> Result<&'static dyn Family> {
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
