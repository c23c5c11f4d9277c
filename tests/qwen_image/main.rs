//! Qwen-Image, and the language models of Qwen that other families read too, against what the references compute in float32.

#[path = "../support/mod.rs"]
mod support;

mod autoencoder;
mod language;
