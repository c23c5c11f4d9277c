//! The text encoders as parts of a model: found under their usual names, and checked before anything is loaded.

use std::{path::Path, sync::Arc};

use serde_json::Value;

use super::{
    ClipConfig, ModelPart, Qwen3Config, Qwen25VlConfig, T5Config, clip_tensors,
    config::{Config, Said},
    infer,
    open::{self, ConfigFile},
    t5_tensors, text_names,
};
use crate::{
    error::{Error, Result},
    models::{
        Place,
        strangers::{looks_like, made_for_another},
    },
    weights::{Expected, Files, Renamed, TensorSource},
};

/// What is special about one kind of text encoder.
pub(crate) struct TextEncoderKind<C> {
    name: &'static str,
    model_type: &'static str,
    /// What GGUF files of it say that they were made for.
    made_for: &'static [&'static str],
    names: fn(Arc<dyn TensorSource>) -> Option<Renamed>,
    infer: fn(&dyn TensorSource) -> Result<C>,
    tensors: fn(&C) -> Result<Vec<Expected>>,
}

/// CLIP; it answers to names with and without `text_model.`.
pub(crate) const CLIP: TextEncoderKind<ClipConfig> = TextEncoderKind {
    name: "CLIP",
    model_type: "clip_text_model",
    made_for: &["clip"],
    names: text_names::clip,
    infer: infer::clip,
    tensors: clip_tensors,
};

/// T5; it answers to both names of its embedding table.
pub(crate) const T5: TextEncoderKind<T5Config> = TextEncoderKind {
    name: "T5",
    model_type: "t5",
    made_for: &["t5encoder", "t5"],
    names: text_names::t5,
    infer: infer::t5,
    tensors: t5_tensors,
};

/// Qwen3, of which so much is needed as `tensors` lists.
pub(crate) const fn qwen3(tensors: fn(&Qwen3Config) -> Result<Vec<Expected>>) -> TextEncoderKind<Qwen3Config> {
    let (names, infer) = (text_names::qwen3, Qwen3Config::infer);
    TextEncoderKind { name: "Qwen3", model_type: "qwen3", made_for: &["qwen3"], names, infer, tensors }
}

/// The language part of Qwen2.5-VL, of which so much is needed as `tensors` lists.
pub(crate) const fn qwen25_vl(
    tensors: fn(&Qwen25VlConfig) -> Result<Vec<Expected>>,
) -> TextEncoderKind<Qwen25VlConfig> {
    let (names, infer) = (text_names::qwen25_vl, Qwen25VlConfig::infer);
    TextEncoderKind { name: "Qwen2.5-VL", model_type: "qwen2_5_vl", made_for: &["qwen2vl"], names, infer, tensors }
}

impl<C: Config> TextEncoderKind<C> {
    /// What is read of the encoder that this config, which was read at `path`, describes.
    ///
    /// # Errors
    /// [`Error::Model`] when it makes no sense.
    pub(crate) fn tensors(&self, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        (self.tensors)(&Said::by_file(config, path)?.config)
    }

    /// Opens the encoder at a place; `family` and `flag` say what to give where it is another.
    ///
    /// # Errors
    /// [`Error::Model`] when it is another kind of file, incomplete or damaged; [`Error::Disk`] when it cannot be read.
    pub(crate) fn open(&self, place: &Place, files: &Files, family: &str, flag: &str) -> Result<ModelPart<C>> {
        let advice = format!("give {family}'s {} with {flag}", self.name);
        // The config first: a folder of another model says so there, whatever its weights are called.
        let config = open::config_at(place, files, ["model_type", self.model_type, &advice])?;
        let own = config.as_ref().map_or(Ok(None), ConfigFile::own)?;
        let beside = config.as_ref().and_then(ConfigFile::beside);
        let source = open::source_at(place, files)?;
        let named = (self.names)(Arc::clone(&source)).filter(|_| made_for_another(&*source, self.made_for).is_none());
        let Some(source) = named else {
            let what = format!("{} is not a {} text encoder: {}", source.describe(), self.name, looks_like(&*source));
            return Err(Error::model(what, advice));
        };
        let said = own.map_or_else(|| Said::by_beside(beside, &source, self.infer, self.tensors), Ok)?;
        said.check_weights(&source, &(self.tensors)(&said.config)?)?;
        Ok(ModelPart { config: said.config, source: Arc::new(source) })
    }
}
