//! The autoencoder's dimensions, as its `config.json` in diffusers layout gives them.

use serde::Deserialize;

use crate::error::{Error, Result};

/// Dimensions of an AutoencoderKL.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct VaeConfig {
    /// Channels of the stages, finest first; 128, 256, 512, 512.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of an encoder stage; a decoder stage has one more.
    pub layers_per_block: usize,
    /// Channels of the latents; 16.
    pub latent_channels: usize,
    /// Groups of the group norms; 32.
    #[serde(default = "groups")]
    pub norm_num_groups: usize,
    /// The latents were multiplied by this.
    pub scaling_factor: f64,
    /// This was subtracted from the latents before.
    #[serde(default)]
    pub shift_factor: Option<f64>,
    /// Whether the middle block has attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Whether a 1 x 1 convolution stands after the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether a 1 x 1 convolution stands before the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// Kinds of the encoder's stages; only `DOWN_BLOCK` is known.
    #[serde(default)]
    pub down_block_types: Vec<String>,
    /// Kinds of the decoder's stages; only `UP_BLOCK` is known.
    #[serde(default)]
    pub up_block_types: Vec<String>,
    /// The activation between convolutions; only SiLU is known.
    #[serde(default = "silu")]
    pub act_fn: String,
}

/// diffusers' `DownEncoderBlock2D`: residual blocks, then a convolution of stride 2.
const DOWN_BLOCK: &str = "DownEncoderBlock2D";
/// diffusers' `UpDecoderBlock2D`: residual blocks, then doubling and a convolution.
const UP_BLOCK: &str = "UpDecoderBlock2D";
/// x / (1 + e^-x), under diffusers' name.
const SILU: &str = "silu";
/// Far more channels than any autoencoder has; sizes computed from them cannot overflow.
const MAX_CHANNELS: usize = 1 << 14;
/// Far more layers than any stage has.
const MAX_LAYERS: usize = 64;
/// Far more stages than any autoencoder has.
const MAX_STAGES: usize = 8;

fn groups() -> usize {
    32
}

/// What diffusers' AutoencoderKL takes where its config does not say.
fn yes() -> bool {
    true
}

fn silu() -> String {
    SILU.into()
}

impl Default for VaeConfig {
    /// What most published autoencoders share: four stages, with attention and without convolutions at the seam; scale 1.
    fn default() -> Self {
        Self {
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 16,
            norm_num_groups: groups(),
            scaling_factor: 1.0,
            shift_factor: None,
            mid_block_add_attention: yes(),
            use_quant_conv: false,
            use_post_quant_conv: false,
            down_block_types: vec![DOWN_BLOCK.into(); 4],
            up_block_types: vec![UP_BLOCK.into(); 4],
            act_fn: silu(),
        }
    }
}

impl VaeConfig {
    /// Pixels per latent row or column: each stage but the finest doubles.
    pub fn scale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that the numbers are those of an autoencoder of this kind; `whose` they are stands before what is wrong.
    ///
    /// # Errors
    /// [`Error::Model`] that names the number.
    pub fn check(&self, whose: &str) -> Result<()> {
        match self.wrong() {
            Some(what) => Err(Error::model(format!("{whose}: {what}"), "check the vae's config.json")),
            None => Ok(()),
        }
    }

    /// What is wrong first.
    fn wrong(&self) -> Option<String> {
        let (stages, groups) = (&self.block_out_channels, self.norm_num_groups);
        let mut sizes = stages.iter().chain([&self.latent_channels, &groups]);
        if !(1..=MAX_STAGES).contains(&stages.len())
            || !sizes.all(|n| (1..=MAX_CHANNELS).contains(n))
            || self.layers_per_block > MAX_LAYERS
        {
            return Some("its dimensions are out of any range".into());
        }
        if let Some(odd) = stages.iter().find(|channels| **channels % groups != 0) {
            return Some(format!("{odd} channels are not divisible into {groups} groups"));
        }
        let shift = self.shift_factor.unwrap_or(0.0);
        if !self.scaling_factor.is_normal() || !shift.is_finite() {
            return Some(format!("scaling_factor {} and shift_factor {shift} cannot be undone", self.scaling_factor));
        }
        let kinds = self.down_block_types.iter().map(|kind| (kind, DOWN_BLOCK));
        let kinds = kinds.chain(self.up_block_types.iter().map(|kind| (kind, UP_BLOCK)));
        let mut kinds = kinds.chain([(&self.act_fn, SILU)]);
        kinds
            .find(|(kind, known)| kind != known)
            .map(|(kind, known)| format!("{kind} is not supported, only {known} is"))
    }
}
