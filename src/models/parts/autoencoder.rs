//! The KL autoencoder as a part of a model: found under either of its layouts' names, and decoding what the loop leaves.

use candle_core::{DType, Tensor};
use serde_json::Value;

use std::{path::Path, sync::Arc};

use super::{
    ModelPart,
    config::{Config, Said},
    infer,
    kl::{self, Banding, Decoder, Design, Encoder, Posterior, RowSink, RowSource, Side, VaeConfig, Ways},
    open::{self, ConfigFile},
    vae_names,
    wan::CLASS as WAN_CLASS,
};
use crate::{
    base::{
        device::DeviceKind,
        geometry::{LatentGeometry, LatentSize},
        progress::Observer,
    },
    error::{Error, Result},
    models::{Decode, Encode, On, Place, RgbFactors, strangers::looks_like},
    weights::{Expected, Files, TensorSource},
};

/// An autoencoder, open.
#[derive(Clone)]
pub struct Autoencoder {
    /// Its dimensions and tensors.
    pub part: ModelPart<VaeConfig>,
    /// The colours of its latents, where its config brings its own.
    pub latent_rgb: Option<RgbFactors>,
    /// How the model's pixels become latents and tokens.
    pub geometry: LatentGeometry,
}

/// What a family says of its autoencoders.
pub(crate) struct AutoencoderKind {
    /// The family's name and the flag that gives another autoencoder.
    pub(crate) family: &'static str,
    /// A file to name in advice.
    pub(crate) example: &'static str,
    /// The latents' scale and shift, which the shapes of tensors do not show.
    pub(crate) like: fn() -> VaeConfig,
    /// How the family's pixels become latents.
    pub(crate) geometry: LatentGeometry,
}

/// A config that holds a KL autoencoder's.
pub(crate) trait KlConfig: Config + Clone + From<VaeConfig> + AsRef<VaeConfig> {
    /// The class that a config says it is of.
    const CLASS: &'static str;
}

impl KlConfig for VaeConfig {
    const CLASS: &'static str = "AutoencoderKL";
}

impl AsRef<VaeConfig> for VaeConfig {
    fn as_ref(&self) -> &VaeConfig {
        self
    }
}

impl AutoencoderKind {
    /// Opens and checks the autoencoder at a place.
    ///
    /// # Errors
    /// [`Error::Model`] when it is another kind of file, incomplete or damaged; [`Error::Disk`] when it cannot be read.
    pub(crate) fn open(&self, place: &Place, files: &Files) -> Result<Autoencoder> {
        Ok(self.open_as::<VaeConfig>(place, files)?.0)
    }

    /// The same of another class, and what its config says beside.
    ///
    /// # Errors
    /// As [`AutoencoderKind::open`].
    pub(crate) fn open_as<C: KlConfig>(&self, place: &Place, files: &Files) -> Result<(Autoencoder, C)> {
        let advice = format!("give {}'s autoencoder with --vae", self.family);
        let config = open::config_at(place, files, ["_class_name", C::CLASS, &advice])?;
        let own = config.as_ref().map_or(Ok(None), ConfigFile::own::<C>)?;
        let beside = config.as_ref().and_then(ConfigFile::beside);
        let source = open::source_at(place, files)?;
        let source = if matches!(place, Place::Folder(_)) { source } else { self.named(source)? };
        let infer = |source: &dyn TensorSource| infer::vae(source, &(self.like)()).map(C::from);
        let tensors = |config: &C| kl::tensors(config.as_ref(), Side::Decoder);
        let said = own.map_or_else(|| Said::by_beside(beside, &*source, infer, tensors), Ok)?;
        self.check(&said, &*source)?;
        let value = config.filter(|config| said.file == config.path().display().to_string());
        let value = value.map_or(Value::Null, ConfigFile::into_value);
        let kl = said.config.as_ref().clone();
        let latent_rgb = RgbFactors::from_config(&value, kl.latent_channels)?;
        let part = ModelPart { config: kl, source };
        Ok((Autoencoder { part, latent_rgb, geometry: self.geometry }, said.config))
    }

    /// Every tensor of the autoencoder that this config, which was read at `path`, describes.
    ///
    /// # Errors
    /// [`Error::Model`] when it makes no sense.
    pub(crate) fn tensors(config: &Value, path: &Path) -> Result<Vec<Expected>> {
        kl::tensors_of_both(&Said::<VaeConfig>::by_file(config, path)?.config)
    }

    /// The tensors of a file under diffusers' names.
    fn named(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        if let Some(renamed) = vae_names::vae(Arc::clone(&source)) {
            return Ok(Arc::new(renamed));
        }
        let what = format!("{} is not an autoencoder: {}", source.describe(), looks_like(&*source));
        Err(Error::model(what, format!("give {}'s {} with --vae", self.family, self.example)))
    }

    fn check<C: KlConfig>(&self, said: &Said<C>, source: &dyn TensorSource) -> Result<()> {
        let config = said.config.as_ref();
        check_geometry(config, &said.file, self.family, &self.geometry).map_err(|misfit| said.with_unsaid(misfit))?;
        said.check_weights(source, &kl::tensors(config, Side::Decoder)?)
    }
}

/// The autoencoder that `file` describes works on latents as a family has them.
///
/// # Errors
/// [`Error::Model`] when it does not.
pub(crate) fn check_geometry(config: &VaeConfig, file: &str, family: &str, geometry: &LatentGeometry) -> Result<()> {
    if config.latent_channels != geometry.channels {
        let (found, expected) = (config.latent_channels, geometry.channels);
        let what = format!("{file}: it works on {found} latent channels, {family}'s autoencoder on {expected}");
        return Err(Error::model(what, format!("this autoencoder is of another model; give {family}'s with --vae")));
    }
    if config.scale() != geometry.px_per_latent {
        let (found, expected) = (config.block_out_channels.len(), geometry.px_per_latent.ilog2() + 1);
        let what = format!("{file}: it has {found} stages, {family}'s autoencoder has {expected}");
        return Err(Error::model(what, "check the vae's config.json"));
    }
    Ok(())
}

impl Decode for Autoencoder {
    fn class(&self) -> Option<&'static str> {
        Some(match self.part.config.design {
            Design::Kl => VaeConfig::CLASS,
            Design::Wan => WAN_CLASS,
        })
    }

    fn geometry(&self) -> LatentGeometry {
        self.geometry
    }

    fn ways(&self, on: (DeviceKind, DType), size: LatentSize) -> Result<Ways> {
        Ways::new(&self.part.config, Side::Decoder, on, size)
    }

    fn decode(
        &self,
        latents: &Tensor,
        options: &Banding,
        dtype: DType,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        let weights = self.part.weights(dtype, latents.device());
        Decoder::open(self.part.config.clone(), weights)?.decode(latents, options, observer, sink)
    }
}

impl Autoencoder {
    /// Whether its files hold an encoder: what decodes only is published too.
    pub(crate) fn has_encoder(&self) -> bool {
        self.part.source.shape("encoder.conv_in.weight").is_some()
    }
}

impl Encode for Autoencoder {
    fn geometry(&self) -> LatentGeometry {
        self.geometry
    }

    fn ways(&self, on: (DeviceKind, DType), size: LatentSize) -> Result<Ways> {
        Ways::new(&self.part.config, Side::Encoder, on, size)
    }

    fn encode(
        &self,
        (posterior, size): (Posterior<'_>, LatentSize),
        picture: &mut RowSource<'_>,
        options: &Banding,
        on: &On,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let weights = self.part.weights(on.dtype, &on.device);
        Encoder::open(self.part.config.clone(), weights)?.encode_to(posterior, size, picture, options, observer)
    }
}
