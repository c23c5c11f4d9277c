//! What a model says about itself, as far as it fills gaps of a recipe.

use super::CfgRule;
use crate::base::geometry::MAX_SIDE_PX;

/// The most tokens of a prompt that any model reads.
pub(super) const MOST_TEXT_TOKENS: usize = 1024;

/// What a model says about itself, as far as it fills gaps of a recipe. Models give it; a recipe knows no model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelFacts {
    /// Training resolution in pixels.
    pub base_resolution: usize,
    /// lambda_s that served this model best, where it says so.
    pub dype_scale: Option<f64>,
    /// lambda_t that served this model best, where it says so.
    pub dype_exponent: Option<f64>,
    /// Whether it takes a guidance scale.
    pub takes_guidance: bool,
    /// Height and width in pixels when nobody says them.
    pub side_px: usize,
    /// Tokens of a prompt when nobody says how many.
    pub text_tokens: usize,
    /// The most tokens of a prompt it can be asked for.
    pub most_text_tokens: usize,
    /// Denoising steps when nobody says how many.
    pub steps: usize,
    /// The scale of classifier-free guidance when nobody says one; `None` where it is usually off.
    pub cfg: Option<f64>,
    /// What classifier-free guidance leads away from when nobody says it; `None` before a model is known.
    pub negative_prompt: Option<&'static str>,
    /// How it takes the scale of classifier-free guidance.
    pub cfg_rule: CfgRule,
    /// The longest side it can be asked for, in pixels.
    pub most_side_px: usize,
}

impl ModelFacts {
    /// Of a model trained at this resolution: what most models say of the rest.
    pub const fn of(base_resolution: usize) -> Self {
        Self {
            base_resolution,
            dype_scale: None,
            dype_exponent: None,
            takes_guidance: false,
            side_px: 4096,
            text_tokens: 512,
            most_text_tokens: 512,
            steps: 28,
            cfg: None,
            negative_prompt: Some(""),
            cfg_rule: CfgRule::USUAL,
            most_side_px: MAX_SIDE_PX,
        }
    }
}
