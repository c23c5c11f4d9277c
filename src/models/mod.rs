//! The families of models, the parts they share, and how the files of one are found and opened before any weight is loaded.
//!
//! A family is a folder that implements [`Family`] and a line in [`BUILT_IN`]; nobody outside it knows more of its models than
//! the traits here say.

mod by_config;
mod choose;
#[cfg(test)]
mod config_keys;
mod contents;
mod cost;
pub mod demo;
mod exchange;
mod family;
mod find;
mod find_one;
mod first_block;
pub mod flux1;
pub mod flux2;
mod given;
mod inventory;
mod known;
mod latent_rgb;
mod lent;
mod local;
mod lora;
mod model;
mod part;
pub mod parts;
mod published;
pub mod qwen_image;
mod repository;
mod scheduler;
mod shelves;
mod strangers;
mod whose;
pub mod z_image;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{error::Result, weights::Files};
use find::Finder;

pub use contents::Contents;
pub use cost::{ForwardCost, ForwardOptions, NetworkBytes, StepShape};
pub use exchange::{Composed, Exchange, GgufNames};
pub use family::{Confidence, Examples, Facts, Family, Reading, Seen};
pub use find::{ELSEWHERE, Found, Lacking, Place};
pub use find_one::AUTOENCODER;
pub use first_block::FirstBlock;
pub use inventory::Inventory;
pub use known::KnownModel;
pub use latent_rgb::RgbFactors;
pub use lent::{Lent, LentFiles};
pub use local::LocalModel;
pub use lora::{adapt, adapt_part, of_networks};
pub use model::{Conditioning, Decode, Encode, Model, On, TextEncoders, Velocity, VelocityAt};
pub use part::{Lender, PartKind, PartSpec, never_inside};
pub use parts::kl::{Banding, Posterior, RowSink, RowSource, Way, Ways};
pub use published::{Licence, Published, PublishedWeights};
pub use repository::RepositoryFiles;
pub use scheduler::{MuRule, SchedulerConfig, TimeShift};
pub use shelves::loras as loras_called;

/// The families this program knows, the usual one first.
pub const BUILT_IN: [&'static dyn Family; 4] = [&flux1::FAMILY, &flux2::FAMILY, &z_image::FAMILY, &qwen_image::FAMILY];

/// Where a model is, and which of its parts come from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct ModelRequest {
    /// A folder in diffusers layout, or a single-file transformer.
    pub model: PathBuf,
    /// What to call it in the picture's provenance, when it is no path of the user's: the Hub's id, or `demo`; and its revision.
    pub name: Option<(String, String)>,
    /// Parts that come from elsewhere, by their names ([`PartSpec::name`]): a file or folder each.
    pub parts: BTreeMap<String, PathBuf>,
    /// Parts that are lent by repositories of the Hub, by their names.
    pub lent: BTreeMap<String, Lent>,
    /// Folders of models in which the parts of a single file are looked for, the first first.
    pub dirs: Vec<PathBuf>,
    /// The files the model is among.
    pub files: Files,
}

impl ModelRequest {
    /// A model whose parts all come from one place.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// The same with one part from elsewhere.
    #[must_use]
    pub fn with(mut self, part: &str, path: impl Into<PathBuf>) -> Self {
        self.parts.insert(part.to_owned(), path.into());
        self
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
    pub parts: BTreeMap<&'static str, Origin>,
    /// Parts whose weights are a variant (`fp16` of `model.fp16.safetensors`), by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variants: BTreeMap<&'static str, String>,
}

impl Identity {
    /// What other programs call it: a path's last part, else as it is told.
    pub fn name(&self) -> String {
        let path = Path::new(&self.model);
        match (&self.revision, path.file_stem().filter(|_| self.layout != "diffusers").or(path.file_name())) {
            (None, Some(name)) => name.to_string_lossy().into_owned(),
            _ => self.to_string(),
        }
    }
}

/// Where a part came from that did not come with its model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A file or folder of this disk, as it was given or found.
    Disk(String),
    /// A repository of the Hub: `owner/name@commit:path`.
    Hub(String),
}

impl Origin {
    /// What to call it.
    pub fn text(&self) -> &str {
        let (Self::Disk(text) | Self::Hub(text)) = self;
        text
    }
}

impl fmt::Display for Origin {
    /// For people: a commit by its first digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COMMIT: std::ops::Range<usize> = 7..40;
        match (self, self.text().split_once('@')) {
            (Self::Hub(_), Some((repo, rest)))
                if rest.is_char_boundary(COMMIT.start) && rest.is_char_boundary(COMMIT.end) =>
            {
                write!(f, "{repo}@{}{}", &rest[..COMMIT.start], &rest[COMMIT.end..])
            }
            (_, _) => f.write_str(self.text()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// The families a model is looked for among: those built in, or those and others of the caller's.
#[derive(Clone)]
pub struct Registry {
    families: Vec<&'static dyn Family>,
}

impl Default for Registry {
    /// [`BUILT_IN`].
    fn default() -> Self {
        Self { families: BUILT_IN.to_vec() }
    }
}

impl Registry {
    /// The families built in, and these.
    pub fn with(families: &[&'static dyn Family]) -> Self {
        Self { families: BUILT_IN.iter().chain(families).copied().collect() }
    }

    /// The families.
    pub fn families(&self) -> &[&'static dyn Family] {
        &self.families
    }

    /// Finds, opens and checks a model. Reads configs and headers only.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when it is of no known family, lacks a part, or its parts do not fit each other;
    /// [`crate::Error::Disk`] when a file cannot be read.
    pub fn open(&self, request: &ModelRequest) -> Result<Box<dyn Model>> {
        let (family, found) = self.find(request)?;
        family.open(found)
    }

    /// Finds a model's parts, and whose model it is.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn find(&self, request: &ModelRequest) -> Result<(&'static dyn Family, Found)> {
        let finder = Finder::new(request, &self.families)?;
        Ok((finder.family(), finder.found(|_| true)?))
    }

    /// What the file or folder of weights holds that a request names as its model, by headers alone.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for what holds no tensors; [`crate::Error::Disk`] when a file cannot be read.
    pub fn inventory(&self, request: &ModelRequest) -> Result<Inventory> {
        inventory::of(request, &self.families)
    }

    /// Which parts of a single file are nowhere on this disk, of those that `wanted` takes.
    ///
    /// # Errors
    /// As [`Registry::open`], but for what is missing.
    pub fn lacking(&self, request: &ModelRequest, wanted: impl Fn(&PartSpec) -> bool) -> Result<Vec<Lacking>> {
        Finder::new(request, &self.families)?.lacking(wanted)
    }

    /// The same request for a model in diffusers layout, with the weights and tokenizers that are not there as its configs describe
    /// them: enough to plan a run, not to make one. Beside it what was made up, in words.
    ///
    /// # Errors
    /// As [`Registry::open`], but for weights that are missing.
    pub fn by_configs(&self, request: &ModelRequest) -> Result<(ModelRequest, Option<String>)> {
        by_config::completed(request, &self.families)
    }

    /// The models in these folders: ComfyUI's, those of files, and those in diffusers layout.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when one is no folder.
    pub fn local(&self, dirs: &[PathBuf]) -> Result<Vec<LocalModel>> {
        local::models(dirs, &self.families)
    }

    /// All that families published, each with its family.
    pub fn published(&self) -> impl Iterator<Item = (&'static dyn Family, &'static Published)> {
        let of = |family: &&'static dyn Family| {
            let family = *family;
            family.published().iter().map(move |published| (family, published))
        };
        self.families.iter().flat_map(of)
    }

    /// What the model at a path says about itself, for which only its transformer's config need be there.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn facts(&self, request: &ModelRequest) -> Result<Facts> {
        let finder = Finder::new(request, &self.families)?;
        let family = finder.family();
        let wanted = |part: &PartSpec| matches!(part.kind, PartKind::Denoiser | PartKind::Scheduler);
        family.facts(&finder.found(wanted)?)
    }

    /// What each text encoder of a model reads of a prompt ([`Family::tokens`]), for which only tokenizers need be there.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn tokens(
        &self,
        request: &ModelRequest,
        prompt: &str,
        asked: Option<usize>,
        usual: usize,
    ) -> Result<Vec<Reading>> {
        let finder = Finder::new(request, &self.families)?;
        let family = finder.family();
        family.tokens(&finder.found(|part| part.kind == PartKind::Tokenizer)?, prompt, asked, usual)
    }

    /// The autoencoder of a model, or the one whose file or folder is named as if it were the model.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when there is none; [`crate::Error::Disk`] when a file cannot be read.
    pub fn autoencoder(&self, request: &ModelRequest) -> Result<Box<dyn Decode>> {
        find_one::autoencoder(request, &self.families)
    }

    /// How files of other programs hold a part of a model, by its name, or its transformer; of a file that holds another network, that
    /// one. The other parts need not be there.
    ///
    /// # Errors
    /// As [`Registry::open`]; [`crate::Error::Request`] for a part that is not there or not written.
    pub fn exchange(&self, request: &ModelRequest, part: Option<&str>) -> Result<Exchange> {
        let mut refused = None;
        for (family, found, part) in find_one::part(request, part, &self.families)? {
            match family.exchange(&found, part.name) {
                Ok(exchange) => return Ok(exchange),
                // Another family may ask less of it.
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        Err(refused.unwrap_or_else(|| crate::error::Error::model("no part", "please report this")))
    }

    /// The facts of the usual model, for whoever names none.
    pub fn usual(&self) -> Facts {
        BUILT_IN[0].usual()
    }
}
