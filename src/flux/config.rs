//! The transformer's dimensions, as its `config.json` in diffusers layout gives them.

use serde::Deserialize;

/// Dimensions of a FLUX.1 transformer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FluxConfig {
    /// Channels of one packed token; 64.
    pub in_channels: usize,
    /// Double-stream blocks; 19 in FLUX.1.
    pub num_layers: usize,
    /// Single-stream blocks; 38 in FLUX.1.
    pub num_single_layers: usize,
    /// D: channels of one attention head; 128.
    pub attention_head_dim: usize,
    /// H: attention heads; 24.
    pub num_attention_heads: usize,
    /// Width of the T5 embeddings; 4096.
    pub joint_attention_dim: usize,
    /// Width of the pooled CLIP embedding; 768.
    pub pooled_projection_dim: usize,
    /// Whether the model takes a guidance scale (dev and Krea do, schnell does not).
    #[serde(default)]
    pub guidance_embeds: bool,
    /// Rotary channels of the three axes (text, height, width); 16, 56, 56.
    #[serde(default = "flux_axes")]
    pub axes_dims_rope: [usize; 3],
    /// theta of the rotary embedding.
    #[serde(default = "flux_theta")]
    pub rope_theta: f64,
    /// The training resolution in pixels, where the model says it; FLUX.1's is 1024.
    #[serde(default)]
    pub base_resolution: Option<usize>,
    /// lambda_s that served this model best, where it says so.
    #[serde(default)]
    pub dype_scale: Option<f64>,
    /// lambda_t that served this model best, where it says so.
    #[serde(default)]
    pub dype_exponent: Option<f64>,
}

/// Source: black-forest-labs/flux, `axes_dim` of every FLUX.1.
fn flux_axes() -> [usize; 3] {
    [16, 56, 56]
}

/// Source: black-forest-labs/flux, `theta` of every FLUX.1.
fn flux_theta() -> f64 {
    10_000.0
}

impl FluxConfig {
    /// FLUX.1-dev and Krea-dev.
    pub fn flux1_dev() -> Self {
        Self {
            in_channels: 64,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: true,
            axes_dims_rope: flux_axes(),
            rope_theta: flux_theta(),
            base_resolution: None,
            dype_scale: None,
            dype_exponent: None,
        }
    }

    /// Width of the token streams: heads times channels of a head.
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}
