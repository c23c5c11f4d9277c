//! dype: ultra-high-resolution pictures with FLUX.1 and DyPE.

pub mod error;
pub mod flux;
pub mod vae;
pub mod text;
pub mod sampling;
pub mod geometry;
pub mod position;
pub mod progress;
pub mod weights;

pub use error::{Error, Result};
