//! dype: ultra-high-resolution pictures with FLUX.1 and DyPE.

pub mod cli;
pub mod error;
pub mod flux;
pub mod geometry;
pub mod output;
pub mod position;
pub mod progress;
pub mod sampling;
pub mod text;
pub mod vae;
pub mod weights;

pub use error::{Error, Result};
