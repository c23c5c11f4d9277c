//! How files of other programs hold Z-Image's parts.

use super::{
    comfy,
    cost::transformer_layers,
    family::{NAME, TEXT_ENCODER, TRANSFORMER},
    text,
};
use crate::{
    error::{Error, Result},
    models::{
        Exchange, Found, GgufNames,
        parts::{exchange, qwen_layers, text_names},
    },
    weights::lora::Network,
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
            let config = &transformer.config;
            let layers = transformer_layers(config)?;
            let network = Network::transformer(&transformer.source, layers, comfy::aliases(config));
            // ComfyUI-GGUF takes it for Lumina 2, whose layers it has, and knows it by its tensors.
            let (architecture, layers) = ("lumina2", comfy::aliases(config));
            let names = GgufNames { architecture, layers, name: comfy::stored_name, keys: Vec::new() };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let qwen = TEXT_ENCODER.open(found.place(part)?, &found.files, NAME, "--text-encoder")?;
            let layers = qwen_layers(&qwen.config.0, &text::reads(&qwen.config))?;
            Ok(exchange::qwen3(text_names::qwen_network("text_encoder", &qwen.source, layers), &qwen.config.0))
        }
        _ => Err(Error::request(
            format!("the {part} of a {NAME} model is not converted"),
            "what is converted are transformer and text_encoder",
        )),
    }
}
