//! Qwen-Image (arXiv 2508.02324): text and picture in streams of their own in every block, centred positions, the language part
//! of Qwen2.5-VL as its only text encoder, Wan's autoencoder, true classifier-free guidance.

mod config;
mod cost;
mod exchange;
mod family;
mod fits;
mod latent_rgb;
mod model;
mod published;
mod text;
mod transformer;

pub use config::{LATENTS, QwenImageConfig};
pub use cost::transformer_tensors;
pub use family::{FAMILY, QwenImage};
pub use transformer::Transformer;
