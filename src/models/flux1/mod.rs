//! The FLUX.1 transformer.

pub mod bfl;
pub mod blocks;
mod config;
mod cost;
mod exchange;
mod family;
mod fits;
mod infer;
pub mod layers;
mod model;
mod published;
mod schedule;
mod stream;
pub mod text;
mod transformer;

use crate::nn::RopeTables;

pub use crate::models::{ForwardCost, ForwardOptions};
pub use crate::nn::{Compute, WeightsMode};
pub use config::{FluxConfig, LATENTS};
pub use cost::{Forward, text_cost, transformer_layers, transformer_tensors};
pub use family::{FAMILY, Flux1};
pub use stream::{Block, blocks as block_stream};
pub use transformer::Transformer;
