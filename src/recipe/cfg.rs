//! Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) as families take its scale: data. What it does to a velocity
//! is in `sampling`.

/// How a family's velocities with and without the prompt become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CfgRule {
    /// Where the difference of both is added.
    pub start: CfgStart,
    /// What becomes of the sum.
    pub rescale: CfgRescale,
}

/// Where the scaled difference is added, and with it from which scale on it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CfgStart {
    /// `negative + scale·(positive - negative)`: on above 1. Source: diffusers, `true_cfg_scale` of `FluxPipeline`.
    Negative,
    /// `positive + scale·(positive - negative)`: on above 0; the scale is the usual one less 1. Source: diffusers,
    /// `ZImagePipeline`.
    Positive,
}

/// How the length of the sum is kept in bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CfgRescale {
    /// Not at all.
    Never,
    /// Each token becomes as long as that of the positive velocity. Source: diffusers, `QwenImagePipeline`.
    Tokens,
    /// Where it is asked for: the whole, where it is longer than the positive velocity, becomes as long. Source: diffusers,
    /// `cfg_normalization` of `ZImagePipeline`.
    OnRequest,
}

impl CfgRule {
    /// The usual one: from the negative velocity, and the sum as it is.
    pub const USUAL: Self = Self { start: CfgStart::Negative, rescale: CfgRescale::Never };

    /// The scale above which it is on.
    pub const fn threshold(self) -> f64 {
        match self.start {
            CfgStart::Negative => 1.0,
            CfgStart::Positive => 0.0,
        }
    }

    /// Whether a scale changes anything, so that a step takes two forward passes.
    pub fn is_on(self, scale: f64) -> bool {
        scale > self.threshold()
    }
}
