//! The autoencoder's dimensions, as its `config.json` in diffusers layout gives them.

use serde::Deserialize;

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
}
