//! FLUX.2's autoencoder: a KL one of 32 channels, of whose latents 2 x 2 become one of 128, normalised by the statistics of a batch
//! norm instead of a scale and a shift.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    base::{
        device::DeviceKind,
        geometry::{LatentGeometry, LatentSize},
        progress::Observer,
    },
    error::{Error, Result},
    models::{
        Decode, Encode, On, Place, RgbFactors,
        parts::{
            Autoencoder, AutoencoderKind, KlConfig,
            config::{Config, Key, Said, computed, each, idle, one_of, optional},
            kl::{self, Banding, Posterior, RowSink, RowSource, Side, VaeConfig, Ways},
        },
    },
    weights::{Expected, Files, check_all},
};

use super::LATENTS;

/// Latents of the autoencoder itself: 32 channels at an eighth, of which 2 x 2 are a token.
const INNER: LatentGeometry = LatentGeometry { channels: 32, px_per_latent: 8, patch: 2 };

/// An AutoencoderKLFlux2's dimensions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Flux2VaeConfig {
    /// Encoder and decoder; the file says no scale and no shift.
    #[serde(flatten)]
    pub kl: VaeConfig,
    /// Added to the variances before their roots are taken; 1e-4.
    pub batch_norm_eps: f64,
}

/// Source: diffusers, `AutoencoderKLFlux2.__init__`.
const KEYS: &[Key] = &[
    // Red, green and blue.
    one_of("in_channels", "3", &["3"]),
    one_of("out_channels", "3", &["3"]),
    each("down_block_types", FOUR_DOWN, "DownEncoderBlock2D"),
    each("up_block_types", FOUR_UP, "UpDecoderBlock2D"),
    computed("block_out_channels", "[128, 256, 512, 512]"),
    optional("decoder_block_out_channels", "[96, 192, 384, 384]"),
    computed("layers_per_block", "2"),
    one_of("act_fn", r#""silu""#, &[r#""silu""#, r#""swish""#]),
    computed("latent_channels", "32"),
    computed("norm_num_groups", "32"),
    // Of tiled decoding there.
    idle("sample_size", "1024"),
    computed("use_quant_conv", "true"),
    computed("use_post_quant_conv", "true"),
    computed("mid_block_add_attention", "true"),
    computed("batch_norm_eps", "0.0001"),
    // Training.
    idle("batch_norm_momentum", "0.1"),
    one_of("patch_size", "[2, 2]", &["[2, 2]"]),
];

const FOUR_DOWN: &str = r#"["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]"#;
const FOUR_UP: &str = r#"["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]"#;

impl Config for Flux2VaeConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str = VaeConfig::ADVICE;

    fn check(&self) -> Result<()> {
        self.kl.check()?;
        match self.batch_norm_eps {
            eps if eps.is_finite() && eps >= 0.0 => Ok(()),
            eps => {
                let what = format!("batch_norm_eps is {eps}, expected a number of at least 0");
                Err(Error::model(what, Self::ADVICE))
            }
        }
    }
}

impl From<VaeConfig> for Flux2VaeConfig {
    fn from(kl: VaeConfig) -> Self {
        Self { kl, batch_norm_eps: 1e-4 }
    }
}

impl AsRef<VaeConfig> for Flux2VaeConfig {
    fn as_ref(&self) -> &VaeConfig {
        &self.kl
    }
}

impl KlConfig for Flux2VaeConfig {
    const CLASS: &'static str = "AutoencoderKLFlux2";
}

/// What its tensors' shapes do not show.
fn like() -> VaeConfig {
    VaeConfig { latent_channels: INNER.channels, ..VaeConfig::default() }
}

/// An autoencoder, open.
#[derive(Clone)]
pub struct Flux2Autoencoder {
    /// Encoder and decoder.
    pub inner: Autoencoder,
    batch_norm_eps: f64,
}

/// The names of the batch norm's statistics.
const STATISTICS: [&str; 2] = ["bn.running_mean", "bn.running_var"];

/// Every tensor one side has: encoder or decoder, and the statistics that both need.
///
/// # Errors
/// As [`kl::tensors`].
pub fn vae_tensors(config: &Flux2VaeConfig, side: Side) -> Result<Vec<Expected>> {
    let mut tensors = kl::tensors(&config.kl, side)?;
    tensors.extend(STATISTICS.map(|name| (name.to_owned(), vec![LATENTS.channels])));
    Ok(tensors)
}

impl Flux2Autoencoder {
    /// Opens and checks the autoencoder at a place.
    ///
    /// # Errors
    /// As [`AutoencoderKind::open`].
    pub(super) fn open(family: &'static str, place: &Place, files: &Files) -> Result<Self> {
        let kind = AutoencoderKind { family, example: "flux2-vae.safetensors", like, geometry: INNER };
        let (inner, config) = kind.open_as::<Flux2VaeConfig>(place, files)?;
        check_all(&*inner.part.source, &STATISTICS.map(|name| (name.to_owned(), vec![LATENTS.channels])))?;
        Ok(Self { inner, batch_norm_eps: config.batch_norm_eps })
    }

    /// Every tensor of the autoencoder that this config, which was read at `path`, describes.
    ///
    /// # Errors
    /// [`Error::Model`] when it makes no sense.
    pub(super) fn tensors(config: &Value, path: &Path) -> Result<Vec<Expected>> {
        let config = Said::<Flux2VaeConfig>::by_file(config, path)?.config;
        Ok([vae_tensors(&config, Side::Encoder)?, vae_tensors(&config, Side::Decoder)?].concat())
    }

    /// Mean and deviation of each of 128 channels, f32, [1, 128, 1, 1] each. They are stored in bf16.
    fn statistics(&self, device: &Device) -> Result<[Tensor; 2]> {
        let weights = self.inner.part.weights(DType::F32, device);
        let [mean, variance] = STATISTICS.map(|name| weights.get(name, &[LATENTS.channels]));
        let deviation = variance?.affine(1.0, self.batch_norm_eps)?.sqrt()?;
        let shape = (1, LATENTS.channels, 1, 1);
        Ok([mean?.reshape(shape)?, deviation.reshape(shape)?])
    }

    /// The colours of the loop's latents, where the config brings those of the 32 channels behind the patches, as other programs have
    /// them: of the normalised latents. A token's colour is the mean of its four.
    pub(super) fn latent_rgb(&self) -> Option<RgbFactors> {
        let RgbFactors { factors, bias } = self.inner.latent_rgb.as_ref()?;
        let quarters = |row: &[f32; 3]| [row.map(|factor| factor / 4.0); 4];
        Some(RgbFactors { factors: factors.iter().flat_map(quarters).collect(), bias: *bias })
    }

    /// Latents of the loop [1, 128, h, w] as the decoder takes them: the norm undone, each token's channels as 2 x 2 of 32:
    /// [1, 32, 2h, 2w].
    ///
    /// # Errors
    /// When they are not of 128 channels, or the device fails.
    pub fn unpatched(&self, latents: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = latents.dims4()?;
        let [mean, deviation] = self.statistics(latents.device())?;
        let latents = latents.to_dtype(DType::F32)?.broadcast_mul(&deviation)?.broadcast_add(&mean)?;
        let patches = latents.reshape(&[1, INNER.channels, 2, 2, h, w][..])?; // [1, 32, 2, 2, h, w]
        let rows = patches.permute([0, 1, 4, 2, 5, 3])?; // [1, 32, h, 2, w, 2]
        Ok(rows.reshape((1, INNER.channels, 2 * h, 2 * w))?) // [1, 32, 2h, 2w]
    }

    /// What the encoder gives [1, 32, 2h, 2w] as the loop takes it [1, 128, h, w].
    fn patched(&self, latents: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = latents.dims4()?;
        let (h, w) = (height / 2, width / 2);
        let rows = latents.reshape(&[1, INNER.channels, h, 2, w, 2][..])?; // [1, 32, h, 2, w, 2]
        let patches = rows.permute([0, 1, 3, 5, 2, 4])?; // [1, 32, 2, 2, h, w]
        let latents = patches.reshape((1, LATENTS.channels, h, w))?; // [1, 128, h, w]
        let [mean, deviation] = self.statistics(latents.device())?;
        Ok(latents.broadcast_sub(&mean)?.broadcast_div(&deviation)?)
    }
}

/// The autoencoder's own latents, for a size of the loop's.
fn inner_size(size: LatentSize) -> LatentSize {
    LatentSize { height: 2 * size.height, width: 2 * size.width }
}

impl Decode for Flux2Autoencoder {
    fn class(&self) -> Option<&'static str> {
        Some(Flux2VaeConfig::CLASS)
    }

    fn geometry(&self) -> LatentGeometry {
        LATENTS
    }

    fn ways(&self, on: (DeviceKind, DType), size: LatentSize) -> Result<Ways> {
        Decode::ways(&self.inner, on, inner_size(size))
    }

    fn decode(
        &self,
        latents: &Tensor,
        options: &Banding,
        dtype: DType,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        self.inner.decode(&self.unpatched(latents)?, options, dtype, observer, sink)
    }
}

impl Encode for Flux2Autoencoder {
    fn geometry(&self) -> LatentGeometry {
        LATENTS
    }

    fn ways(&self, on: (DeviceKind, DType), size: LatentSize) -> Result<Ways> {
        Encode::ways(&self.inner, on, inner_size(size))
    }

    /// The mean: the pipelines of this family take the mode of the distribution.
    fn samples(&self) -> bool {
        false
    }

    fn encode(
        &self,
        (posterior, size): (Posterior<'_>, LatentSize),
        picture: &mut RowSource<'_>,
        options: &Banding,
        on: &On,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        self.patched(&self.inner.encode((posterior, inner_size(size)), picture, options, on, observer)?)
    }
}
