//! How files of other programs hold FLUX.2 \[klein\]'s parts.

use super::{
    bfl,
    cost::transformer_layers,
    family::{NAME, QWEN, TRANSFORMER},
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
            let config = &transformer.config;
            let layers = transformer_layers(config)?;
            let network = Network::transformer(&transformer.source, layers, bfl::aliases(config));
            // ComfyUI-GGUF knows this family by its tensors.
            let (architecture, layers) = ("flux", bfl::layers(config));
            let names = GgufNames { architecture, layers, name: bfl::stored_name, keys: Vec::new() };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let qwen = QWEN.open(found.place(part)?, &found.files, NAME, "--text-encoder")?;
            let layers = qwen_layers(&qwen.config.0, &text::reads())?;
            Ok(exchange::qwen3(text_names::qwen_network("text_encoder", &qwen.source, layers), &qwen.config.0))
        }
        _ => Err(Error::request(
            format!("the {part} of a {NAME} model is not converted"),
            "what is converted are transformer and text_encoder",
        )),
    }
}
