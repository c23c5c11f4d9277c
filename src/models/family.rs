//! What everybody else knows of a family: the trait it implements, and the data it gives.

use std::{path::Path, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::{Decode, Exchange, Found, Model, PartSpec, Published, RgbFactors, SchedulerConfig, parts::Piece};
use crate::{
    base::geometry::LatentGeometry,
    error::{Error, Result},
    nn::PositionAxis,
    recipe::ModelFacts,
    weights::{Expected, TensorSource},
};

/// What one text encoder reads of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Which encoder.
    pub encoder: &'static str,
    /// Tokens it takes, padding included.
    pub length: usize,
    /// The tokens, without padding.
    pub tokens: Vec<Piece>,
    /// How many of padding follow.
    pub padding: usize,
    /// The words at the end of the prompt that it does not read; null where it reads all.
    pub cut: Option<String>,
}

/// A family of models. A new one is a folder that implements this, and one line in [`super::BUILT_IN`].
pub trait Family: Sync {
    /// What each of a model's text encoders reads of a prompt: the one whose length can be asked for in `asked` tokens, else in
    /// `usual` or what its tokenizer reads at most. Only the tokenizers need be there.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tokenizer is broken, or this family's cannot be seen; [`crate::Error::Request`] for a
    /// length out of range.
    fn tokens(&self, _found: &Found, _prompt: &str, _asked: Option<usize>, _usual: usize) -> Result<Vec<Reading>> {
        Err(Error::model(format!("the tokens of {} models cannot be shown", self.name()), ""))
    }

    /// What it is called, such as "FLUX.1".
    fn name(&self) -> &'static str;

    /// Models to name in advice.
    fn examples(&self) -> Examples;

    /// How sure it is that a model is one of its own, by what the model's files hold, never by what they are called;
    /// `None` when it is not.
    fn recognise(&self, seen: &Seen) -> Option<Confidence>;

    /// The parts its models have: finding, fetching and the flags of the command line follow from them.
    fn parts(&self) -> &'static [PartSpec];

    /// What a model says about itself, as far as its transformer and scheduler tell; the other parts need not be there.
    ///
    /// # Errors
    /// [`Error::Model`] when a config makes no sense; [`Error::Disk`] when a file cannot be read.
    fn facts(&self, found: &Found) -> Result<Facts>;

    /// The facts of the family's usual model, for whoever names none.
    fn usual(&self) -> Facts;

    /// Opens a model and checks that its parts fit each other. Reads configs and headers only.
    ///
    /// # Errors
    /// [`Error::Model`] when something is missing, damaged or does not fit; [`Error::Disk`] when a file cannot be read.
    fn open(&self, found: Found) -> Result<Box<dyn Model>>;

    /// Names and shapes of the tensors that one of its networks is read from, in diffusers layout, by its config alone, which was
    /// read at `path`: what a plan needs to know of weights that are nowhere yet.
    ///
    /// # Errors
    /// [`Error::Model`] when the config makes no sense, or the family has no such network.
    fn tensors(&self, part: &str, _config: &Value, _path: &Path) -> Result<Vec<Expected>> {
        Err(Error::model(format!("what {part} of a {} model holds is not known without its weights", self.name()), ""))
    }

    /// What its authors published.
    fn published(&self) -> &'static [Published] {
        &[]
    }

    /// How files of other programs hold a part of a model, for who writes such a file. The other parts need not be there.
    ///
    /// # Errors
    /// As [`Family::open`]; [`Error::Request`] for a part that is not written.
    fn exchange(&self, _found: &Found, part: &str) -> Result<Exchange> {
        Err(Error::request(format!("the {part} of {} models is not converted", self.name()), "give another part"))
    }

    /// Opens the autoencoder alone.
    ///
    /// # Errors
    /// As [`Family::open`].
    fn autoencoder(&self, found: &Found) -> Result<Box<dyn Decode>>;
}

/// Models of a family to name in advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examples {
    /// A single file.
    pub file: &'static str,
    /// A model of the Hub.
    pub hub: &'static str,
}

/// How sure a family is that a model is one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nothing says otherwise.
    Possible,
    /// Something in the model says so.
    Certain,
}

/// What is seen of a model before it is known which family's it is.
#[derive(Default)]
pub struct Seen {
    /// The class that `model_index.json` names.
    pub pipeline: Option<String>,
    /// The transformer's `config.json`.
    pub config: Option<Value>,
    /// The tensors of a single file.
    pub tensors: Option<Arc<dyn TensorSource>>,
}

impl Seen {
    /// The class that the transformer's config names.
    pub fn class(&self) -> Option<&str> {
        self.config.as_ref()?.get("_class_name")?.as_str()
    }
}

/// What a model says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// How its pixels become latents and tokens.
    pub latents: LatentGeometry,
    /// The axes of its rotary embedding.
    pub axes: Vec<PositionAxis>,
    /// What fills the gaps of a recipe: training resolution, guidance, text tokens.
    pub recipe: ModelFacts,
    /// Its schedule.
    pub scheduler: SchedulerConfig,
    /// What its latents look like, for previews.
    pub latent_rgb: RgbFactors,
}

impl Facts {
    /// L: patches a side at a training resolution, in pixels.
    pub fn patches(&self, base_resolution_px: usize) -> usize {
        base_resolution_px / self.latents.px_per_token()
    }
}
