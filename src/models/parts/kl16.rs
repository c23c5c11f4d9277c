//! The KL autoencoder of 16 channels that came with FLUX.1 and that other families took over: its latents' scale, and their
//! colours for previews.

use std::borrow::Cow;

use super::kl::VaeConfig;
use crate::models::RgbFactors;

/// Its dimensions. Source: black-forest-labs/flux, `util.py`, `AutoEncoderParams`.
pub fn kl16() -> VaeConfig {
    VaeConfig { scaling_factor: 0.3611, shift_factor: Some(0.1159), ..VaeConfig::default() }
}

/// The colours of its latents. Source: ComfyUI, `comfy/latent_formats.py`, class `Flux`, `latent_rgb_factors` and `latent_rgb_factors_bias`.
pub const KL16_RGB: RgbFactors = RgbFactors { factors: Cow::Borrowed(&FACTORS), bias: [-0.0329, -0.0718, -0.0851] };

const FACTORS: [[f32; 3]; 16] = [
    [-0.0346, 0.0244, 0.0681],
    [0.0034, 0.0210, 0.0687],
    [0.0275, -0.0668, -0.0433],
    [-0.0174, 0.0160, 0.0617],
    [0.0859, 0.0721, 0.0329],
    [0.0004, 0.0383, 0.0115],
    [0.0405, 0.0861, 0.0915],
    [-0.0236, -0.0185, -0.0259],
    [-0.0245, 0.0250, 0.1180],
    [0.1008, 0.0755, -0.0421],
    [-0.0515, 0.0201, 0.0011],
    [0.0428, -0.0012, -0.0036],
    [0.0817, 0.0765, 0.0749],
    [-0.1264, -0.0522, -0.1103],
    [-0.0280, -0.0881, -0.0499],
    [-0.1262, -0.0982, -0.0778],
];
