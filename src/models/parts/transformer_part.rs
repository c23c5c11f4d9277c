//! The transformer as a part of a model: its config is read, or what it would say is told by a single file's tensors; these are
//! checked before anything is loaded.

use std::{path::Path, sync::Arc};

use serde_json::Value;

use super::{
    ModelPart,
    config::{Config, Said},
    open,
};
use crate::{
    error::Result,
    models::{Found, Place},
    weights::{Expected, TensorSource},
};

/// Tensors by name.
pub(crate) type Source = Arc<dyn TensorSource>;

/// What a family says of its transformers.
pub(crate) struct TransformerKind<C> {
    /// What its config is called in it, and what to do about another.
    pub(crate) class: [&'static str; 3],
    /// A single file's tensors under the names they are loaded by.
    pub(crate) of_file: fn(Source) -> Result<Source>,
    /// The same of a folder's in diffusers layout.
    pub(crate) of_folder: fn(Source) -> Source,
    /// What the shapes of these tensors tell.
    pub(crate) infer: fn(&dyn TensorSource) -> Result<C>,
    /// What the loader asks for.
    pub(crate) tensors: fn(&C) -> Result<Vec<Expected>>,
}

impl<C: Config> TransformerKind<C> {
    /// What is read of the transformer that this config, which was read at `path`, describes.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when it makes no sense.
    pub(crate) fn tensors(&self, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        (self.tensors)(&Said::by_file(config, path)?.config)
    }

    /// The dimensions of the one that was found, checked.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when config or tensors make no sense; [`crate::Error::Disk`] when a file cannot be read.
    pub(crate) fn config(&self, found: &Found) -> Result<C> {
        Ok(self.said(found)?.0.config)
    }

    /// Opens and checks it.
    ///
    /// # Errors
    /// As [`TransformerKind::config`]; [`crate::Error::Model`] when it is incomplete or damaged.
    pub(crate) fn open(&self, found: &Found) -> Result<ModelPart<C>> {
        let (said, source) = self.said(found)?;
        let in_folder = || open::source_at(found.place("transformer")?, &found.files).map(self.of_folder);
        let source = source.map_or_else(in_folder, Ok)?;
        said.check_weights(&*source, &(self.tensors)(&said.config)?)?;
        Ok(ModelPart { config: said.config, source })
    }

    /// The dimensions. A single file is opened for them, and comes with them; a config of the class beside it, or that of the
    /// transformer it stands in for, counts where the tensors are as it says ([`Said::by_beside`]).
    fn said(&self, found: &Found) -> Result<(Said<C>, Option<Source>)> {
        let place = found.place("transformer")?;
        if let Place::Folder(folder) = place {
            let path = folder.join("config.json");
            let value = open::read_config(&found.files, &path, self.class)?;
            return Ok((Said::by_file(&value, &path)?, None));
        }
        let named = (self.of_file)(open::source_at(place, &found.files)?)?;
        let configs = match place {
            Place::File(file) => file.configs().collect(),
            Place::Folder(_) | Place::Inside(_) => Vec::new(),
        };
        let config = open::beside(&found.files, configs, self.class);
        let config = config.as_ref().map(|(value, path)| (value, path.as_path()));
        Ok((Said::by_beside(config, &*named, self.infer, self.tensors)?, Some(named)))
    }
}
