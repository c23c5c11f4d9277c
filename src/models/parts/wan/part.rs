//! The autoencoder as a part of a model.

use std::{path::Path, sync::Arc};

use serde_json::Value;

use super::{WanConfig, names};
use crate::{
    base::geometry::LatentGeometry,
    error::{Error, Result},
    models::{
        Place,
        parts::{
            Autoencoder, ModelPart, check_geometry,
            config::Said,
            kl::{self, Side},
            open::{self, ConfigFile},
        },
        strangers::looks_like,
    },
    weights::{Expected, Files, TensorSource},
};

/// What diffusers calls the class.
pub(crate) const CLASS: &str = "AutoencoderKLQwenImage";

/// What a family says of its autoencoders.
pub(crate) struct WanKind {
    /// The family's name.
    pub(crate) family: &'static str,
    /// A file to name in advice.
    pub(crate) example: &'static str,
    /// How the family's pixels become latents.
    pub(crate) geometry: LatentGeometry,
}

impl WanKind {
    /// Every tensor of the autoencoder that this config, which was read at `path`, describes, as diffusers stores them.
    ///
    /// # Errors
    /// [`Error::Model`] when it makes no sense.
    pub(crate) fn tensors(&self, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        let config = Said::<WanConfig>::by_file(config, path)?.config;
        Ok(names::stored(kl::tensors_of_both(&config.dimensions())?, config.num_res_blocks))
    }

    /// Opens and checks the autoencoder at a place.
    ///
    /// # Errors
    /// [`Error::Model`] when it is another kind of file, incomplete or damaged; [`Error::Disk`] when it cannot be read.
    pub(crate) fn open(&self, place: &Place, files: &Files) -> Result<Autoencoder> {
        let advice = format!("give {}'s {} with --vae", self.family, self.example);
        let config = open::config_at(place, files, ["_class_name", CLASS, &advice])?;
        let own = config.as_ref().map_or(Ok(None), ConfigFile::own)?;
        let beside = config.as_ref().and_then(ConfigFile::beside);
        let source = open::source_at(place, files)?;
        let Some(named) = names::wan(Arc::clone(&source)) else {
            let what =
                format!("{} is not the autoencoder of {}: {}", source.describe(), self.family, looks_like(&*source));
            return Err(Error::model(what, advice));
        };
        let source: Arc<dyn TensorSource> = Arc::new(named);
        let tensors = |config: &WanConfig| kl::tensors(&config.dimensions(), Side::Decoder);
        let said = own.map_or_else(|| Said::by_beside(beside, &*source, WanConfig::infer, tensors), Ok)?;
        let config = said.config.dimensions();
        check_geometry(&config, &said.file, self.family, &self.geometry).map_err(|misfit| said.with_unsaid(misfit))?;
        said.check_weights(&*source, &tensors(&said.config)?)?;
        Ok(Autoencoder { part: ModelPart { config, source }, latent_rgb: None, geometry: self.geometry })
    }
}
