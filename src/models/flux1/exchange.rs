//! How files of other programs hold FLUX.1's parts.

use super::{
    bfl,
    family::{MADE_FOR, NAME, TRANSFORMER},
    model::network,
};
use crate::{
    error::Result,
    models::{
        Exchange, Found, GgufNames,
        parts::{CLIP, T5, exchange, single_file::stored_norm, text_names},
    },
};

/// What is kept where the rest is rounded: what reads the inputs and makes the output. Source: city96/ComfyUI-GGUF,
/// `tools/lcpp.patch`.
const KEPT: &[&str] = &["x_embedder.", "context_embedder.", "time_text_embed.", "norm_out.", "proj_out."];

/// A part.
///
/// # Errors
/// As [`crate::models::Family::exchange`].
pub(super) fn of(found: &Found, part: &str) -> Result<Exchange> {
    let place = || found.place(part);
    match part {
        "transformer" => {
            let transformer = TRANSFORMER.open(found)?;
            let network = network(&transformer)?;
            let names = GgufNames {
                architecture: MADE_FOR,
                layers: bfl::layers(&transformer.config),
                name: stored_norm,
                keys: Vec::new(),
            };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let clip = CLIP.open(place()?, &found.files, NAME, "--text-encoder")?;
            Ok(exchange::clip(text_names::clip_network("text_encoder", &clip)?))
        }
        "text_encoder_2" => {
            let t5 = T5.open(place()?, &found.files, NAME, "--text-encoder-2")?;
            Ok(exchange::t5(text_names::t5_network("text_encoder_2", &t5)?, &t5.config))
        }
        _ => Err(exchange::not_converted(NAME, part, "transformer, text_encoder and text_encoder_2")),
    }
}
