//! The text encoders' tensors under the names of transformers, whichever of their usual names a file has.

use std::sync::Arc;

use super::{ClipConfig, ModelPart, T5Config, clip_layers, t5_layers};
use crate::{
    error::Result,
    weights::{
        Cut, Renamed, TensorSource,
        lora::{Alias, Network},
    },
};

/// Prefixes a CLIP text encoder's names may carry, before or instead of `text_model.`. Sources: transformers 4 and 5,
/// ComfyUI's all-in-one checkpoints, OpenAI-CLIP inside Stable Diffusion checkpoints.
const CLIP_PREFIXES: [&str; 5] =
    ["text_model.", "", "text_encoders.clip_l.transformer.text_model.", "clip_l.transformer.text_model.", "clip_l."];
/// Prefixes a T5 encoder's names may carry.
const T5_PREFIXES: [&str; 4] = ["", "text_encoders.t5xxl.transformer.", "t5xxl.transformer.", "t5xxl."];

/// The two names of T5's one embedding table.
const T5_EMBEDDINGS: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];

/// A CLIP text encoder that answers to each of its names with and without `text_model.`; `None` if the source holds none.
pub fn clip(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |prefix: &&str| source.shape(&format!("{prefix}embeddings.token_embedding.weight")).is_some();
    let prefix = CLIP_PREFIXES.into_iter().find(has)?;
    let mut table = Vec::new();
    for stored in source.names() {
        let Some(name) = stored.strip_prefix(prefix).filter(|name| is_clip(name)) else { continue };
        table.push((format!("text_model.{name}"), stored.clone(), Cut::Whole));
        table.push((name.to_owned(), stored.clone(), Cut::Whole));
    }
    Some(Renamed::new(source, table))
}

fn is_clip(name: &str) -> bool {
    ["embeddings.", "encoder.layers.", "final_layer_norm."].iter().any(|start| name.starts_with(start))
}

/// A T5 encoder that answers to both names of its embedding table; `None` if the source holds none.
pub fn t5(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has =
        |prefix: &&str| source.shape(&format!("{prefix}encoder.block.0.layer.0.SelfAttention.q.weight")).is_some();
    let prefix = T5_PREFIXES.into_iter().find(has)?;
    let mut table = Vec::new();
    for stored in source.names() {
        let Some(name) = stored.strip_prefix(prefix) else { continue };
        if name.starts_with("encoder.") || name == T5_EMBEDDINGS[0] {
            table.push((name.to_owned(), stored.clone(), Cut::Whole));
        }
    }
    let embedding = T5_EMBEDDINGS.map(|name| format!("{prefix}{name}")).into_iter().find(|n| source.shape(n).is_some());
    if let Some(stored) = embedding {
        for name in T5_EMBEDDINGS {
            if !table.iter().any(|(new, ..)| new == name) {
                table.push((name.to_owned(), stored.clone(), Cut::Whole));
            }
        }
    }
    Some(Renamed::new(source, table))
}

/// A Qwen3 whose names begin with `model.`, whatever they begin with in the file; `None` if the source holds none.
pub fn qwen3(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    qwen(source, "layers.0.self_attn.q_norm.weight")
}

/// The language part of a Qwen2.5-VL, likewise.
pub fn qwen25_vl(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    qwen(source, "layers.0.self_attn.q_proj.bias")
}

/// The language model that has a tensor of this name. Prefixes there are: `model.`, `model.language_model.`,
/// `language_model.model.`, none, and those of all-in-one files; the table's own name ends them all.
fn qwen(source: Arc<dyn TensorSource>, known_by: &str) -> Option<Renamed> {
    let names = source.names();
    let mut prefixes = names.iter().filter_map(|name| name.strip_suffix("embed_tokens.weight"));
    let prefix = prefixes.find(|prefix| source.shape(&format!("{prefix}{known_by}")).is_some())?;
    let known = |name: &str| ["embed_tokens.", "layers.", "norm."].iter().any(|start| name.starts_with(start));
    Some(Renamed::by(&source, prefix, |name| known(name).then(|| vec![(format!("model.{name}"), Cut::Whole)])))
}

/// A CLIP text encoder as LoRA files change it: `part` is its name in a model. Prefixes: diffusers, ComfyUI; kohya's sd-scripts.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(crate) fn clip_network(part: &'static str, clip: &ModelPart<ClipConfig>) -> Result<Network> {
    let layers = clip_layers(&clip.config)?;
    // As transformers 5 calls them.
    let short = layers.iter().filter_map(|layer| Some((layer.name.strip_prefix("text_model.")?, &layer.name)));
    let aliases = short.map(|(short, name)| Alias { name: short.to_owned(), parts: vec![(name.clone(), Cut::Whole)] });
    Ok(Network {
        part,
        source: Arc::clone(&clip.source),
        aliases: aliases.collect(),
        layers,
        prefixes: &["text_encoder.", "text_encoders.clip_l.transformer."],
        flat_prefixes: &["lora_te1_", "lora_te_"],
    })
}

/// A T5 encoder as LoRA files change it: `part` is its name in a model. Prefixes: diffusers, ComfyUI; kohya's sd-scripts, and
/// OneTrainer, which counts FLUX.1's encoders.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(crate) fn t5_network(part: &'static str, t5: &ModelPart<T5Config>) -> Result<Network> {
    Ok(Network {
        part,
        source: Arc::clone(&t5.source),
        layers: t5_layers(&t5.config)?,
        aliases: Vec::new(),
        prefixes: &["text_encoder_2.", "text_encoders.t5xxl.transformer."],
        flat_prefixes: &["lora_te3_", "lora_te2_"],
    })
}
