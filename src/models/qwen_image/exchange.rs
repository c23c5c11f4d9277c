//! How files of other programs hold Qwen-Image's parts.

use super::{
    cost::transformer_layers,
    family::{NAME, READS, TEXT_ENCODER, TRANSFORMER},
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
const KEPT: &[&str] = &["img_in.", "txt_in.", "time_text_embed.", "norm_out.", "proj_out."];

/// A part.
///
/// # Errors
/// As [`crate::models::Family::exchange`].
pub(super) fn of(found: &Found, part: &str) -> Result<Exchange> {
    match part {
        "transformer" => {
            let transformer = TRANSFORMER.open(found)?;
            let layers = transformer_layers(&transformer.config)?;
            let network = Network::transformer(&transformer.source, layers, Vec::new());
            // Single files have diffusers' names.
            let (name, keys) = (|name: &str| Some(name.to_owned()), Vec::new());
            let names = GgufNames { architecture: "qwen_image", layers: Vec::new(), name, keys };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let qwen = TEXT_ENCODER.open(found.place(part)?, &found.files, NAME, "--text-encoder")?;
            let layers = qwen_layers(&qwen.config.0, &READS)?;
            Ok(exchange::qwen25_vl(text_names::qwen_network("text_encoder", &qwen.source, layers), &qwen.config.0))
        }
        _ => Err(Error::request(
            format!("the {part} of a {NAME} model is not converted"),
            "what is converted are transformer and text_encoder",
        )),
    }
}
