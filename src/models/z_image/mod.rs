//! Z-Image: a single-stream transformer of text and picture (arXiv 2511.22699), with FLUX.1's autoencoder and Qwen3 as text
//! encoder.

mod blocks;
pub mod comfy;
mod config;
mod cost;
mod exchange;
mod family;
mod fits;
mod infer;
mod model;
mod published;
mod schedule;
pub mod text;
mod transformer;

pub use config::{LATENTS, ZImageConfig};
pub use cost::{Forward, transformer_tensors};
pub use family::{FAMILY, ZImage};
pub use transformer::Transformer;
