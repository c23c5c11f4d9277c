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
    /// Whether a 1 x 1 convolution stands before the decoder (not in FLUX.1).
    #[serde(default)]
    pub use_post_quant_conv: bool,
}

fn groups() -> usize {
    32
}

fn yes() -> bool {
    true
}

impl VaeConfig {
    /// FLUX.1's autoencoder.
    pub fn flux1() -> Self {
        Self {
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 16,
            norm_num_groups: 32,
            scaling_factor: 0.3611,
            shift_factor: Some(0.1159),
            mid_block_add_attention: true,
            use_post_quant_conv: false,
        }
    }

    /// Pixels per latent row or column: each stage but the finest doubles.
    pub fn scale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that the numbers are those of an autoencoder.
    ///
    /// # Errors
    /// [`Error::Model`] that names the number.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| {
            let hint = "the autoencoder's config.json is damaged or belongs to another kind of model";
            Err(Error::model(format!("the autoencoder's configuration makes no sense: {what}"), hint))
        };
        let groups = self.norm_num_groups;
        if !(1..=8).contains(&self.block_out_channels.len()) {
            return wrong(format!("{} stages in block_out_channels, expected 1 to 8", self.block_out_channels.len()));
        }
        for &channels in &self.block_out_channels {
            if groups == 0 || channels == 0 || channels % groups != 0 || channels > MAX_CHANNELS {
                return wrong(format!("{channels} channels in {groups} norm groups"));
            }
        }
        if !(1..=MAX_CHANNELS).contains(&self.latent_channels) || self.layers_per_block > MAX_LAYERS {
            return wrong(format!(
                "{} latent channels, {} layers per block",
                self.latent_channels, self.layers_per_block
            ));
        }
        let shift = self.shift_factor.unwrap_or(0.0);
        if !self.scaling_factor.is_normal() || !shift.is_finite() {
            return wrong(format!("scaling_factor {}, shift_factor {shift}", self.scaling_factor));
        }
        Ok(())
    }
}

/// Far more channels than any autoencoder has; sizes computed from them cannot overflow.
const MAX_CHANNELS: usize = 1 << 14;
/// Far more layers than any stage has.
const MAX_LAYERS: usize = 64;
