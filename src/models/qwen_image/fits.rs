//! Whether a file that holds a part goes with a transformer, by the shapes in both headers.

use std::sync::Arc;

use super::{LATENTS, family::named};
use crate::models::parts::{
    Source,
    fits::{alike, width},
    text_names, wan,
};

/// The autoencoder's latent channels are those that the transformer's tokens are made of.
pub(super) fn vae(part: &Source, transformer: &Source) -> Result<(), String> {
    let gives = wan::names::wan(Arc::clone(part)).and_then(|part| width(&part, "decoder.conv_in.weight"));
    let takes = named(transformer).and_then(|source| width(&*source, "img_in.weight"));
    alike("latent channels", gives, takes.map(|channels| channels / (LATENTS.patch * LATENTS.patch)))
}

/// Rows of the text encoder's states are as wide as the transformer takes them.
pub(super) fn qwen25_vl(part: &Source, transformer: &Source) -> Result<(), String> {
    let gives = text_names::qwen25_vl(Arc::clone(part)).and_then(|part| width(&part, "model.embed_tokens.weight"));
    alike("numbers a token", gives, named(transformer).and_then(|source| width(&*source, "txt_in.weight")))
}
