//! The FLUX.1 transformer.

mod config;

pub use config::FluxConfig;
