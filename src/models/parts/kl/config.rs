//! The autoencoder's dimensions, as its `config.json` in diffusers layout gives them.

use std::path::Path;

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    models::parts::config::{self, Config, Key, computed, each, idle, one_of, optional},
};

/// Dimensions of an AutoencoderKL.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of the stages, finest first; 128, 256, 512, 512.
    pub block_out_channels: Vec<usize>,
    /// Channels of the decoder's stages, finest first, where they are others than the encoder's.
    pub decoder_block_out_channels: Option<Vec<usize>>,
    /// Residual blocks of an encoder stage; a decoder stage has one more.
    pub layers_per_block: usize,
    /// Channels of the latents; 16.
    pub latent_channels: usize,
    /// Groups of the group norms; 32.
    pub norm_num_groups: usize,
    /// The latents were multiplied by this.
    pub scaling_factor: f64,
    /// This was subtracted from the latents before.
    pub shift_factor: Option<f64>,
    /// Whether the middle block has attention.
    pub mid_block_add_attention: bool,
    /// Whether a 1 x 1 convolution stands after the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1 x 1 convolution stands before the decoder.
    pub use_post_quant_conv: bool,
    /// Kinds of the encoder's stages, one each: residual blocks, then a convolution of stride 2.
    pub down_block_types: Vec<String>,
    /// Kinds of the decoder's stages, one each: residual blocks, then doubling and a convolution.
    pub up_block_types: Vec<String>,
    /// What its layers are like.
    #[serde(skip)]
    pub design: Design,
    /// Mean and standard deviation of each channel of the latents, which were taken out of them where there are any.
    #[serde(skip)]
    pub latents: Option<LatentStatistics>,
}

/// What the layers of an autoencoder are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Design {
    /// Group norms; what doubles keeps its channels.
    #[default]
    Kl,
    /// Norms over channels; what doubles halves its channels ([`super::super::wan`]).
    Wan,
}

/// What was taken out of each channel of the latents.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentStatistics {
    /// Means, one a channel.
    pub mean: Vec<f64>,
    /// Standard deviations, one a channel.
    pub std: Vec<f64>,
}

/// diffusers' name of the encoder's stages.
pub(crate) const DOWN_BLOCK: &str = "DownEncoderBlock2D";
/// diffusers' name of the decoder's stages.
pub(crate) const UP_BLOCK: &str = "UpDecoderBlock2D";
/// Far more channels than any autoencoder has; sizes computed from them cannot overflow.
const MAX_CHANNELS: usize = 1 << 14;
/// Far more layers than any stage has.
const MAX_LAYERS: usize = 64;
/// Far more stages than any autoencoder has.
const MAX_STAGES: usize = 8;

/// Source: diffusers, `AutoencoderKL.__init__`.
const KEYS: &[Key] = &[
    // Red, green and blue.
    one_of("in_channels", "3", &["3"]),
    one_of("out_channels", "3", &["3"]),
    each("down_block_types", r#"["DownEncoderBlock2D"]"#, DOWN_BLOCK),
    each("up_block_types", r#"["UpDecoderBlock2D"]"#, UP_BLOCK),
    computed("block_out_channels", "[64]"),
    computed("layers_per_block", "1"),
    one_of("act_fn", r#""silu""#, &[r#""silu""#, r#""swish""#]),
    computed("latent_channels", "4"),
    computed("norm_num_groups", "32"),
    // Of tiled decoding there.
    idle("sample_size", "32"),
    computed("scaling_factor", "0.18215"),
    optional("shift_factor", "0.1159"),
    // FLUX's pipelines do not look at these.
    idle("latents_mean", "null"),
    idle("latents_std", "null"),
    idle("force_upcast", "true"),
    computed("use_quant_conv", "true"),
    computed("use_post_quant_conv", "true"),
    computed("mid_block_add_attention", "true"),
];

impl Default for VaeConfig {
    /// What most published autoencoders share: four stages, with attention and without convolutions at the seam; scale 1.
    fn default() -> Self {
        Self {
            block_out_channels: vec![128, 256, 512, 512],
            decoder_block_out_channels: None,
            layers_per_block: 2,
            latent_channels: 16,
            norm_num_groups: 32,
            scaling_factor: 1.0,
            shift_factor: None,
            mid_block_add_attention: true,
            use_quant_conv: false,
            use_post_quant_conv: false,
            down_block_types: vec![DOWN_BLOCK.into(); 4],
            up_block_types: vec![UP_BLOCK.into(); 4],
            design: Design::Kl,
            latents: None,
        }
    }
}

impl VaeConfig {
    /// Pixels per latent row or column: each stage but the finest doubles.
    pub fn scale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Channels of the decoder's stages, finest first.
    pub fn decoder_channels(&self) -> &[usize] {
        self.decoder_block_out_channels.as_ref().unwrap_or(&self.block_out_channels)
    }

    /// What a channel of the latents was multiplied by, after this was subtracted from it.
    pub(super) fn factor_and_shift(&self, channel: usize) -> (f64, f64) {
        match &self.latents {
            None => (self.scaling_factor, self.shift_factor.unwrap_or(0.0)),
            Some(LatentStatistics { mean, std }) => (1.0 / std[channel], mean[channel]),
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, says what is not computed, or is no
    /// autoencoder's.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// What is wrong first.
    fn wrong(&self) -> Option<String> {
        let (stages, groups) = (&self.block_out_channels, self.norm_num_groups);
        let decoder = self.decoder_channels();
        let mut sizes = stages.iter().chain(decoder).chain([&self.latent_channels, &groups]);
        if !(1..=MAX_STAGES).contains(&stages.len())
            || !sizes.all(|n| (1..=MAX_CHANNELS).contains(n))
            || self.layers_per_block > MAX_LAYERS
        {
            return Some("its dimensions are out of any range".into());
        }
        if decoder.len() != stages.len() {
            let (found, wanted) = (decoder.len(), stages.len());
            return Some(format!("decoder_block_out_channels has {found} stages, block_out_channels {wanted}"));
        }
        if let Some(odd) = stages.iter().chain(decoder).find(|channels| **channels % groups != 0) {
            return Some(format!("{odd} channels are not divisible into {groups} groups"));
        }
        let shift = self.shift_factor.unwrap_or(0.0);
        if !self.scaling_factor.is_normal() || !shift.is_finite() {
            return Some(format!("scaling_factor {} and shift_factor {shift} cannot be undone", self.scaling_factor));
        }
        let kinds = [("down_block_types", &self.down_block_types), ("up_block_types", &self.up_block_types)];
        let (name, kinds) = kinds.into_iter().find(|(_, kinds)| kinds.len() != stages.len())?;
        let (found, wanted) = (kinds.len(), stages.len());
        Some(format!("{name} names {found} stages, block_out_channels has {wanted}"))
    }
}

impl Config for VaeConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str = "check the vae's config.json, or use the original model's";

    fn check(&self) -> Result<()> {
        self.wrong().map_or(Ok(()), |what| Err(Error::model(what, Self::ADVICE)))
    }
}
