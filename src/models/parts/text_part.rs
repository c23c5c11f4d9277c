//! The two text encoders as parts of a model: found under their usual names, and checked before anything is loaded.

use std::{path::PathBuf, sync::Arc};

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ClipConfig, T5Config, clip_tensors, infer, open, t5_tensors, text_names};
use crate::{
    error::{Error, Result},
    models::{Place, strangers::looks_like},
    weights::{Expected, Files, Renamed, TensorSource, Weights, check_all},
};

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

    /// The width of what it gives, by the name its config has for it; 0 where it says none.
    pub(crate) fn width(&self, key: &str) -> u64 {
        self.config.get(key).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// What is special about one kind of text encoder.
pub(crate) struct TextEncoderKind {
    name: &'static str,
    model_type: &'static str,
    names: fn(Arc<dyn TensorSource>) -> Option<Renamed>,
    infer: fn(&dyn TensorSource) -> Result<Value>,
    /// What its config says it has; refuses dimensions out of any range.
    expected: fn(&TextPart) -> Result<Option<Vec<Expected>>>,
}

/// CLIP; it answers to names with and without `text_model.`.
pub(crate) const CLIP: TextEncoderKind = TextEncoderKind {
    name: "CLIP",
    model_type: "clip_text_model",
    names: text_names::clip,
    infer: infer::clip,
    expected: |part| {
        let c: ClipConfig = part.config()?;
        let sizes =
            [c.vocab_size, c.hidden_size, c.intermediate_size, c.num_attention_heads, c.max_position_embeddings];
        open::in_range(&sizes, &[c.num_hidden_layers]).then(|| clip_tensors(&c)).transpose()
    },
};

/// T5; it answers to both names of its embedding table.
pub(crate) const T5: TextEncoderKind = TextEncoderKind {
    name: "T5",
    model_type: "t5",
    names: text_names::t5,
    infer: infer::t5,
    expected: |part| {
        let c: T5Config = part.config()?;
        let sizes = [c.vocab_size, c.d_model, c.d_ff, c.d_kv, c.num_heads, c.relative_attention_num_buckets];
        open::in_range(&sizes, &[c.num_layers]).then(|| t5_tensors(&c)).transpose()
    },
};

impl TextEncoderKind {
    /// Opens the encoder at a place; `family` and `flag` say what to give where it is another.
    ///
    /// # Errors
    /// [`Error::Model`] when it is another kind of file, incomplete or damaged; [`Error::Disk`] when it cannot be read.
    pub(crate) fn open(&self, place: &Place, files: &Files, family: &str, flag: &str) -> Result<TextPart> {
        let advice = format!("give {family}'s {} with {flag}", self.name);
        // The config first: a folder of another model says so there, whatever its weights are called.
        let config_file = open::config_file_at(place, files);
        let read = |path: &PathBuf| open::read_config(files, path, ["model_type", self.model_type, &advice]);
        let config = config_file.as_ref().map(read).transpose()?;
        let source = open::source_at(place, files)?;
        let Some(source) = (self.names)(Arc::clone(&source)) else {
            let what = format!("{} is not a {} text encoder: {}", source.describe(), self.name, looks_like(&*source));
            return Err(Error::model(what, advice));
        };
        let config = config.map_or_else(|| (self.infer)(&source), Ok)?;
        let part = TextPart { config, config_file, source: Arc::new(source) };
        let Some(expected) = (self.expected)(&part)? else {
            let what = format!("{}: its dimensions are out of any range", part.source.describe());
            return Err(Error::model(what, "check the text encoder's config.json"));
        };
        check_all(&*part.source, &expected)?;
        Ok(part)
    }
}
