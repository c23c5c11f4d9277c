//! The transformer's dimensions, as its `config.json` in diffusers layout gives them.

use std::path::Path;

use serde::Deserialize;

use crate::{
    base::geometry::{LatentGeometry, TokenGrid},
    error::{Error, Result},
    methods::Side,
    models::parts::{
        config::{self, Config, Key, computed, one_of},
        infer::Shapes,
        open,
        streams::Heads,
    },
    nn::{PositionAxis, PositionIds, TokenRun},
    recipe::{CfgRescale, CfgRule, CfgStart, ModelFacts},
    weights::TensorSource,
};

/// Qwen-Image's latents: Wan's 16 channels at an eighth of the picture, 2 x 2 of them a token. Source: diffusers,
/// `QwenImagePipeline._pack_latents`.
pub const LATENTS: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };
/// theta of the rotary embedding. Source: diffusers, `QwenEmbedRope(theta=10000)`.
const ROPE_THETA: f64 = 10_000.0;
/// The side of the largest square that it was trained on, in pixels: 83 patches. Source: the model's card, its aspect ratios;
/// the method's authors' Qwen class.
const BASE_RESOLUTION_PX: usize = 1328;
/// Steps, and the scale of classifier-free guidance, of the model's card and of the method's authors (`run_dype_qwen.py`).
const STEPS: usize = 40;
const CFG: f64 = 4.0;
/// The side of their pictures in pixels, the largest that anybody published of this model.
const SIDE_PX: usize = 3072;
/// What is led away from where nobody says it: a space. Source: as above; a prompt of no token at all is another one.
const NEGATIVE_PROMPT: &str = " ";
/// Tokens of a prompt beside its template. Source: diffusers, `QwenImagePipeline.__call__`, `max_sequence_length`.
const TEXT_TOKENS: usize = 512;
/// The most of them. Source: diffusers, `QwenImagePipeline.check_inputs`.
pub(super) const MOST_TEXT_TOKENS: usize = 1024;

/// Dimensions of a Qwen-Image transformer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct QwenImageConfig {
    /// Channels of a packed token; 64.
    pub in_channels: usize,
    /// Channels of the latents; 16.
    pub out_channels: usize,
    /// Blocks; 60.
    pub num_layers: usize,
    /// D: channels of a head; 128.
    pub attention_head_dim: usize,
    /// H: heads; 24.
    pub num_attention_heads: usize,
    /// Channels of the text encoder's hidden states; 3584.
    pub joint_attention_dim: usize,
    /// Rotary channels of the axes frame, height and width; (16, 56, 56).
    pub axes_dims_rope: [usize; 3],
}

/// Source: diffusers, `QwenImageTransformer2DModel.__init__`.
const KEYS: &[Key] = &[
    one_of("patch_size", "2", &["2"]),
    computed("in_channels", "64"),
    computed("out_channels", "16"),
    computed("num_layers", "60"),
    computed("attention_head_dim", "128"),
    computed("num_attention_heads", "24"),
    computed("joint_attention_dim", "3584"),
    // Of models that edit pictures, or were distilled.
    one_of("guidance_embeds", "false", &["false"]),
    computed("axes_dims_rope", "[16, 56, 56]"),
    one_of("zero_cond_t", "false", &["false"]),
    one_of("use_additional_t_cond", "false", &["false"]),
    one_of("use_layer3d_rope", "false", &["false"]),
];

impl QwenImageConfig {
    /// Qwen-Image: 20.4 billion parameters.
    pub fn qwen_image() -> Self {
        Self {
            in_channels: 64,
            out_channels: 16,
            num_layers: 60,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 3584,
            axes_dims_rope: [16, 56, 56],
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON or says what is not computed.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// From the shapes of tensors under diffusers' names; axes share a head as the published ones do (1/8, 7/16, 7/16).
    ///
    /// # Errors
    /// [`Error::Model`] when the tensors that show them are missing.
    pub(super) fn infer(source: &dyn TensorSource) -> Result<Self> {
        let shapes = Shapes(source);
        let head_dim = shapes.dim("transformer_blocks.0.attn.norm_q.weight", 0)?;
        let side = head_dim * 7 / 16 / 2 * 2;
        Ok(Self {
            in_channels: shapes.dim("img_in.weight", 1)?,
            out_channels: shapes.dim("proj_out.weight", 0)? / (LATENTS.patch * LATENTS.patch),
            num_layers: shapes.count(|i| format!("transformer_blocks.{i}.attn.norm_q.weight")),
            attention_head_dim: head_dim,
            num_attention_heads: shapes.dim("img_in.weight", 0)? / head_dim,
            joint_attention_dim: shapes.dim("txt_in.weight", 1)?,
            axes_dims_rope: [head_dim - 2 * side, side, side],
        })
    }

    /// How attention is parted.
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_attention_heads, dim: self.attention_head_dim }
    }

    /// C: width of both streams; 3072.
    pub fn hidden_size(&self) -> usize {
        self.heads().channels()
    }

    /// Where the tokens stand: the picture's are centred on (0, 0) of height and width and at 0 of the frames; the text's follow
    /// each other on all three axes from behind the longer half of the picture on, turned as they were trained.
    ///
    /// Source: diffusers, `QwenEmbedRope` with `scale_rope`.
    pub fn position_ids(&self, grid: TokenGrid, text_tokens: usize) -> PositionIds {
        let axis = |dim, side| PositionAxis { dim, theta: ROPE_THETA, side };
        let [frame, height, width] = self.axes_dims_rope;
        let (rows, columns) = (grid.height_patches as i64, grid.width_patches as i64);
        let behind = (rows / 2).max(columns / 2);
        let first = |length: i64| length / 2 - length;
        PositionIds {
            axes: vec![axis(frame, None), axis(height, Some(Side::Height)), axis(width, Some(Side::Width))],
            runs: vec![
                TokenRun::Native { tokens: text_tokens, origin: vec![behind; 3], step: vec![1; 3] },
                TokenRun::Grid { grid, origin: vec![0, first(rows), first(columns)] },
            ],
        }
    }

    /// What fills the gaps of a recipe.
    pub(super) fn recipe_facts() -> ModelFacts {
        ModelFacts {
            side_px: SIDE_PX,
            text_tokens: TEXT_TOKENS,
            most_text_tokens: MOST_TEXT_TOKENS,
            steps: STEPS,
            cfg: Some(CFG),
            negative_prompt: Some(NEGATIVE_PROMPT),
            cfg_rule: CfgRule { start: CfgStart::Negative, rescale: CfgRescale::Tokens },
            ..ModelFacts::of(BASE_RESOLUTION_PX)
        }
    }
}

impl Config for QwenImageConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str = "check the transformer's config.json, or use the original model's";

    fn check(&self) -> Result<()> {
        let layers = ("num_layers", self.num_layers);
        let sizes = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            layers,
        ];
        open::check_range(&sizes, &[layers], Self::ADVICE)?;
        let head = ("attention_head_dim", self.attention_head_dim);
        open::check_axes("axes_dims_rope", &self.axes_dims_rope, head, Self::ADVICE)?;
        let latents = [("out_channels", self.out_channels, LATENTS.channels)];
        let tokens = [("in_channels", self.in_channels, LATENTS.token_channels())];
        match latents.into_iter().chain(tokens).find(|(_, found, expected)| found != expected) {
            Some((name, found, expected)) => Err(Error::model(
                format!("{name} is {found}, and Qwen-Image's latents make it {expected}"),
                Self::ADVICE,
            )),
            None => Ok(()),
        }
    }
}
