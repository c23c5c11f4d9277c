//! Where each part of a model is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{Identity, ModelPart, ModelRequest, exists, open};
use crate::{
    base::json::read_json,
    error::{Error, Result},
    models::flux1::FluxConfig,
    models::{flux1::bfl, parts::text_names},
    weights::{SafetensorsStore, TensorSource},
};

/// Pipelines of diffusers whose parts are FLUX.1's.
const FLUX_PIPELINES: [&str; 4] = ["FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxKontextPipeline"];

/// Where the weights of a part are.
pub(super) enum Place {
    /// In a folder with `config.json`.
    Folder(PathBuf),
    /// In a file of its own.
    File(PathBuf),
    /// In the single file that also holds the transformer.
    Inside(Arc<dyn TensorSource>),
}

/// Where every part is.
pub(super) struct Places {
    pub(super) vae: Place,
    pub(super) text_encoder: Place,
    pub(super) text_encoder_2: Place,
    pub(super) tokenizer: PathBuf,
    pub(super) tokenizer_2: PathBuf,
}

/// A part's names.
struct PartName {
    /// Its folder in diffusers layout.
    folder: &'static str,
    flag: &'static str,
    /// Files of either of these sets make it, in its folder.
    files: &'static [&'static [&'static str]],
    /// A file beside a single-file transformer that is this part.
    beside: Option<&'static str>,
}

const TRANSFORMER: PartName =
    PartName { folder: "transformer", flag: "--model", files: &[&["config.json"]], beside: None };
const VAE: PartName =
    PartName { folder: "vae", flag: "--vae", files: &[&["config.json"]], beside: Some("ae.safetensors") };
const TEXT_ENCODER: PartName =
    PartName { folder: "text_encoder", flag: "--text-encoder", files: &[&["config.json"]], beside: None };
const TEXT_ENCODER_2: PartName =
    PartName { folder: "text_encoder_2", flag: "--text-encoder-2", files: &[&["config.json"]], beside: None };
const TOKENIZER: PartName = PartName {
    folder: "tokenizer",
    flag: "--tokenizer",
    files: &[&["tokenizer.json"], &["vocab.json", "merges.txt"]],
    beside: None,
};
const TOKENIZER_2: PartName =
    PartName { folder: "tokenizer_2", flag: "--tokenizer-2", files: &[&["tokenizer.json"]], beside: None };

impl PartName {
    /// Whether `folder` holds this part (or at least says that it does).
    fn is_in(&self, folder: &Path) -> bool {
        self.files.iter().any(|set| set.iter().all(|file| folder.join(file).is_file()))
    }

    /// "vae (looked for vae/config.json or ae.safetensors in DIR)"
    fn missing(&self, roots: &[PathBuf]) -> String {
        let sets = self.files.iter().map(|set| {
            let files: Vec<_> = set.iter().map(|file| format!("{}/{file}", self.folder)).collect();
            files.join(" and ")
        });
        let looked: Vec<_> = sets.chain(self.beside.map(str::to_owned)).collect();
        let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        format!("{} (looked for {} in {})", self.folder, looked.join(" or "), roots.join(" and "))
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
    base: Base,
    /// Folders in diffusers layout to look in, in this order.
    roots: Vec<PathBuf>,
}

impl<'a> Finder<'a> {
    /// Looks at what the model's path is.
    ///
    /// # Errors
    /// [`Error::Model`] when there is nothing, or nothing of FLUX.1.
    pub(super) fn new(request: &'a ModelRequest) -> Result<Self> {
        let path = &request.model;
        exists(path)?;
        let (base, root) = if path.is_dir() {
            check_pipeline(path)?;
            (Base::Folder, path.clone())
        } else {
            let source: Arc<dyn TensorSource> = Arc::new(SafetensorsStore::open(std::slice::from_ref(path))?);
            open::check_is_flux(&source)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            (Base::File(source), parent.unwrap_or(Path::new(".")).to_path_buf())
        };
        if let Some(companion) = &request.companion {
            exists(companion)?;
        }
        let roots = std::iter::once(root).chain(request.companion.clone()).collect();
        Ok(Self { request, base, roots })
    }

    /// The transformer.
    pub(super) fn transformer(&self) -> Result<ModelPart<FluxConfig>> {
        match &self.base {
            Base::Folder => open::transformer_folder(&self.request.model.join(TRANSFORMER.folder)),
            Base::File(source) => open::transformer_file(source),
        }
    }

    /// Where the other parts are.
    ///
    /// # Errors
    /// [`Error::Model`] that names every missing part, what was looked for and the flag that gives it.
    pub(super) fn places(&self) -> Result<Places> {
        let request = self.request;
        let mut missing = Vec::new();
        if matches!(self.base, Base::Folder) && !TRANSFORMER.is_in(&request.model.join(TRANSFORMER.folder)) {
            missing.push(&TRANSFORMER);
        }
        let vae = self.weights(&VAE, &request.vae, |s| bfl::vae(s).is_some(), &mut missing)?;
        let clip = |s| text_names::clip(s).is_some();
        let text_encoder = self.weights(&TEXT_ENCODER, &request.text_encoder, clip, &mut missing)?;
        let t5 = |s| text_names::t5(s).is_some();
        let text_encoder_2 = self.weights(&TEXT_ENCODER_2, &request.text_encoder_2, t5, &mut missing)?;
        let tokenizer = self.tokenizer(&TOKENIZER, &request.tokenizer, &mut missing)?;
        let tokenizer_2 = self.tokenizer(&TOKENIZER_2, &request.tokenizer_2, &mut missing)?;
        match (vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2) {
            (Some(vae), Some(text_encoder), Some(text_encoder_2), Some(tokenizer), Some(tokenizer_2))
                if missing.is_empty() =>
            {
                Ok(Places { vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2 })
            }
            _ => Err(self.lacks(&missing)),
        }
    }

    fn lacks(&self, missing: &[&PartName]) -> Error {
        let parts: Vec<_> = missing.iter().map(|part| part.missing(&self.roots)).collect();
        let flags: Vec<_> = missing.iter().map(|part| part.flag).collect();
        let what = format!("{} lacks {}", self.request.model.display(), parts.join("; "));
        let advice = match self.base {
            Base::Folder => "fetch the model again, or give the missing parts with",
            Base::File(_) => {
                "a single file holds the transformer; put it into a complete model folder, or give the other parts with"
            }
        };
        Error::model(what, format!("{advice} {}", flags.join(", ")))
    }

    /// Where a part with weights is; notes it as missing if nowhere.
    fn weights(
        &self,
        part: &'static PartName,
        given: &Option<PathBuf>,
        is_inside: impl Fn(Arc<dyn TensorSource>) -> bool,
        missing: &mut Vec<&'static PartName>,
    ) -> Result<Option<Place>> {
        if let Some(path) = given {
            return given_weights(part, path).map(Some);
        }
        if let Base::File(source) = &self.base
            && is_inside(Arc::clone(source))
        {
            return Ok(Some(Place::Inside(Arc::clone(source))));
        }
        for root in &self.roots {
            if part.is_in(&root.join(part.folder)) {
                return Ok(Some(Place::Folder(root.join(part.folder))));
            }
            if let Some(file) = part.beside.map(|file| root.join(file)).filter(|file| file.is_file()) {
                return Ok(Some(Place::File(file)));
            }
        }
        missing.push(part);
        Ok(None)
    }

    /// Where a tokenizer is; notes it as missing if nowhere.
    fn tokenizer(
        &self,
        part: &'static PartName,
        given: &Option<PathBuf>,
        missing: &mut Vec<&'static PartName>,
    ) -> Result<Option<PathBuf>> {
        if let Some(path) = given {
            return given_tokenizer(part, path).map(Some);
        }
        let found = self.roots.iter().map(|root| root.join(part.folder)).find(|folder| part.is_in(folder));
        if found.is_none() {
            missing.push(part);
        }
        Ok(found)
    }

    /// The scheduler's config, where there is one.
    pub(super) fn scheduler(&self) -> Option<PathBuf> {
        let configs = self.roots.iter().map(|root| root.join("scheduler/scheduler_config.json"));
        configs.into_iter().find(|config| config.is_file())
    }

    /// Which model it is.
    pub(super) fn identity(&self) -> Identity {
        let request = self.request;
        let given = [
            (VAE.folder, &request.vae),
            (TEXT_ENCODER.folder, &request.text_encoder),
            (TEXT_ENCODER_2.folder, &request.text_encoder_2),
            (TOKENIZER.folder, &request.tokenizer),
            (TOKENIZER_2.folder, &request.tokenizer_2),
        ];
        let parts = given.into_iter().filter_map(|(part, path)| Some((part, path.as_ref()?.display().to_string())));
        let (model, revision) = match &request.name {
            Some((id, revision)) => (id.clone(), Some(revision.clone())),
            None => (request.model.display().to_string(), None),
        };
        let layout = if matches!(self.base, Base::Folder) { "diffusers" } else { "single-file" };
        Identity { model, revision, layout, parts: parts.collect::<BTreeMap<_, _>>() }
    }
}

/// What a flag gave is there. Parts do not come from the Hub, so no advice about it.
fn given_exists(part: &PartName, path: &Path) -> Result<()> {
    if matches!(path.try_exists(), Ok(false)) {
        let what = format!("{}: there is no file or folder {}", part.flag, path.display());
        return Err(Error::model(what, "check the path"));
    }
    exists(path)
}

/// Where the autoencoder is that `path` names: a file, its folder, or a whole model's folder.
pub(super) fn autoencoder(path: &Path) -> Result<Place> {
    given_weights(&VAE, path)
}

/// Where the weights are that a flag gave: a file, a part's folder, or a whole model's folder.
fn given_weights(part: &PartName, path: &Path) -> Result<Place> {
    given_exists(part, path)?;
    if path.is_file() {
        return Ok(Place::File(path.to_path_buf()));
    }
    if let Some(folder) = part_folder(part, path) {
        return Ok(Place::Folder(folder));
    }
    if let Some(file) = part.beside.map(|file| path.join(file)).filter(|file| file.is_file()) {
        return Ok(Place::File(file));
    }
    let what = format!("{} {} is a folder without config.json", part.flag, path.display());
    Err(Error::model(what, "give the .safetensors file itself, or a folder in diffusers layout"))
}

/// Where the tokenizer is that a flag gave.
fn given_tokenizer(part: &PartName, path: &Path) -> Result<PathBuf> {
    given_exists(part, path)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let sets = || part.files.iter().copied();
    if path.is_file() {
        let known = sets().flatten().any(|file| *file == name);
        // Of a tokenizer in two files either may be given; the folder stands for both.
        if !known || sets().any(|set| set == [name]) {
            return Ok(path.to_path_buf());
        }
    }
    let folder = if path.is_file() { path.parent().unwrap_or(Path::new(".")) } else { path };
    part_folder(part, folder).ok_or_else(|| {
        let sets: Vec<_> = sets().map(|set| set.join(" and ")).collect();
        let what = format!("{} {} holds no tokenizer (looked for {})", part.flag, path.display(), sets.join(" or "));
        Error::model(what, "give a tokenizer.json or the folder of a tokenizer in the format of transformers")
    })
}

/// The part's folder: this one, or the one of its name in it.
fn part_folder(part: &PartName, folder: &Path) -> Option<PathBuf> {
    [folder.to_path_buf(), folder.join(part.folder)].into_iter().find(|folder| part.is_in(folder))
}

/// The folder holds a FLUX.1 model in diffusers layout.
fn check_pipeline(folder: &Path) -> Result<()> {
    let index = folder.join("model_index.json");
    if index.is_file() {
        let class = read_json::<Value>(&index)?.get("_class_name").and_then(Value::as_str).map(str::to_owned);
        let Some(class) = class.filter(|class| !FLUX_PIPELINES.contains(&class.as_str())) else { return Ok(()) };
        let what = format!("{}: this is a {class} model, not FLUX.1", folder.display());
        return Err(Error::model(what, "give a FLUX.1 model, for example black-forest-labs/FLUX.1-Krea-dev"));
    }
    if folder.join("transformer").is_dir() {
        return Ok(());
    }
    let looked = "looked for model_index.json and transformer/";
    let what = format!("{} holds no model in diffusers layout ({looked})", folder.display());
    let files = std::fs::read_dir(folder).map_err(|e| Error::disk("cannot read", folder, e))?;
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.sort();
    let single = files.iter().find(|path| path.extension().is_some_and(|e| e == "safetensors") && !is_vae(path));
    Err(Error::model(
        what,
        match single {
            Some(file) => format!("if the model is a single file, give the file: --model {}", file.display()),
            None => "give the folder that holds model_index.json, or a single .safetensors file".into(),
        },
    ))
}

fn is_vae(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "ae.safetensors")
}
