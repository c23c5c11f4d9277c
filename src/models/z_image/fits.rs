//! Whether a file that holds a part goes with a transformer, by the shapes in both headers.

use std::sync::Arc;

use super::{LATENTS, comfy};
use crate::{
    models::parts::{
        Source,
        fits::{alike, width},
        text_names, vae_names,
    },
    weights::TensorSource,
};

/// The autoencoder's latent channels are those that the transformer's tokens are made of.
pub(super) fn vae(part: &Source, transformer: &Source) -> Result<(), String> {
    let gives = vae_names::vae(Arc::clone(part)).and_then(|part| width(&part, "decoder.conv_in.weight"));
    let takes = taken(transformer, |source| width(source, "all_x_embedder.2-1.weight"));
    alike("latent channels", gives, takes.map(|channels| channels / (LATENTS.patch * LATENTS.patch)))
}

/// Rows of the text encoder's states are as wide as the transformer takes them.
pub(super) fn qwen3(part: &Source, transformer: &Source) -> Result<(), String> {
    let gives = text_names::qwen3(Arc::clone(part)).and_then(|part| width(&part, "model.embed_tokens.weight"));
    let takes = taken(transformer, |source| source.shape("cap_embedder.0.weight")?.first().copied());
    alike("numbers a token", gives, takes)
}

fn taken(transformer: &Source, of: impl Fn(&dyn TensorSource) -> Option<usize>) -> Option<usize> {
    match comfy::transformer(Arc::clone(transformer)) {
        Some(renamed) => of(&renamed),
        None => of(&**transformer),
    }
}
