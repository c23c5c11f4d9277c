//! From `--model` and its parts to files on this disk.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::args::{DEFAULT_MODEL, ModelArgs};
use crate::{
    base::progress::Observer,
    error::{Error, Result},
    hub::{DownloadPlan, Hub, HubModel, HubSettings},
    models::{
        Decode, Facts, ForwardOptions, Model, ModelRequest, On, PartKind, PartSpec, Reading, Registry, RepositoryFiles,
        demo,
    },
    nn::WeightsMode,
    weights::Files,
};

/// Where the model comes from.
pub enum ModelSource {
    /// A folder or file on this disk, which the model inside this program becomes as well.
    Local(Box<ModelRequest>),
    /// The Hub, or its cache on this disk.
    Hub(Box<HubSource>),
}

/// A model of the Hub, with what is still missing on this disk.
pub struct HubSource {
    hub: Hub,
    request: ModelRequest,
    /// Files, sizes, and what must be fetched.
    pub plan: DownloadPlan,
}

impl ModelSource {
    /// Decides what `--model` names; asks the Hub for sizes, fetches nothing.
    ///
    /// # Errors
    /// [`crate::Error::Request`] for what names neither a path nor a Hub id, [`crate::Error::Network`] when the Hub does not answer.
    pub fn find(args: &ModelArgs, observer: &dyn Observer) -> Result<Self> {
        let named = demo_folder(&args.model)?;
        let (model, name) = match named {
            Some(folder) => (folder, Some((demo::NAME.to_owned(), demo::revision().to_owned()))),
            None => (args.model.clone().into(), None),
        };
        let files = Files::default().in_variant(args.variant.clone());
        let request = ModelRequest { model, name, parts: args.parts.parts.clone(), files };
        if request.model.exists() {
            return Ok(Self::Local(Box::new(request)));
        }
        let model: HubModel = args.model.parse()?;
        let hub = Hub::new(HubSettings::from_env()?);
        // Parts that come from elsewhere need not be fetched.
        let elsewhere = |part: &PartSpec| request.parts.contains_key(part.name);
        let files = RepositoryFiles::without(Registry::default().families(), elsewhere);
        let files = files.in_variant(args.variant.clone());
        let plan = hub.plan(&model, &files, observer).map_err(|error| or_the_demo(&args.model, error))?;
        Ok(Self::Hub(Box::new(HubSource { hub, request, plan })))
    }

    /// What must be fetched of a model of the Hub; `None` where all of it is here.
    pub fn missing(&self) -> Option<&DownloadPlan> {
        match self {
            Self::Local(_) => None,
            Self::Hub(source) => Some(&source.plan).filter(|plan| plan.bytes_to_fetch > 0),
        }
    }

    /// The model as its configs and the headers of its weights describe it, whatever of it is here: enough to plan a run, or to
    /// refuse one before anything is fetched.
    ///
    /// # Errors
    /// What asking the Hub and opening may fail with.
    pub fn look(&self, observer: &dyn Observer) -> Result<Box<dyn Model>> {
        match self {
            Self::Local(request) => Registry::default().open(request),
            Self::Hub(source) => {
                let HubSource { hub, request, plan } = &**source;
                let name = request.model.display().to_string();
                let files = hub.peek(plan, observer).map_err(|error| or_the_demo(&name, error))?;
                let files = files.in_variant(request.files.variant().map(str::to_owned));
                let identity = Some((plan.model.repo(), plan.commit.clone()));
                let model = plan.snapshot.clone();
                Registry::default().open(&ModelRequest { model, name: identity, files, ..request.clone() })
            }
        }
    }

    /// Fetches all that is small and reads the tokenizers, so that a broken one is told of before gigabytes are fetched; `looked`
    /// is what [`ModelSource::look`] saw.
    ///
    /// # Errors
    /// What fetching may fail with, and what [`Model::text`] says of the tokenizers.
    pub fn check_text(&self, looked: &dyn Model, observer: &dyn Observer) -> Result<()> {
        let Self::Hub(source) = self else { return Ok(()) };
        source.plan.check_disk()?;
        source.hub.fetch(&source.plan.without_weights(), observer)?;
        looked.text(&On { device: Device::Cpu, dtype: DType::F32 }).map(drop)
    }

    /// Opens the model, fetching what is missing.
    ///
    /// # Errors
    /// What fetching and opening may fail with.
    pub fn open(self, observer: &dyn Observer) -> Result<Box<dyn Model>> {
        match self {
            Self::Local(request) => Registry::default().open(&request),
            Self::Hub(source) => {
                let HubSource { hub, request, plan } = *source;
                let name = request.model.display().to_string();
                let folder = hub.fetch(&plan, observer).map_err(|error| or_the_demo(&name, error))?;
                let identity = Some((plan.model.repo(), plan.commit.clone()));
                Registry::default().open(&ModelRequest { model: folder, name: identity, ..request })
            }
        }
    }
}

/// The folder of the model inside this program, when `model` names it. The name wins over a folder `demo` of the user's,
/// which is `./demo`: what the README says works in any folder.
fn demo_folder(model: &str) -> Result<Option<PathBuf>> {
    demo::is_named_by(model)?.then(demo::folder).transpose()
}

/// What is on this disk under that name: the model inside this program, or a path.
fn on_disk(model: &str) -> Result<Option<PathBuf>> {
    Ok(demo_folder(model)?.or_else(|| Path::new(model).exists().then(|| model.into())))
}

/// When the default model cannot be had, there is one that needs no network.
fn or_the_demo(model: &str, error: Error) -> Error {
    match error {
        Error::Network { what, hint } if demo::is_built_in() && model == DEFAULT_MODEL => {
            let demo = "try the model inside this program meanwhile: --model demo --width 1024 --height 1024";
            Error::Network { what, hint: if hint.is_empty() { demo.into() } else { format!("{hint}; or {demo}") } }
        }
        other => other,
    }
}

/// The folder of some files of the model `name`: its own where it is on this disk, else with what the Hub has of them.
fn folder_with(name: &str, files: &RepositoryFiles, observer: &dyn Observer) -> Result<PathBuf> {
    if let Some(path) = on_disk(name)? {
        return Ok(path);
    }
    let hub = Hub::new(HubSettings::from_env()?);
    hub.fetch(&hub.plan(&name.parse()?, files, observer)?, observer)
}

/// What the model `name` says about itself; of the Hub's models only two configs are fetched.
///
/// # Errors
/// What finding, fetching and reading may fail with.
pub fn facts(name: &str, observer: &dyn Observer) -> Result<Facts> {
    let registry = Registry::default();
    let folder = folder_with(name, &RepositoryFiles::dimensions(registry.families()), observer)?;
    registry.facts(&ModelRequest::new(folder))
}

/// What each text encoder of the model `name` reads of a prompt; of the Hub's models only tokenizers and two configs are
/// fetched.
///
/// # Errors
/// What finding, fetching and reading may fail with.
pub fn tokens(name: &str, prompt: &str, asked: Option<usize>, observer: &dyn Observer) -> Result<Vec<Reading>> {
    let usual = facts(name, observer)?.recipe.text_tokens;
    let registry = Registry::default();
    let files = RepositoryFiles::only(registry.families(), |part| part.kind == PartKind::Tokenizer);
    let folder = folder_with(name, &files, observer)?;
    registry.tokens(&ModelRequest::new(folder), prompt, asked, usual)
}

/// How the model `name` reads a token as one number ([`crate::models::Velocity::token_reading`]). Its weights must be on this disk: nothing large
/// is fetched to look at latents.
///
/// # Errors
/// [`Error::Model`] when its weights are not here; what finding and opening may fail with.
pub fn token_reading(name: &str, observer: &dyn Observer) -> Result<Vec<f64>> {
    let registry = Registry::default();
    let folder = match on_disk(name)? {
        Some(path) => path,
        None => {
            let hub = Hub::new(HubSettings::from_env()?);
            let plan = hub.plan(&name.parse()?, &RepositoryFiles::without(registry.families(), |_| false), observer)?;
            if plan.bytes_to_fetch > 0 {
                let what = format!("{name}: its weights are not on this disk, and latents are read through them");
                return Err(Error::model(
                    what,
                    "make a picture with it first, or give a model that is here with --model",
                ));
            }
            hub.fetch(&plan, observer)?
        }
    };
    let on = On { device: Device::Cpu, dtype: DType::F32 };
    let model = registry.open(&ModelRequest::new(folder))?;
    model.velocity(&on, WeightsMode::Stream, ForwardOptions::default())?.token_reading(&on.device)
}

/// The autoencoder of the model `name`, or the one at `vae`; of the Hub's models only that part is fetched.
///
/// # Errors
/// What finding, fetching and opening may fail with.
pub fn autoencoder(name: &str, vae: Option<&Path>, observer: &dyn Observer) -> Result<Box<dyn Decode>> {
    let registry = Registry::default();
    let files = RepositoryFiles::only(registry.families(), |part| part.name == "vae");
    match vae {
        Some(path) => registry.autoencoder(path),
        None => registry.autoencoder(&folder_with(name, &files, observer)?),
    }
}
