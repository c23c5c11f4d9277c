//! The FLUX.1 transformer.

mod autoencoder;
pub mod bfl;
pub mod blocks;
mod budget;
mod config;
mod family;
mod infer;
mod latent_rgb;
pub mod layers;
mod stream;
pub mod text;
mod transformer;

use crate::nn::RopeTables;

pub use autoencoder::autoencoder;
pub use budget::{ForwardOptions, forward_memory_bytes, step_flops};
pub use config::{FluxConfig, LATENTS};
pub use family::{FAMILY, Flux1, Flux1Family, held_dtype};
pub use latent_rgb::LATENT_RGB;
pub use layers::Compute;
pub use stream::{Block, BlockSource, WeightsMode};
pub use transformer::Transformer;
