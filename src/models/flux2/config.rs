//! The transformer's dimensions, as its `config.json` in diffusers layout gives them.

use std::path::Path;

use serde::Deserialize;

use crate::{
    base::geometry::{LatentGeometry, TokenGrid},
    error::{Error, Result},
    methods::Side,
    models::parts::{
        config::{self, Config, Key, computed, one_of},
        open,
        streams::Heads,
    },
    nn::{PositionAxis, PositionIds, TokenRun},
    recipe::ModelFacts,
};

/// FLUX.2's latents as the loop holds them: 2 x 2 of the autoencoder's 32 channels are one latent of 128, and one token.
/// Source: diffusers, `Flux2KleinPipeline.prepare_latents`.
pub const LATENTS: LatentGeometry = LatentGeometry { channels: 128, px_per_latent: 16, patch: 1 };

/// The training resolution in pixels. Source: diffusers, `Flux2KleinPipeline`, which makes 1024 px where nothing is asked; the
/// empirical mu (`compute_empirical_mu`) is fitted below 4300 tokens.
const BASE_RESOLUTION_PX: usize = 1024;
/// Tokens of text, padding included. Source: diffusers, `Flux2KleinPipeline.__call__`.
pub(super) const TEXT_TOKENS: usize = 512;
/// Steps of the distilled models. Source: the model cards of FLUX.2-klein-4B and -9B.
const DISTILLED_STEPS: usize = 4;
/// Steps and scale of the others. Source: the model card of FLUX.2-klein-base-4B; diffusers, `Flux2KleinPipeline.__call__`.
const BASE_STEPS: usize = 50;
const BASE_CFG: f64 = 4.0;

/// Dimensions of a FLUX.2 transformer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Flux2Config {
    /// Channels of one token; 128.
    pub in_channels: usize,
    /// Double-stream blocks; 5 in klein 4B.
    pub num_layers: usize,
    /// Single-stream blocks; 20 in klein 4B.
    pub num_single_layers: usize,
    /// D: channels of one attention head; 128.
    pub attention_head_dim: usize,
    /// H: attention heads; 24 in klein 4B.
    pub num_attention_heads: usize,
    /// Width of the text's embeddings: three hidden states of the encoder beside each other; 7680 in klein 4B.
    pub joint_attention_dim: usize,
    /// Width of the feed-forward layers, as a multiple of the streams'; 3.
    pub mlp_ratio: f64,
    /// Rotary channels of the four axes (time, height, width, text); 32 each.
    pub axes_dims_rope: [usize; 4],
    /// theta of the rotary embedding; 2000.
    pub rope_theta: f64,
}

/// Source: diffusers, `Flux2Transformer2DModel.__init__`.
const KEYS: &[Key] = &[
    // Patches are packed before the transformer.
    one_of("patch_size", "1", &["1"]),
    computed("in_channels", "128"),
    // As many as come in.
    one_of("out_channels", "null", &["null", "0", "128"]),
    computed("num_layers", "8"),
    computed("num_single_layers", "48"),
    computed("attention_head_dim", "128"),
    computed("num_attention_heads", "48"),
    computed("joint_attention_dim", "15360"),
    one_of("timestep_guidance_channels", "256", &["256"]),
    computed("mlp_ratio", "3.0"),
    computed("axes_dims_rope", "[32, 32, 32, 32]"),
    computed("rope_theta", "2000"),
    one_of("eps", "1e-06", &["1e-06"]),
    // FLUX.2 [dev] takes a guidance scale, and reads its prompts through another encoder.
    one_of("guidance_embeds", "true", &["false"]),
];

impl Flux2Config {
    /// FLUX.2 \[klein\] 4B. Source: black-forest-labs/FLUX.2-klein-4B, transformer/config.json.
    pub fn klein_4b() -> Self {
        Self {
            in_channels: 128,
            num_layers: 5,
            num_single_layers: 20,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 7680,
            mlp_ratio: 3.0,
            axes_dims_rope: [32; 4],
            rope_theta: 2000.0,
        }
    }

    /// How attention is parted.
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_attention_heads, dim: self.attention_head_dim }
    }

    /// Width of the token streams: heads times channels of a head.
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of the gated feed-forward activations.
    pub fn feed_forward_size(&self) -> usize {
        // As in the reference, rounded down.
        (self.hidden_size() as f64 * self.mlp_ratio) as usize
    }

    /// What fills the gaps of a recipe.
    pub(super) fn recipe_facts(is_distilled: bool) -> ModelFacts {
        let usual = ModelFacts { text_tokens: TEXT_TOKENS, ..ModelFacts::of(BASE_RESOLUTION_PX) };
        match is_distilled {
            true => ModelFacts { steps: DISTILLED_STEPS, ..usual },
            false => ModelFacts { steps: BASE_STEPS, cfg: Some(BASE_CFG), ..usual },
        }
    }

    /// Where tokens stand, as (time, row, column, place in the text): those of the text at (0, 0, 0, 0), (0, 0, 0, 1), ..,
    /// padding too, those of the picture at (0, row, column, 0).
    pub fn position_ids(&self, grid: TokenGrid, text_tokens: usize) -> PositionIds {
        let sides = [None, Some(Side::Height), Some(Side::Width), None];
        let axes = self.axes_dims_rope.into_iter().zip(sides);
        PositionIds {
            axes: axes.map(|(dim, side)| PositionAxis { dim, theta: self.rope_theta, side }).collect(),
            runs: vec![
                TokenRun::Line { tokens: text_tokens, origin: vec![0; 4], step: vec![0, 0, 0, 1] },
                TokenRun::Grid { grid, origin: vec![0; 4] },
            ],
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, says what is not computed, or is none of
    /// a FLUX.2 \[klein\] transformer.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// What is wrong with it beside its sizes.
    fn wrong(&self) -> Option<String> {
        if self.in_channels != LATENTS.token_channels() {
            let (found, expected) = (self.in_channels, LATENTS.token_channels());
            return Some(format!("the transformer takes {found} channels a token, not {expected}"));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return Some(format!("rope_theta is {}, expected a number above 1", self.rope_theta));
        }
        let ratio = self.mlp_ratio;
        (!(ratio.is_finite() && 0.0 < ratio && ratio <= 64.0)).then(|| format!("mlp_ratio is {ratio}"))
    }
}

impl Config for Flux2Config {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str = "give a FLUX.2 [klein] model, such as black-forest-labs/FLUX.2-klein-4B";

    fn check(&self) -> Result<()> {
        let sizes = [
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
        ];
        let layers = [("num_layers", self.num_layers), ("num_single_layers", self.num_single_layers)];
        open::check_range(&sizes, &layers, Self::ADVICE)?;
        let head = ("attention_head_dim", self.attention_head_dim);
        open::check_axes("axes_dims_rope", &self.axes_dims_rope, head, Self::ADVICE)?;
        self.wrong().map_or(Ok(()), |what| Err(Error::model(what, Self::ADVICE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn klein_is_valid() {
        let config = Flux2Config::klein_4b();
        config.check().expect("klein 4B");
        assert_eq!((config.hidden_size(), config.feed_forward_size()), (3072, 9216));
    }

    #[test]
    fn impossible_dimensions_are_refused_with_their_values() {
        let good = Flux2Config::klein_4b();
        let cases = [
            (Flux2Config { in_channels: 64, ..good.clone() }, "64 channels"),
            (Flux2Config { axes_dims_rope: [32, 32, 32, 34], ..good.clone() }, "128"),
            (Flux2Config { axes_dims_rope: [31, 33, 32, 32], ..good.clone() }, "even"),
            (Flux2Config { num_attention_heads: 0, ..good.clone() }, "num_attention_heads"),
            (Flux2Config { rope_theta: 1.0, ..good.clone() }, "rope_theta is 1"),
            (Flux2Config { mlp_ratio: -3.0, ..good.clone() }, "mlp_ratio is -3"),
            (Flux2Config { mlp_ratio: f64::NAN, ..good }, "mlp_ratio is NaN"),
        ];
        for (config, expected) in cases {
            let error = config.check().expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
