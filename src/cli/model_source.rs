//! From `--model` and its companions to files on this disk.

use std::path::Path;

use super::args::ModelArgs;
use crate::{
    error::Result,
    flux::FluxConfig,
    model::{self, ModelFiles, ModelRequest},
    progress::Observer,
    sampling::SchedulerConfig,
    weights::hub::{DownloadPlan, FileSet, FluxFiles, FluxPart, Hub, HubModel, HubSettings},
};

/// Where the model comes from.
pub enum ModelSource {
    /// A folder or file on this disk.
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
        let request = ModelRequest {
            model: args.model.clone().into(),
            vae: args.vae.clone(),
            text_encoder: args.text_encoder.clone(),
            text_encoder_2: args.text_encoder_2.clone(),
            tokenizer: args.tokenizer.clone(),
            tokenizer_2: args.tokenizer_2.clone(),
            ..ModelRequest::default()
        };
        if Path::new(&args.model).exists() {
            return Ok(Self::Local(Box::new(request)));
        }
        let model: HubModel = args.model.parse()?;
        let hub = Hub::new(HubSettings::from_env());
        let plan = hub.plan(&model, &FluxFiles::without(&replaced(&request)), observer)?;
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
                let folder = hub.fetch(&plan, observer)?;
                let identity = Some((plan.model.repo(), plan.commit.clone()));
                ModelFiles::resolve(&ModelRequest { model: folder, hub: identity, ..request })
            }
        }
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
    if Path::new(name).exists() {
        return model::dimensions(Path::new(name));
    }
    let hub = Hub::new(HubSettings::from_env());
    let plan = hub.plan(&name.parse()?, &ConfigFiles, observer)?;
    model::dimensions(&hub.fetch(&plan, observer)?)
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
