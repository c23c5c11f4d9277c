//! From `--model` and its companions to files on this disk.

use std::path::{Path, PathBuf};

use super::args::{DEFAULT_MODEL, ModelArgs};
use crate::{
    base::progress::Observer,
    error::{Error, Result},
    hub::{DownloadPlan, FileSet, Hub, HubModel, HubSettings},
    models::demo,
    models::flux1::{FluxConfig, FluxFiles, FluxPart},
    models::parts::kl::VaeConfig,
    models::{self, ModelFiles, ModelPart, ModelRequest},
    sampling::SchedulerConfig,
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
        let request = ModelRequest {
            model,
            name,
            vae: args.vae.clone(),
            text_encoder: args.text_encoder.clone(),
            text_encoder_2: args.text_encoder_2.clone(),
            tokenizer: args.tokenizer.clone(),
            tokenizer_2: args.tokenizer_2.clone(),
            ..ModelRequest::default()
        };
        if request.model.exists() {
            return Ok(Self::Local(Box::new(request)));
        }
        let model: HubModel = args.model.parse()?;
        let hub = Hub::new(HubSettings::from_env());
        let plan = hub.plan(&model, &FluxFiles::without(&replaced(&request)), observer);
        let plan = plan.map_err(|error| or_the_demo(&args.model, error))?;
        Ok(Self::Hub(Box::new(HubSource { hub, request, plan })))
    }

    /// The files of a Hub model and what of them is missing; `None` for a local one.
    pub fn missing(&self) -> Option<&DownloadPlan> {
        match self {
            Self::Local(_) => None,
            Self::Hub(source) => Some(&source.plan),
        }
    }

    /// Opens the model, fetching what is missing.
    ///
    /// # Errors
    /// What fetching and opening may fail with.
    pub fn open(self, observer: &dyn Observer) -> Result<ModelFiles> {
        match self {
            Self::Local(request) => ModelFiles::resolve(&request),
            Self::Hub(source) => {
                let HubSource { hub, request, plan } = *source;
                let name = request.model.display().to_string();
                let folder = hub.fetch(&plan, observer).map_err(|error| or_the_demo(&name, error))?;
                let identity = Some((plan.model.repo(), plan.commit.clone()));
                ModelFiles::resolve(&ModelRequest { model: folder, name: identity, ..request })
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

/// What `dype inspect` needs of a model: two small files.
struct ConfigFiles;

const CONFIG_FILES: [&str; 2] = ["transformer/config.json", "scheduler/scheduler_config.json"];

impl FileSet for ConfigFiles {
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String> {
        let wanted = |path: &&String| CONFIG_FILES.contains(&path.as_str());
        let found: Vec<String> = listing.iter().filter(wanted).cloned().collect();
        if found.len() == CONFIG_FILES.len() {
            Ok(found)
        } else {
            Err(format!("not both of {}", CONFIG_FILES.join(" and ")))
        }
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        CONFIG_FILES.iter().find(|file| !snapshot.join(file).is_file()).map(|file| (*file).to_owned())
    }
}

/// Dimensions and scheduler of the model `name`; of the Hub's models only their two configs are fetched.
///
/// # Errors
/// What finding, fetching and reading may fail with.
pub fn dimensions(name: &str, observer: &dyn Observer) -> Result<(FluxConfig, SchedulerConfig)> {
    if let Some(path) = on_disk(name)? {
        return models::dimensions(&path);
    }
    let hub = Hub::new(HubSettings::from_env());
    let plan = hub.plan(&name.parse()?, &ConfigFiles, observer)?;
    models::dimensions(&hub.fetch(&plan, observer)?)
}

/// The autoencoder of the model `name`, or the one at `vae`; of the Hub's models only that part is fetched.
///
/// # Errors
/// What finding, fetching and opening may fail with.
pub fn autoencoder(name: &str, vae: Option<&Path>, observer: &dyn Observer) -> Result<ModelPart<VaeConfig>> {
    let path = match vae {
        Some(path) => Some(path.to_path_buf()),
        None => on_disk(name)?,
    };
    if let Some(path) = path {
        return models::autoencoder(&path);
    }
    let others: Vec<FluxPart> = FluxPart::ALL.into_iter().filter(|part| *part != FluxPart::Vae).collect();
    let hub = Hub::new(HubSettings::from_env());
    let plan = hub.plan(&name.parse()?, &FluxFiles::without(&others), observer)?;
    models::autoencoder(&hub.fetch(&plan, observer)?)
}

/// Parts that come from elsewhere and need not be fetched.
fn replaced(request: &ModelRequest) -> Vec<FluxPart> {
    let parts = [
        (&request.vae, FluxPart::Vae),
        (&request.text_encoder, FluxPart::TextEncoder),
        (&request.text_encoder_2, FluxPart::TextEncoder2),
        (&request.tokenizer, FluxPart::Tokenizer),
        (&request.tokenizer_2, FluxPart::Tokenizer2),
    ];
    parts.into_iter().filter(|(path, _)| path.is_some()).map(|(_, part)| part).collect()
}
