//! Which files make up a model: found, opened and checked against each other before any weight is loaded.

pub mod demo;
mod find;
pub mod flux1;
mod infer;
pub mod manifest;
mod open;
pub mod parts;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    base::json::read_json,
    error::{Error, Result},
    models::flux1::FluxConfig,
    models::parts::kl::VaeConfig,
    recipe::ModelFacts,
    sampling::SchedulerConfig,
    weights::{TensorSource, Weights},
};
use find::Finder;

/// Where a model is, and which of its parts come from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct ModelRequest {
    /// A folder in diffusers layout, or a single-file transformer.
    pub model: PathBuf,
    /// What to call it in the picture's provenance, when it is no path of the user's: the Hub's id, or `demo`; and its revision.
    pub name: Option<(String, String)>,
    /// A folder in diffusers layout that completes `model` where it lacks a part.
    pub companion: Option<PathBuf>,
    /// `--vae`: a file or folder.
    pub vae: Option<PathBuf>,
    /// `--text-encoder`: CLIP, a file or folder.
    pub text_encoder: Option<PathBuf>,
    /// `--text-encoder-2`: T5, a file or folder.
    pub text_encoder_2: Option<PathBuf>,
    /// `--tokenizer`: CLIP's, a file or folder.
    pub tokenizer: Option<PathBuf>,
    /// `--tokenizer-2`: T5's, a file or folder.
    pub tokenizer_2: Option<PathBuf>,
}

impl ModelRequest {
    /// A model whose parts all come from one place.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }
}

/// A model's dimensions and its tensors.
#[derive(Clone)]
pub struct ModelPart<C> {
    /// Its dimensions.
    pub config: C,
    /// Its tensors, by diffusers' names.
    pub source: Arc<dyn TensorSource>,
}

impl<C> ModelPart<C> {
    /// Its tensors as `dtype` on `device`.
    pub fn weights(&self, dtype: DType, device: &Device) -> Weights {
        Weights::new(Arc::clone(&self.source), dtype, device.clone())
    }
}

/// A text encoder's dimensions and its tensors.
#[derive(Clone)]
pub struct TextPart {
    /// What its `config.json` says, or would say.
    pub config: Value,
    /// Where that was read; `None` when it comes from the shapes of the tensors.
    pub config_file: Option<PathBuf>,
    /// Its tensors, by transformers' names.
    pub source: Arc<dyn TensorSource>,
}

impl TextPart {
    /// Its dimensions as the type that needs them.
    ///
    /// # Errors
    /// [`Error::Model`] when a key is missing or makes no sense.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        let file = self.config_file.as_ref().map_or_else(|| self.source.describe(), |path| path.display().to_string());
        open::from_value(self.config.clone(), &file)
    }

    /// Its tensors as `dtype` on `device`.
    pub fn weights(&self, dtype: DType, device: &Device) -> Weights {
        Weights::new(Arc::clone(&self.source), dtype, device.clone())
    }
}

/// Which model it is: what a picture says about its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identity {
    /// The Hub's id, `demo`, or the path as it was given.
    pub model: String,
    /// The Hub's revision, or the demo model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// "diffusers" or "single-file".
    pub layout: &'static str,
    /// Parts that came from elsewhere, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<&'static str, String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// Everything of a model, open but not loaded.
#[derive(Clone)]
pub struct ModelFiles {
    /// Which model it is.
    pub identity: Identity,
    /// The transformer.
    pub transformer: ModelPart<FluxConfig>,
    /// The autoencoder.
    pub vae: ModelPart<VaeConfig>,
    /// CLIP; it answers to names with and without `text_model.`.
    pub text_encoder: TextPart,
    /// T5; it answers to both names of its embedding table.
    pub text_encoder_2: TextPart,
    /// CLIP's tokenizer: a `tokenizer.json`, or a folder that holds one or `vocab.json` and `merges.txt`.
    pub tokenizer: PathBuf,
    /// T5's tokenizer: a `tokenizer.json`, or a folder that holds one.
    pub tokenizer_2: PathBuf,
    /// The scheduler's config. Without one (a single file) it is FLUX.1's own: dynamic shift for a model with guidance
    /// embedding (dev), static for one without (schnell).
    pub scheduler: Option<PathBuf>,
}

/// Dimensions and scheduler of the model at `path`, for which its other parts need not be there.
///
/// # Errors
/// As [`ModelFiles::resolve`].
pub fn dimensions(path: &Path) -> Result<(FluxConfig, SchedulerConfig)> {
    let config_file = path.join("transformer/config.json");
    let request = ModelRequest::new(path);
    let finder = Finder::new(&request)?;
    let config = if config_file.is_file() { read_json(&config_file)? } else { finder.transformer()?.config };
    config.validate()?;
    let scheduler = scheduler_config(finder.scheduler().as_deref(), config.guidance_embeds)?;
    Ok((config, scheduler))
}

/// The autoencoder at `path`: its file or folder, or those of a model that holds it.
///
/// # Errors
/// [`Error::Model`] when there is none; [`Error::Disk`] when a file cannot be read.
pub fn autoencoder(path: &Path) -> Result<ModelPart<VaeConfig>> {
    open::vae(&find::autoencoder(path)?)
}

/// The file's config, else FLUX.1's own.
fn scheduler_config(path: Option<&Path>, takes_guidance: bool) -> Result<SchedulerConfig> {
    match path {
        Some(path) => SchedulerConfig::read(path),
        // Source: the scheduler_config.json of FLUX.1-dev (dynamic, shift 3) and FLUX.1-schnell (static, shift 1).
        None if takes_guidance => Ok(SchedulerConfig::flux1_dev()),
        None => Ok(SchedulerConfig::default()),
    }
}

impl ModelFiles {
    /// Finds, opens and checks the parts of a model. Reads configs and headers only.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not FLUX.1, lacks a part, or its parts do not fit each other; [`Error::Disk`] when a
    /// file cannot be read.
    pub fn resolve(request: &ModelRequest) -> Result<Self> {
        let finder = Finder::new(request)?;
        let places = finder.places()?;
        let files = Self {
            identity: finder.identity(),
            transformer: finder.transformer()?,
            vae: open::vae(&places.vae)?,
            text_encoder: open::clip(&places.text_encoder)?,
            text_encoder_2: open::t5(&places.text_encoder_2)?,
            tokenizer: places.tokenizer,
            tokenizer_2: places.tokenizer_2,
            scheduler: finder.scheduler(),
        };
        files.check_widths()?;
        Ok(files)
    }

    /// Whether this is a model without guidance embedding, distilled to few steps, as FLUX.1-schnell is.
    pub fn is_schnell(&self) -> bool {
        !self.transformer.config.guidance_embeds
    }

    /// The scheduler's config: the file's, else FLUX.1's own.
    ///
    /// # Errors
    /// As [`SchedulerConfig::read`].
    pub fn scheduler_config(&self) -> Result<SchedulerConfig> {
        scheduler_config(self.scheduler.as_deref(), !self.is_schnell())
    }

    /// The most T5 tokens the model reads, where its tokenizer's config says so (`model_max_length`).
    ///
    /// # Errors
    /// As [`read_json`].
    pub fn text_tokens(&self) -> Result<Option<usize>> {
        let folder = if self.tokenizer_2.is_dir() { Some(&*self.tokenizer_2) } else { self.tokenizer_2.parent() };
        let config = folder.map(|folder| folder.join("tokenizer_config.json")).filter(|config| config.is_file());
        let Some(config) = config else { return Ok(None) };
        // transformers writes 1e30 for "no limit", which is no u64.
        let most = read_json::<Value>(&config)?.get("model_max_length").and_then(Value::as_u64);
        Ok(most.and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0))
    }

    /// What fills the gaps of a recipe.
    ///
    /// # Errors
    /// As [`ModelFiles::text_tokens`].
    pub fn recipe_facts(&self) -> Result<ModelFacts> {
        Ok(self.transformer.config.recipe_facts(self.text_tokens()?))
    }

    /// The transformer's tensors as `dtype` on `device`.
    pub fn transformer_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.transformer.weights(dtype, device)
    }

    /// The autoencoder's tensors as `dtype` on `device`.
    pub fn vae_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.vae.weights(dtype, device)
    }

    /// CLIP's tensors as `dtype` on `device`.
    pub fn text_encoder_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.text_encoder.weights(dtype, device)
    }

    /// T5's tensors as `dtype` on `device`.
    pub fn text_encoder_2_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.text_encoder_2.weights(dtype, device)
    }

    /// What one part gives is as wide as what the next takes.
    fn check_widths(&self) -> Result<()> {
        let transformer = &self.transformer.config;
        let width = |part: &TextPart, key: &str| part.config.get(key).and_then(Value::as_u64).unwrap_or(0);
        let latent = self.vae.config.latent_channels;
        // Four latents (2 x 2) are one token.
        if latent.checked_mul(4) != Some(transformer.in_channels) {
            let what = format!(
                "{} works on {latent} latent channels, the transformer on {}",
                self.vae.source.describe(),
                transformer.in_channels / 4
            );
            return Err(Error::model(what, "this autoencoder is of another model; give FLUX.1's with --vae"));
        }
        let pairs = [
            (&self.text_encoder, "hidden_size", transformer.pooled_projection_dim, "--text-encoder"),
            (&self.text_encoder_2, "d_model", transformer.joint_attention_dim, "--text-encoder-2"),
        ];
        for (part, key, takes, flag) in pairs {
            let gives = width(part, key);
            if gives != takes as u64 {
                let file = part.source.describe();
                let what = format!("{file} gives embeddings of width {gives}, the transformer takes {takes}");
                return Err(Error::model(
                    what,
                    format!("this text encoder is of another model; give FLUX.1's with {flag}"),
                ));
            }
        }
        Ok(())
    }
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
