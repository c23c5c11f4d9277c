//! How files of other programs hold FLUX.2 \[klein\]'s parts.

use super::{
    bfl,
    family::{NAME, QWEN, TRANSFORMER},
    model::network,
    text,
};
use crate::{
    error::Result,
    models::{
        Exchange, Found, GgufNames,
        parts::{exchange, single_file::stored_norm, text_names},
    },
};

/// What is kept where the rest is rounded: what reads the inputs and makes the output, as of FLUX.1.
const KEPT: &[&str] = &["x_embedder.", "context_embedder.", "time_guidance_embed.", "norm_out.", "proj_out."];

/// A part.
///
/// # Errors
/// As [`crate::models::Family::exchange`].
pub(super) fn of(found: &Found, part: &str) -> Result<Exchange> {
    match part {
        "transformer" => {
            let transformer = TRANSFORMER.open(found)?;
            let network = network(&transformer)?;
            // ComfyUI-GGUF knows this family by its tensors.
            let (architecture, layers) = ("flux", bfl::layers(&transformer.config));
            let names = GgufNames { architecture, layers, name: stored_norm, keys: Vec::new() };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let qwen = QWEN.open(found.place(part)?, &found.files, NAME, "--text-encoder")?;
            let network = text_names::qwen_network("text_encoder", &qwen.source, &qwen.config.0, &text::reads())?;
            Ok(exchange::qwen3(network, &qwen.config.0))
        }
        _ => Err(exchange::not_converted(NAME, part, "transformer and text_encoder")),
    }
}
