//! How files of other programs hold Qwen-Image's parts.

use super::{
    family::{NAME, READS, TEXT_ENCODER, TRANSFORMER},
    model::network,
};
use crate::{
    error::Result,
    models::{
        Exchange, Found, GgufNames,
        parts::{exchange, text_names},
    },
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
            let network = network(&transformer)?;
            // Single files have diffusers' names.
            let (name, keys) = (|name: &str| Some(name.to_owned()), Vec::new());
            let names = GgufNames { architecture: "qwen_image", layers: Vec::new(), name, keys };
            Ok(Exchange { network, kept: KEPT, tables: &[], gguf: Some(names) })
        }
        "text_encoder" => {
            let qwen = TEXT_ENCODER.open(found.place(part)?, &found.files, NAME, "--text-encoder")?;
            let network = text_names::qwen_network("text_encoder", &qwen.source, &qwen.config.0, &READS)?;
            Ok(exchange::qwen25_vl(network, &qwen.config.0))
        }
        _ => Err(exchange::not_converted(NAME, part, "transformer and text_encoder")),
    }
}
