//! The autoencoder of Wan's video models (arXiv 2503.20314) and of Qwen-Image, for one frame.
//!
//! Of one frame each causal 3-D convolution sees its own last slice: the frames before are zeros. What is left is the walk of
//! [`super::kl`] in another design: norms over channels, doubling that halves the channels, and statistics of the latents'
//! channels. Its tensors are therefore found under that walk's names.

mod config;
pub mod names;
mod part;

pub use config::WanConfig;
pub(crate) use part::{CLASS, WanKind};
