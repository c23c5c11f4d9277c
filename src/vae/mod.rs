//! The autoencoder's decoder.

mod config;

pub use config::VaeConfig;
