//! The transformer's dimensions, as its `config.json` in diffusers layout gives them.

use serde::Deserialize;

use crate::{
    base::geometry::{LatentGeometry, TokenGrid},
    error::{Error, Result},
    methods::Side,
    models::parts::open,
    nn::{PositionAxis, PositionIds, TokenRun},
    recipe::ModelFacts,
};

/// FLUX.1's latents. Source: black-forest-labs/flux, `AutoEncoderParams` (16 channels, a factor of 8) and `prepare` (2 x 2).
pub const LATENTS: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };

/// The training resolution of every FLUX.1, in pixels. Source: black-forest-labs/flux, trained at about one megapixel.
const BASE_RESOLUTION_PX: usize = 1024;
/// T5 tokens of FLUX.1-dev. Source: diffusers, `FluxPipeline.__call__`.
const DEV_SEQUENCE_LENGTH: usize = 512;
/// T5 tokens FLUX.1-schnell was distilled with. Source: its model card.
const SCHNELL_SEQUENCE_LENGTH: usize = 256;

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

    /// The training resolution in pixels.
    pub fn base_resolution_px(&self) -> usize {
        self.base_resolution.unwrap_or(BASE_RESOLUTION_PX)
    }

    /// What fills the gaps of a recipe, for a tokenizer that reads at most `text_tokens` where it says so.
    pub fn recipe_facts(&self, text_tokens: Option<usize>) -> ModelFacts {
        let usual = if self.guidance_embeds { DEV_SEQUENCE_LENGTH } else { SCHNELL_SEQUENCE_LENGTH };
        ModelFacts {
            base_resolution: self.base_resolution_px(),
            dype_scale: self.dype_scale,
            dype_exponent: self.dype_exponent,
            takes_guidance: self.guidance_embeds,
            text_tokens: text_tokens.map_or(usual, |most| usual.min(most)),
        }
    }

    /// L: patches a side at the training resolution; 64 for FLUX.1.
    pub fn base_patches(&self) -> usize {
        self.base_resolution_px() / LATENTS.px_per_token()
    }

    /// Where tokens stand: text on one spot, (0, 0, 0), the picture's at (0, row, column).
    pub fn position_ids(&self, grid: TokenGrid, text_tokens: usize) -> PositionIds {
        let sides = [None, Some(Side::Height), Some(Side::Width)];
        let axes = self.axes_dims_rope.into_iter().zip(sides);
        PositionIds {
            axes: axes.map(|(dim, side)| PositionAxis { dim, theta: self.rope_theta, side }).collect(),
            runs: vec![
                TokenRun::Line { tokens: text_tokens, origin: vec![0; 3], step: vec![0; 3] },
                TokenRun::Grid { grid, origin: vec![0; 3] },
            ],
        }
    }

    /// Refuses dimensions that no FLUX.1 transformer for pictures from text can have.
    ///
    /// # Errors
    /// [`Error::Model`] that names the key and both values.
    pub fn validate(&self) -> Result<()> {
        let token_channels = LATENTS.token_channels();
        if self.in_channels != token_channels {
            let kind = match self.in_channels {
                128 => "FLUX.1 Canny or Depth",
                384 => "FLUX.1 Fill",
                _ => "another kind of FLUX",
            };
            let found = self.in_channels;
            let what =
                format!("the transformer takes {found} channels a token, not {token_channels}; it looks like {kind}");
            let hint = "give a text-to-image model: FLUX.1-dev, FLUX.1-Krea-dev or FLUX.1-schnell";
            return Err(Error::model(what, hint));
        }
        let refuse = |what: String| Err(Error::model(what, "check the transformer's config.json"));
        if let Some((name, found)) = self.out_of_range() {
            return refuse(format!("its dimensions are out of any range: {name} is {found}"));
        }
        let (axes, dim) = (self.axes_dims_rope, self.attention_head_dim);
        let sum = axes.iter().try_fold(0_usize, |sum, &axis| sum.checked_add(axis));
        if sum != Some(dim) || axes.iter().any(|axis| axis % 2 != 0) {
            return refuse(format!("axes_dims_rope {axes:?} are not even numbers that add up to {dim}"));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return refuse(format!("rope_theta {} is not above 1", self.rope_theta));
        }
        if self.base_patches() == 0 {
            return refuse(format!("base_resolution is below {} px", LATENTS.px_per_token()));
        }
        Ok(())
    }

    /// The first key whose number no model has: 0, or far above any.
    fn out_of_range(&self) -> Option<(&'static str, usize)> {
        let sizes = [
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        let layers = [("num_layers", self.num_layers), ("num_single_layers", self.num_single_layers)];
        let is_odd = |(_, size): &(&str, usize)| !open::in_range(&[*size], &[]);
        let is_many = |(_, count): &(&str, usize)| !open::in_range(&[], &[*count]);
        sizes.into_iter().find(is_odd).or_else(|| layers.into_iter().find(is_many))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flux1_is_valid_and_was_trained_on_64_patches() {
        let config = FluxConfig::flux1_dev();
        config.validate().expect("FLUX.1-dev");
        assert_eq!((config.hidden_size(), config.base_patches()), (3072, 64));
    }

    #[test]
    fn impossible_dimensions_are_refused_with_both_values() {
        let good = FluxConfig::flux1_dev();
        let cases = [
            (FluxConfig { in_channels: 384, ..good.clone() }, "384"),
            (FluxConfig { axes_dims_rope: [16, 56, 58], ..good.clone() }, "128"),
            (FluxConfig { axes_dims_rope: [15, 57, 56], ..good.clone() }, "even"),
            (FluxConfig { num_attention_heads: 0, ..good.clone() }, "num_attention_heads"),
            (FluxConfig { rope_theta: f64::NAN, ..good.clone() }, "NaN"),
            (FluxConfig { base_resolution: Some(8), ..good }, "16 px"),
        ];
        for (config, expected) in cases {
            let error = config.validate().expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
