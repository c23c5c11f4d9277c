//! The transformer's dimensions, as its `config.json` in diffusers layout gives them.

use serde::Deserialize;

use crate::{
    base::geometry::{LatentGeometry, MAX_SIDE_PX, TokenGrid},
    error::{Error, Result},
    methods::Side,
    models::parts::{
        check_epsilon,
        config::{Config, Key, computed, one_of},
        open,
    },
    nn::{PositionAxis, PositionIds, TokenRun},
};

/// Z-Image's latents: FLUX.1's autoencoder, patches of 2 x 2. Source: diffusers, `ZImagePipeline`.
pub const LATENTS: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };
/// The training resolution in pixels that positions are scaled against. Source: Tongyi-MAI/Z-Image-Turbo's card, 1024 x 1024.
pub const BASE_RESOLUTION_PX: usize = 1024;
/// The most tokens of a prompt, template included. Source: diffusers, `ZImagePipeline.__call__`.
pub const TEXT_TOKENS: usize = 512;
/// Each stream is padded to a multiple of so many tokens. Source: diffusers, `SEQ_MULTI_OF`.
const PADDED_TO: usize = 32;
/// The most channels that t is embedded in. Source: diffusers, `ADALN_EMBED_DIM`.
const TIME_CHANNELS: usize = 256;

/// Dimensions of a Z-Image transformer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ZImageConfig {
    /// Latent channels; 16.
    pub in_channels: usize,
    /// C: width of the token streams; 3840.
    pub dim: usize,
    /// Layers that see text and picture; 30.
    pub n_layers: usize,
    /// Layers before them that see the picture alone, and as many that see the text alone; 2.
    pub n_refiner_layers: usize,
    /// H: attention heads; 30.
    pub n_heads: usize,
    /// The reference takes it and computes with `n_heads`.
    pub n_kv_heads: usize,
    /// Epsilon of the streams' norms; 1e-5.
    pub norm_eps: f64,
    /// Width of the text's hidden states; 2560.
    pub cap_feat_dim: usize,
    /// theta of the rotary embedding; 256.
    pub rope_theta: f64,
    /// What 1 - sigma is multiplied by before it is embedded; 1000.
    pub t_scale: f64,
    /// Rotary channels of the three axes (text, height, width); 32, 48, 48.
    pub axes_dims: [usize; 3],
    /// Positions that the reference's tables hold on each axis; 1536, 512, 512.
    pub axes_lens: [usize; 3],
}

/// Source: diffusers, `ZImageTransformer2DModel.__init__`.
const KEYS: &[Key] = &[
    one_of("all_patch_size", "[2]", &["[2]"]),
    one_of("all_f_patch_size", "[1]", &["[1]"]),
    computed("in_channels", "16"),
    computed("dim", "3840"),
    computed("n_layers", "30"),
    computed("n_refiner_layers", "2"),
    computed("n_heads", "30"),
    computed("n_kv_heads", "30"),
    computed("norm_eps", "1e-5"),
    one_of("qk_norm", "true", &["true"]),
    computed("cap_feat_dim", "2560"),
    // Pictures as prompts: another model.
    one_of("siglip_feat_dim", "null", &["null"]),
    computed("rope_theta", "256.0"),
    computed("t_scale", "1000.0"),
    computed("axes_dims", "[32, 48, 48]"),
    computed("axes_lens", "[1024, 512, 512]"),
];

impl ZImageConfig {
    /// Z-Image and Z-Image-Turbo. Source: Tongyi-MAI/Z-Image-Turbo, transformer/config.json.
    pub fn z_image() -> Self {
        Self {
            in_channels: 16,
            dim: 3840,
            n_layers: 30,
            n_refiner_layers: 2,
            n_heads: 30,
            n_kv_heads: 30,
            norm_eps: 1e-5,
            cap_feat_dim: 2560,
            rope_theta: 256.0,
            t_scale: 1000.0,
            axes_dims: [32, 48, 48],
            axes_lens: [1536, 512, 512],
        }
    }

    /// D: channels of one attention head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads.max(1)
    }

    /// Channels of the feed-forward layers. Source: diffusers, `int(dim / 3 * 8)`, in floats.
    pub fn feed_forward(&self) -> usize {
        (self.dim as f64 / 3.0 * 8.0) as usize
    }

    /// Channels that t is embedded in.
    pub fn time_channels(&self) -> usize {
        self.dim.min(TIME_CHANNELS)
    }

    /// The longest side that the reference's tables hold, in pixels.
    pub fn most_side_px(&self) -> usize {
        let [_, height, width] = self.axes_lens;
        height.min(width).saturating_mul(LATENTS.px_per_token()).min(MAX_SIDE_PX)
    }

    /// The rotary axes: text and time, height, width.
    pub fn axes(&self) -> Vec<PositionAxis> {
        let sides = [None, Some(Side::Height), Some(Side::Width)];
        let axes = self.axes_dims.into_iter().zip(sides);
        axes.map(|(dim, side)| PositionAxis { dim, theta: self.rope_theta, side }).collect()
    }

    /// Where tokens stand, in the order of the layers: the picture at (m + 1, row, column), its padding at (0, 0, 0), and the m
    /// tokens of the text, padding included, at (1, 0, 0), (2, 0, 0), ...
    pub fn position_ids(&self, grid: TokenGrid, text_tokens: usize) -> PositionIds {
        let text_tokens = padded(text_tokens);
        let line = |tokens, first, step| TokenRun::Line { tokens, origin: vec![first, 0, 0], step: vec![step, 0, 0] };
        PositionIds {
            axes: self.axes(),
            runs: vec![
                TokenRun::Grid { grid, origin: vec![text_tokens as i64 + 1, 0, 0] },
                line(padded(grid.count()) - grid.count(), 0, 0),
                line(text_tokens, 1, 1),
            ],
        }
    }
}

/// So many tokens and their padding.
pub const fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(PADDED_TO)
}

impl Config for ZImageConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str = "check the transformer's config.json, or use the original model's";

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::model(what, Self::ADVICE));
        let [text, height, width] = self.axes_lens;
        let sizes = [
            ("dim", self.dim),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("cap_feat_dim", self.cap_feat_dim),
            ("axes_lens", text),
            ("axes_lens", height),
            ("axes_lens", width),
        ];
        let layers = [("n_layers", self.n_layers), ("n_refiner_layers", self.n_refiner_layers)];
        open::check_range(&sizes, &layers, Self::ADVICE)?;
        if self.in_channels != LATENTS.channels {
            return refuse(format!("in_channels is {}, Z-Image's latents have {}", self.in_channels, LATENTS.channels));
        }
        if !self.dim.is_multiple_of(self.n_heads) {
            return refuse(format!("dim {} is no multiple of n_heads {}", self.dim, self.n_heads));
        }
        open::check_axes("axes_dims", &self.axes_dims, ("the width of a head", self.head_dim()), Self::ADVICE)?;
        check_epsilon("norm_eps", self.norm_eps, Self::ADVICE)?;
        let numbers = [("rope_theta", self.rope_theta, 1.0), ("t_scale", self.t_scale, 0.0)];
        match numbers.into_iter().find(|(_, value, above)| !(value.is_finite() && value > above)) {
            Some((name, value, above)) => refuse(format!("{name} is {value}, expected a number above {above}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_dimensions_are_valid() {
        let config = ZImageConfig::z_image();
        config.check().expect("Z-Image");
        assert_eq!((config.head_dim(), config.feed_forward(), config.time_channels()), (128, 10_240, 256));
        assert_eq!(config.most_side_px(), 8192);
    }

    #[test]
    fn the_pictures_place_follows_the_padded_text() {
        let grid = TokenGrid { height_patches: 11, width_patches: 19 };
        let ids = ZImageConfig::z_image().position_ids(grid, 21);
        assert_eq!(ids.runs[0], TokenRun::Grid { grid, origin: vec![33, 0, 0] });
        assert_eq!(ids.runs.iter().map(TokenRun::tokens).collect::<Vec<_>>(), [209, 15, 32]);
    }

    #[test]
    fn impossible_dimensions_are_refused_by_name() {
        let good = ZImageConfig::z_image();
        let cases = [
            (ZImageConfig { in_channels: 64, ..good.clone() }, "in_channels is 64"),
            (ZImageConfig { n_heads: 7, ..good.clone() }, "n_heads 7"),
            (ZImageConfig { n_heads: 0, ..good.clone() }, "n_heads is 0"),
            (ZImageConfig { axes_dims: [32, 48, 50], ..good.clone() }, "axes_dims"),
            (ZImageConfig { axes_lens: [0, 512, 512], ..good.clone() }, "axes_lens is 0"),
            (ZImageConfig { norm_eps: f64::NAN, ..good.clone() }, "norm_eps is NaN"),
            (ZImageConfig { rope_theta: 1.0, ..good.clone() }, "rope_theta is 1"),
            (ZImageConfig { t_scale: f64::INFINITY, ..good }, "t_scale is inf"),
        ];
        for (config, expected) in cases {
            let error = config.check().expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
