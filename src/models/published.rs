//! Models that a family's authors published, as far as their configs tell: what a run with one would take can be said before
//! anything of it is here, and without a network.

use std::{collections::BTreeMap, path::PathBuf};

use candle_core::DType;
use serde::Serialize;

use super::{Family, ModelRequest, by_config};
use crate::{
    error::Result,
    weights::{Ahead, Files},
};

/// A repository of the Hub.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// `owner/name`.
    pub repo: &'static str,
    /// What it may be used for.
    pub licence: Licence,
    /// Its configs by their paths there, as JSON; what they leave out is the default of the reference's class.
    pub configs: &'static [(&'static str, &'static str)],
    /// The weights that are fetched for a run.
    pub weights: &'static [PublishedWeights],
}

/// A licence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Licence {
    /// What it is called.
    pub name: &'static str,
    /// Whether what is made may be sold without asking.
    pub is_commercial: bool,
    /// Whether it has to be accepted on the repository's page before anything can be fetched.
    pub is_gated: bool,
}

impl Licence {
    /// Free for any use, and nobody is asked.
    pub const APACHE: Self = Self { name: "Apache-2.0", is_commercial: true, is_gated: false };
}

/// What the files of one part hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedWeights {
    /// The part's name.
    pub part: &'static str,
    /// The number type of all its tensors.
    pub dtype: DType,
    /// Numbers in them, also of those that no run reads.
    pub parameters: u64,
}

impl PublishedWeights {
    /// Of a part in bf16.
    pub const fn bf16(part: &'static str, parameters: u64) -> Self {
        Self { part, dtype: DType::BF16, parameters }
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.parameters * self.dtype.size_in_bytes() as u64
    }
}

impl Published {
    /// Bytes of its weights: what has to be fetched, but for some megabytes of tokenizers and configs.
    pub fn bytes(&self) -> u64 {
        self.weights.iter().map(PublishedWeights::bytes).sum()
    }

    /// The model as its configs describe it: enough to open and to plan, and not to load.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a config makes no sense: a bug.
    pub fn request(&self, family: &dyn Family) -> Result<ModelRequest> {
        // No folder of the user's: what lies there is not meant.
        let root = PathBuf::from(format!("hub:{}", self.repo));
        let config = |(path, text): &(&str, &str)| (root.join(path), Ahead::Whole(text.as_bytes().to_vec()));
        let files = Files::with(self.configs.iter().map(config).collect::<BTreeMap<_, _>>());
        let dtype = |part: &str| self.weights.iter().find(|weights| weights.part == part).map(|weights| weights.dtype);
        let (ahead, _) = by_config::missing(&root, &files, family, |_| false, dtype)?;
        Ok(ModelRequest { files: files.and(&Files::with(ahead)), ..ModelRequest::new(root) })
    }
}
