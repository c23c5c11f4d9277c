//! The transformer's dimensions, as its `config.json` in diffusers layout gives them.

use std::path::Path;

use serde::Deserialize;

use crate::{
    base::geometry::{LatentGeometry, MAX_SIDE_PX, TokenGrid},
    error::{Error, Result},
    methods::{DYPE_EXPONENT, DYPE_SCALE, Side},
    models::parts::{
        config::{self, Config, Key, computed, one_of, optional},
        open,
        streams::Heads,
    },
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
/// Steps FLUX.1-schnell was distilled to. Source: its model card.
const SCHNELL_STEPS: usize = 4;

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
    pub guidance_embeds: bool,
    /// Rotary channels of the three axes (text, height, width); 16, 56, 56.
    pub axes_dims_rope: [usize; 3],
    /// The training resolution in pixels, where the model says it; FLUX.1's is 1024.
    pub base_resolution: Option<usize>,
    /// lambda_s that served this model best, where it says so.
    pub dype_scale: Option<f64>,
    /// lambda_t that served this model best, where it says so.
    pub dype_exponent: Option<f64>,
}

/// theta of every FLUX.1's rotary embedding. Source: black-forest-labs/flux, `theta`; diffusers, `FluxPosEmbed(theta=10000)`.
const THETA: f64 = 10_000.0;

/// Source: diffusers, `FluxTransformer2DModel.__init__`.
const KEYS: &[Key] = &[
    // Patches are packed before the transformer.
    one_of("patch_size", "1", &["1"]),
    computed("in_channels", "64"),
    // As many as come in, of pictures from text.
    one_of("out_channels", "null", &["null", "0", "64"]),
    computed("num_layers", "19"),
    computed("num_single_layers", "38"),
    computed("attention_head_dim", "128"),
    computed("num_attention_heads", "24"),
    computed("joint_attention_dim", "4096"),
    computed("pooled_projection_dim", "768"),
    computed("guidance_embeds", "false"),
    computed("axes_dims_rope", "[16, 56, 56]"),
];

/// What a model may say to this program; the reference knows no such keys.
const OWN_KEYS: &[Key] = &[
    one_of("rope_theta", "10000", &["10000"]),
    optional("base_resolution", "1024"),
    optional("dype_scale", "1.5"),
    optional("dype_exponent", "2.5"),
];

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
            axes_dims_rope: [16, 56, 56],
            base_resolution: None,
            dype_scale: None,
            dype_exponent: None,
        }
    }

    /// Width of the token streams: heads times channels of a head.
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// How attention is parted.
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_attention_heads, dim: self.attention_head_dim }
    }

    /// The training resolution in pixels.
    pub fn base_resolution_px(&self) -> usize {
        self.base_resolution.unwrap_or(BASE_RESOLUTION_PX)
    }

    /// What fills the gaps of a recipe, for a tokenizer that reads at most `text_tokens` where it says so.
    pub fn recipe_facts(&self, text_tokens: Option<usize>) -> ModelFacts {
        let usual = if self.guidance_embeds { DEV_SEQUENCE_LENGTH } else { SCHNELL_SEQUENCE_LENGTH };
        let facts = ModelFacts::of(self.base_resolution_px());
        ModelFacts {
            steps: if self.guidance_embeds { facts.steps } else { SCHNELL_STEPS },
            dype_scale: self.dype_scale,
            dype_exponent: self.dype_exponent,
            takes_guidance: self.guidance_embeds,
            text_tokens: text_tokens.map_or(usual, |most| usual.min(most)),
            ..facts
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
            axes: axes.map(|(dim, side)| PositionAxis { dim, theta: THETA, side }).collect(),
            runs: vec![
                TokenRun::Line { tokens: text_tokens, origin: vec![0; 3], step: vec![0; 3] },
                TokenRun::Grid { grid, origin: vec![0; 3] },
            ],
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, says what is not computed, or is none of
    /// a FLUX.1 transformer for pictures from text.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// Refuses another kind of FLUX.
    fn check_channels(&self) -> Result<()> {
        let token_channels = LATENTS.token_channels();
        if self.in_channels == token_channels {
            return Ok(());
        }
        let kind = match self.in_channels {
            128 => "FLUX.1 Canny or Depth",
            384 => "FLUX.1 Fill",
            _ => "another kind of FLUX",
        };
        let found = self.in_channels;
        let what =
            format!("the transformer takes {found} channels a token, not {token_channels}; it looks like {kind}");
        let hint = "give a text-to-image model: FLUX.1-dev, FLUX.1-Krea-dev or FLUX.1-schnell";
        Err(Error::model(what, hint))
    }

    /// Refuses what a model says to this program, out of the ranges of flags.
    fn check_own(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::model(what, Self::ADVICE));
        let least = LATENTS.px_per_token();
        if let Some(px) = self.base_resolution.filter(|px| !(least..=MAX_SIDE_PX).contains(px)) {
            return refuse(format!("base_resolution is {px}, expected {least} px to {MAX_SIDE_PX} px"));
        }
        let knobs = [(&DYPE_SCALE, self.dype_scale), (&DYPE_EXPONENT, self.dype_exponent)];
        match knobs.into_iter().find(|(knob, value)| value.is_some_and(|value| !knob.takes.number(value))) {
            Some((knob, Some(value))) => refuse(format!("{} is {value}, expected a number of at least 0", knob.name)),
            _ => Ok(()),
        }
    }
}

impl Config for FluxConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS, OWN_KEYS];
    const ADVICE: &'static str = "check the transformer's config.json, or use the original model's";

    fn check(&self) -> Result<()> {
        self.check_channels()?;
        let sizes = [
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        let layers = [("num_layers", self.num_layers), ("num_single_layers", self.num_single_layers)];
        open::check_range(&sizes, &layers, Self::ADVICE)?;
        let head = ("attention_head_dim", self.attention_head_dim);
        open::check_axes("axes_dims_rope", &self.axes_dims_rope, head, Self::ADVICE)?;
        self.check_own()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flux1_is_valid_and_was_trained_on_64_patches() {
        let config = FluxConfig::flux1_dev();
        config.check().expect("FLUX.1-dev");
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
            (FluxConfig { base_resolution: Some(8), ..good.clone() }, "16 px"),
            (FluxConfig { base_resolution: Some(usize::MAX), ..good.clone() }, "base_resolution"),
            (FluxConfig { dype_scale: Some(-3e9), ..good.clone() }, "dype_scale is -3000000000"),
            (FluxConfig { dype_exponent: Some(f64::INFINITY), ..good }, "dype_exponent is inf"),
        ];
        for (config, expected) in cases {
            let error = config.check().expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
