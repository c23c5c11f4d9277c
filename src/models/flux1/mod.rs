//! The FLUX.1 transformer.

pub mod bfl;
pub mod blocks;
mod config;
mod cost;
mod hub_files;
pub mod layers;
pub(crate) mod recognise;
mod rope;
mod stream;
pub mod text;
mod transformer;

pub use crate::nn::{Compute, WeightsMode};
pub use config::FluxConfig;
pub use cost::{Forward, ForwardCost, ForwardOptions, held_dtype, text_cost, transformer_tensors};
pub use hub_files::{FluxFiles, FluxPart};
pub use rope::RopeTables;
pub use stream::{Block, blocks as block_stream};
pub use transformer::Transformer;
