//! The FLUX.1 transformer.

pub mod blocks;
mod budget;
mod config;
pub mod layers;
pub mod ops;
mod rope;
mod stream;
mod transformer;

pub use budget::{ForwardOptions, forward_memory_bytes, step_flops};
pub use config::FluxConfig;
pub use layers::Compute;
pub use rope::RopeTables;
pub use stream::{Block, BlockSource, WeightsMode};
pub use transformer::Transformer;
