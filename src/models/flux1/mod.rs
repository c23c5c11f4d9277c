//! The FLUX.1 transformer.

pub mod bfl;
pub mod blocks;
mod budget;
mod config;
mod hub_files;
mod latent_rgb;
pub mod layers;
pub(crate) mod recognise;
mod stream;
pub mod text;
mod transformer;

use crate::nn::RopeTables;

pub use budget::{ForwardOptions, forward_memory_bytes, step_flops};
pub use config::{FluxConfig, LATENTS};
pub use hub_files::{FluxFiles, FluxPart};
pub use latent_rgb::LATENT_RGB;
pub use layers::Compute;
pub use stream::{Block, BlockSource, WeightsMode};
pub use transformer::Transformer;
