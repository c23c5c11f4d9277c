//! dype: ultra-high-resolution pictures with FLUX.1 and DyPE.

pub mod batch;
pub mod cli;
/// Comparisons.
pub mod compare;
pub mod draw;
pub mod error;
pub mod flux;
pub mod geometry;
pub mod memory;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod plan;
pub mod position;
pub mod preview;
pub mod progress;
pub mod run;
pub mod sampling;
pub mod settings;
pub mod text;
pub mod vae;
pub mod weights;

pub use error::{Error, Result};
