//! What a model says about itself, as far as it fills gaps of a recipe.

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
    /// T5 tokens of a prompt when nobody says how many.
    pub text_tokens: usize,
}
