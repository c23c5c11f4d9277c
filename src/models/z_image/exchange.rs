//! How files of other programs hold Z-Image's parts.

use super::{
    comfy,
    family::{NAME, TEXT_ENCODER, TRANSFORMER},
    model::network,
    text,
};
use crate::{
    error::Result,
    models::{
        Exchange, Found, GgufNames,
        parts::{exchange, text_names},
    },
};

/// What is kept where the rest is rounded: what reads the inputs and makes the output.
const KEPT: &[&str] =
    &["all_x_embedder.", "cap_embedder.", "t_embedder.", "all_final_layer.", "x_pad_token", "cap_pad_token"];

/// A part.
///
/// # Errors
/// As [`crate::models::Family::exchange`].
pub(super) fn of(found: &Found, part: &str) -> Result<Exchange> {
    match part {
        "transformer" => {
            let transformer = TRANSFORMER.open(found)?;
            let network = network(&transformer)?;
            // ComfyUI-GGUF takes it for Lumina 2, whose layers it has, and knows it by its tensors.
            let (architecture, layers) = ("lumina2", comfy::aliases(&transformer.config));
            let names = GgufNames { architecture, layers, name: comfy::stored_name, keys: Vec::new() };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let qwen = TEXT_ENCODER.open(found.place(part)?, &found.files, NAME, "--text-encoder")?;
            let network =
                text_names::qwen_network("text_encoder", &qwen.source, &qwen.config.0, &text::reads(&qwen.config))?;
            Ok(exchange::qwen3(network, &qwen.config.0))
        }
        _ => Err(exchange::not_converted(NAME, part, "transformer and text_encoder")),
    }
}
