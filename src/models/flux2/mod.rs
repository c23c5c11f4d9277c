//! FLUX.2 \[klein\]: a transformer of shared modulations over packed latents of 128 channels, Qwen3 as text encoder.

mod autoencoder;
mod bfl;
mod blocks;
mod config;
mod cost;
mod exchange;
mod family;
mod fits;
mod infer;
mod model;
mod published;
mod text;
mod transformer;

pub use autoencoder::{Flux2Autoencoder, Flux2VaeConfig, vae_tensors};
pub use bfl::transformer as transformer_names;
pub use config::{Flux2Config, LATENTS};
pub use cost::transformer_tensors;
pub use family::{FAMILY, Flux2};
pub use text::{TextEncoder, encoder_tensors};
pub use transformer::Transformer;
