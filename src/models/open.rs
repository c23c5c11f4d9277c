//! Opens one part: its config (read or inferred), its tensors under the names the modules use, and that both fit.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ModelPart, TextPart, find::Place, infer, manifest};
use crate::{
    base::json::read_json,
    error::{Error, Result},
    models::flux1::FluxConfig,
    models::flux1::{
        bfl,
        recognise::{looks_like, relative_of_flux},
    },
    models::parts::kl::VaeConfig,
    models::parts::{ClipConfig, T5Config, text_names},
    weights::{Renamed, STEMS, SafetensorsStore, TensorSource, open_folder},
};

/// Most layers, channels or tokens a config may ask for: far above any model, far below what would overflow.
const LARGEST: usize = 1 << 20;
/// Most layers of one kind.
const MOST_LAYERS: usize = 1 << 10;

const DAMAGED: &str = "the file is damaged or belongs to another kind of model; delete it and fetch it again";
const NOT_FLUX: &str = "give a FLUX.1 transformer, for example flux1-krea-dev.safetensors, or a FLUX.1 model folder";

/// The single file holds a FLUX.1 transformer.
///
/// # Errors
/// [`Error::Model`] that says what it looks like instead.
pub(super) fn check_is_flux(source: &Arc<dyn TensorSource>) -> Result<()> {
    let relative = relative_of_flux(&**source);
    let is_flux = bfl::transformer(Arc::clone(source)).is_some() || has_diffusers_names(&**source);
    if is_flux && relative.is_none() {
        return Ok(());
    }
    let what = format!("{} is not a FLUX.1 transformer: {}", source.describe(), looks_like(&**source));
    Err(Error::model(what, NOT_FLUX))
}

fn has_diffusers_names(source: &dyn TensorSource) -> bool {
    let has = |name| source.shape(name).is_some();
    has("transformer_blocks.0.attn.add_q_proj.weight") && has("single_transformer_blocks.0.proj_mlp.weight")
}

/// A transformer in a single file, under either names.
pub(super) fn transformer_file(source: &Arc<dyn TensorSource>) -> Result<ModelPart<FluxConfig>> {
    let named: Arc<dyn TensorSource> = match bfl::transformer(Arc::clone(source)) {
        Some(renamed) => Arc::new(renamed),
        None => Arc::clone(source),
    };
    checked_transformer(infer::transformer(&*named)?, named)
}

/// A transformer in a folder with `config.json`.
pub(super) fn transformer_folder(folder: &Path) -> Result<ModelPart<FluxConfig>> {
    let config = read_config(&folder.join("config.json"), "_class_name", "FluxTransformer2DModel", NOT_FLUX)?;
    checked_transformer(config, Arc::new(open_folder(folder)?))
}

fn checked_transformer(config: FluxConfig, source: Arc<dyn TensorSource>) -> Result<ModelPart<FluxConfig>> {
    let file = source.describe();
    let wrong = |what: String, hint: &str| Err(Error::model(format!("{file}: {what}"), hint));
    let c = &config;
    let kind = match c.in_channels {
        64 => None,
        128 => Some("FLUX.1 Canny or Depth"),
        384 => Some("FLUX.1 Fill"),
        _ => Some("another kind of FLUX"),
    };
    if let Some(kind) = kind {
        let what = format!("the transformer takes {} channels a token, not 64; it looks like {kind}", c.in_channels);
        return wrong(what, "give a text-to-image model: FLUX.1-dev, FLUX.1-Krea-dev or FLUX.1-schnell");
    }
    let sizes = [c.attention_head_dim, c.num_attention_heads, c.joint_attention_dim, c.pooled_projection_dim];
    let layers = [c.num_layers, c.num_single_layers];
    if sizes.iter().any(|&n| n == 0 || n > LARGEST) || layers.iter().any(|&n| n > MOST_LAYERS) {
        return wrong("its dimensions are out of any range".into(), "check the transformer's config.json");
    }
    let axes = c.axes_dims_rope;
    let sum = axes.iter().try_fold(0_usize, |sum, &axis| sum.checked_add(axis));
    if sum != Some(c.attention_head_dim) || axes.iter().any(|axis| axis % 2 != 0) {
        let what = format!("axes_dims_rope {axes:?} are not even numbers that add up to {}", c.attention_head_dim);
        return wrong(what, "check the transformer's config.json");
    }
    if !c.rope_theta.is_finite() || c.rope_theta <= 1.0 {
        return wrong(format!("rope_theta {} is not above 1", c.rope_theta), "check the transformer's config.json");
    }
    manifest::check(&*source, &manifest::transformer(c))?;
    Ok(ModelPart { config, source })
}

/// The autoencoder.
pub(super) fn vae(place: &Place) -> Result<ModelPart<VaeConfig>> {
    let config_at =
        |path: &Path| read_config(path, "_class_name", "AutoencoderKL", "give FLUX.1's autoencoder with --vae");
    match place {
        Place::Folder(folder) => checked_vae(config_at(&folder.join("config.json"))?, Arc::new(open_folder(folder)?)),
        Place::File(path) => {
            let source = vae_names(open_file(path)?)?;
            match config_beside(path) {
                Some(config) => checked_vae(config_at(&config)?, source),
                None => checked_vae(infer::vae(&*source)?, source),
            }
        }
        Place::Inside(file) => {
            let source = vae_names(Arc::clone(file))?;
            checked_vae(infer::vae(&*source)?, source)
        }
    }
}

fn vae_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    if let Some(renamed) = bfl::vae(Arc::clone(&source)) {
        return Ok(Arc::new(renamed));
    }
    if source.shape("decoder.mid_block.resnets.0.conv1.weight").is_some() {
        return Ok(source);
    }
    let what = format!("{} is not an autoencoder: {}", source.describe(), looks_like(&*source));
    Err(Error::model(what, "give FLUX.1's ae.safetensors with --vae"))
}

fn checked_vae(config: VaeConfig, source: Arc<dyn TensorSource>) -> Result<ModelPart<VaeConfig>> {
    config.check(&source.describe())?;
    // The picture is 8 times the latents in each direction (geometry.rs), which is four stages.
    let stages = config.block_out_channels.len();
    if stages != 4 {
        let what = format!("{}: it has {stages} stages, FLUX.1's autoencoder has 4", source.describe());
        return Err(Error::model(what, "check the vae's config.json"));
    }
    manifest::check(&*source, &manifest::decoder(&config))?;
    Ok(ModelPart { config, source })
}

/// What is special about one of the text encoders.
struct Encoder {
    name: &'static str,
    flag: &'static str,
    model_type: &'static str,
    names: fn(Arc<dyn TensorSource>) -> Option<Renamed>,
    infer: fn(&dyn TensorSource) -> Result<Value>,
    /// What its config says it has; refuses dimensions out of any range.
    expected: fn(&TextPart) -> Result<Option<Vec<manifest::Expected>>>,
}

const CLIP: Encoder = Encoder {
    name: "CLIP",
    flag: "--text-encoder",
    model_type: "clip_text_model",
    names: text_names::clip,
    infer: infer::clip,
    expected: |part| {
        let c: ClipConfig = part.config()?;
        let sizes =
            [c.vocab_size, c.hidden_size, c.intermediate_size, c.num_attention_heads, c.max_position_embeddings];
        Ok(in_range(&sizes, c.num_hidden_layers).then(|| manifest::clip(&c)))
    },
};

const T5: Encoder = Encoder {
    name: "T5",
    flag: "--text-encoder-2",
    model_type: "t5",
    names: text_names::t5,
    infer: infer::t5,
    expected: |part| {
        let c: T5Config = part.config()?;
        let sizes = [c.vocab_size, c.d_model, c.d_ff, c.d_kv, c.num_heads, c.relative_attention_num_buckets];
        Ok(in_range(&sizes, c.num_layers).then(|| manifest::t5(&c)))
    },
};

fn in_range(sizes: &[usize], layers: usize) -> bool {
    sizes.iter().all(|n| (1..=LARGEST).contains(n)) && layers <= MOST_LAYERS
}

/// CLIP.
pub(super) fn clip(place: &Place) -> Result<TextPart> {
    CLIP.open(place)
}

/// T5.
pub(super) fn t5(place: &Place) -> Result<TextPart> {
    T5.open(place)
}

impl Encoder {
    fn open(&self, place: &Place) -> Result<TextPart> {
        let config_file = match place {
            Place::Folder(folder) => Some(folder.join("config.json")),
            Place::File(path) => config_beside(path),
            Place::Inside(_) => None,
        };
        // The config first: a folder of another model says so there, whatever its weights are called.
        let config = config_file.as_ref().map(|path| self.read_config(path)).transpose()?;
        let source: Arc<dyn TensorSource> = match place {
            Place::Folder(folder) => Arc::new(open_folder(folder)?),
            Place::File(path) => open_file(path)?,
            Place::Inside(file) => Arc::clone(file),
        };
        let Some(source) = (self.names)(Arc::clone(&source)) else {
            let what = format!("{} is not a {} text encoder: {}", source.describe(), self.name, looks_like(&*source));
            return Err(Error::model(what, format!("give FLUX.1's {} with {}", self.name, self.flag)));
        };
        let config = config.map_or_else(|| (self.infer)(&source), Ok)?;
        let part = TextPart { config, config_file, source: Arc::new(source) };
        let Some(expected) = (self.expected)(&part)? else {
            let what = format!("{}: its dimensions are out of any range", part.source.describe());
            return Err(Error::model(what, "check the text encoder's config.json"));
        };
        manifest::check(&*part.source, &expected)?;
        Ok(part)
    }

    fn read_config(&self, path: &Path) -> Result<Value> {
        read_config(path, "model_type", self.model_type, &format!("give FLUX.1's {} with {}", self.name, self.flag))
    }
}

fn open_file(path: &Path) -> Result<Arc<dyn TensorSource>> {
    Ok(Arc::new(SafetensorsStore::open(&[path.to_path_buf()])?))
}

/// The `config.json` that belongs to a file under one of the usual names of a part's folder. A file of its own name
/// (`ae.safetensors`) stands for itself: whatever lies beside it may be of something else.
fn config_beside(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_str()?;
    let config = path.with_file_name("config.json");
    (STEMS.contains(&stem) && config.is_file()).then_some(config)
}

/// Reads a config whose `key`, where it has one, must be `class`.
fn read_config<T: DeserializeOwned>(path: &Path, key: &str, class: &str, hint: &str) -> Result<T> {
    let config: Value = read_json(path)?;
    if !config.is_object() {
        let what = format!("{}: this is JSON, but not a model's config (an object)", path.display());
        return Err(Error::model(what, DAMAGED));
    }
    if let Some(found) = config.get(key).and_then(Value::as_str).filter(|found| *found != class) {
        return Err(Error::model(format!("{}: its {key} is {found}, not {class}", path.display()), hint));
    }
    from_value(config, &path.display().to_string())
}

/// A config as the type that needs it.
///
/// # Errors
/// [`Error::Model`] that names the key which is missing or makes no sense.
pub(super) fn from_value<T: DeserializeOwned>(config: Value, file: &str) -> Result<T> {
    serde_json::from_value(config).map_err(|e| Error::model(format!("{file}: {e}"), DAMAGED))
}
