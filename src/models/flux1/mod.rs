//! The FLUX.1 transformer.

mod autoencoder;
pub mod bfl;
pub mod blocks;
mod budget;
mod config;
mod hub_files;
pub mod layers;
pub(crate) mod recognise;
mod rope;
mod stream;
pub mod text;
mod transformer;

pub use autoencoder::autoencoder;
pub use budget::{ForwardOptions, forward_memory_bytes, step_flops};
pub use config::FluxConfig;
pub use hub_files::{FluxFiles, FluxPart};
pub use layers::Compute;
pub use rope::RopeTables;
pub use stream::{Block, BlockSource, WeightsMode};
pub use transformer::Transformer;
