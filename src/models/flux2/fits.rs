//! Whether a file that holds a part goes with a transformer, by the shapes in both headers.

use std::sync::Arc;

use super::{bfl, text};
use crate::models::parts::{
    Source,
    fits::{alike, width},
    text_names, vae_names,
};

/// Latents of the autoencoder that make one of the transformer's: a square of four.
const LATENTS_A_TOKEN: usize = 4;

/// The autoencoder's latent channels are those that the transformer's tokens are made of.
pub(super) fn vae(part: &Source, transformer: &Source) -> Result<(), String> {
    let gives = vae_names::vae(Arc::clone(part)).and_then(|part| width(&part, "decoder.conv_in.weight"));
    alike("latent channels", gives, taken(transformer, "x_embedder.weight").map(|channels| channels / LATENTS_A_TOKEN))
}

/// Rows of the text encoder's states are as wide as the transformer takes them.
pub(super) fn qwen3(part: &Source, transformer: &Source) -> Result<(), String> {
    let hidden = text_names::qwen3(Arc::clone(part)).and_then(|part| width(&part, "model.embed_tokens.weight"));
    alike("numbers a token", hidden.map(|hidden| text::STATES * hidden), taken(transformer, "context_embedder.weight"))
}

fn taken(transformer: &Source, name: &str) -> Option<usize> {
    width(&bfl::transformer(Arc::clone(transformer))?, name)
}
