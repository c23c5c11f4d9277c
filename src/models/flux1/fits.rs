//! Whether a file that holds a part goes with a transformer, by the shapes in both headers.

use std::sync::Arc;

use super::{LATENTS, bfl};
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
    let gives = named(part, vae_names::vae, "decoder.conv_in.weight");
    let takes = taken(transformer, "x_embedder.weight").map(|channels| channels / (LATENTS.patch * LATENTS.patch));
    alike("latent channels", gives, takes)
}

/// CLIP's pooled vector is as wide as the transformer takes it.
pub(super) fn clip(part: &Source, transformer: &Source) -> Result<(), String> {
    let gives = named(part, text_names::clip, "text_model.embeddings.token_embedding.weight");
    alike("numbers in a pooled vector", gives, taken(transformer, "time_text_embed.text_embedder.linear_1.weight"))
}

/// T5's rows are as wide as the transformer takes them.
pub(super) fn t5(part: &Source, transformer: &Source) -> Result<(), String> {
    // google/umt5: T5's names, another vocabulary, and a table of positions in every layer.
    let table = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";
    if text_names::t5(Arc::clone(part)).is_some_and(|source| source.shape(table).is_some()) {
        return Err("a UMT5, not a T5".into());
    }
    alike(
        "numbers a token",
        named(part, text_names::t5, "shared.weight"),
        taken(transformer, "context_embedder.weight"),
    )
}

/// The width of the tensor `name`: what is between a part and the transformer stands in its second dimension.
fn named<S: TensorSource>(source: &Source, names: fn(Source) -> Option<S>, name: &str) -> Option<usize> {
    width(&names(Arc::clone(source))?, name)
}

fn taken(transformer: &Source, name: &str) -> Option<usize> {
    let renamed = bfl::transformer(Arc::clone(transformer));
    renamed.map_or_else(|| width(&**transformer, name), |renamed| width(&renamed, name))
}
