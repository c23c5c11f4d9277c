//! The text encoders' tensors under the names of transformers, whichever of their usual names a file has: transformers' own,
//! behind the prefixes of all-in-one files, OpenAI's for CLIP, llama.cpp's for T5.

use std::{ops::Range, sync::Arc};

use super::{ClipConfig, HiddenStates, ModelPart, QwenConfig, T5Config, clip_layers, qwen_layers, t5_layers};
use crate::{
    error::Result,
    weights::{
        Cut, Renamed, TensorSource, lookup,
        lora::{Alias, Layer, Network},
        reverse,
    },
};

/// Prefixes a CLIP text encoder's names may carry, before or instead of `text_model.`. Sources: transformers 4 and 5,
/// ComfyUI's all-in-one checkpoints, Stable Diffusion's (`cond_stage_model`, `conditioner.embedders.0`), stable-diffusion.cpp.
const CLIP_PREFIXES: [&str; 10] = [
    "text_model.",
    "",
    "text_encoders.clip_l.transformer.text_model.",
    "text_encoders.clip_l.text_model.",
    "text_encoders.clip_l.",
    "clip_l.transformer.text_model.",
    "clip_l.text_model.",
    "clip_l.",
    "conditioner.embedders.0.transformer.text_model.",
    "cond_stage_model.transformer.text_model.",
];
/// Prefixes of the same encoder under OpenAI's names. Sources: openai/CLIP and open_clip, whose text encoder has no prefix;
/// Stable Diffusion's checkpoints (`cond_stage_model`, `conditioner.embedders`).
const OPENAI_PREFIXES: [&str; 6] = [
    "",
    "text_encoders.clip_l.",
    "clip_l.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.model.",
    "text_model.",
];
/// Prefixes a T5 encoder's names may carry. Sources: as CLIP's.
const T5_PREFIXES: [&str; 7] = [
    "",
    "text_encoders.t5xxl.transformer.",
    "text_encoders.t5xxl.",
    "t5xxl.transformer.",
    "t5xxl.",
    "conditioner.embedders.1.transformer.",
    "cond_stage_model.transformer.",
];

/// The two names of T5's one embedding table.
const T5_EMBEDDINGS: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];

/// The tensor that no CLIP text encoder of transformers lacks.
const CLIP_TABLE: &str = "embeddings.token_embedding.weight";
/// The same, of OpenAI's names.
const OPENAI_ATTENTION: &str = "transformer.resblocks.0.attn.in_proj_weight";
/// A tensor of T5's first block.
const T5_QUERY: &str = "encoder.block.0.layer.0.SelfAttention.q.weight";
/// The same, of llama.cpp's names.
const LLAMA_QUERY: &str = "enc.blk.0.attn_q.weight";

/// A CLIP text encoder that answers to each of its names with and without `text_model.`; `None` if the source holds none.
pub fn clip(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |prefix: &&str| source.shape(&format!("{prefix}{CLIP_TABLE}")).is_some();
    let Some(prefix) = CLIP_PREFIXES.into_iter().find(has) else { return openai_clip(&source) };
    let names = |name: &str| is_clip(name).then(|| vec![(name.to_owned(), Cut::Whole)]);
    Some(with_both_names(&source, prefix, names))
}

fn is_clip(name: &str) -> bool {
    ["embeddings.", "encoder.layers.", "final_layer_norm."].iter().any(|start| name.starts_with(start))
}

/// Every name with and without `text_model.`
fn with_both_names(
    source: &Arc<dyn TensorSource>,
    prefix: &str,
    names: impl Fn(&str) -> Option<Vec<(String, Cut)>>,
) -> Renamed {
    Renamed::by(source, prefix, |stored| {
        let names = names(stored)?.into_iter();
        Some(names.flat_map(|(name, cut)| [(format!("text_model.{name}"), cut.clone()), (name, cut)]).collect())
    })
}

/// OpenAI's CLIP: query, key and value are one tensor. What of the file sees pictures has other names.
fn openai_clip(source: &Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |prefix: &&str| source.shape(&format!("{prefix}{OPENAI_ATTENTION}")).is_some();
    let prefix = OPENAI_PREFIXES.into_iter().find(has)?;
    let width = *source.shape(&format!("{prefix}token_embedding.weight"))?.get(1)?;
    let rows = |name: &str| source.shape(&format!("{prefix}{name}"))?.first().copied();
    Some(with_both_names(source, prefix, |name| openai_names(name, width, rows(name))))
}

/// The names of transformers for one tensor of OpenAI's CLIP of this width; `rows` is the tensor's first dimension.
fn openai_names(name: &str, width: usize, rows: Option<usize>) -> Option<Vec<(String, Cut)>> {
    let whole = |name: String| Some(vec![(name, Cut::Whole)]);
    match name {
        "positional_embedding" => return whole("embeddings.position_embedding.weight".into()),
        "token_embedding.weight" => return whole(CLIP_TABLE.into()),
        _ => {}
    }
    if let Some(kind) = name.strip_prefix("ln_final.") {
        return whole(format!("final_layer_norm.{kind}"));
    }
    let (layer, rest) = name.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let block = format!("encoder.layers.{layer}");
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        let own = |i: usize| -> Range<usize> { i * width..(i + 1) * width };
        let part = |(i, part)| (format!("{block}.self_attn.{part}_proj.{kind}"), Cut::Rows(own(i)));
        let is_fused = rows == width.checked_mul(3);
        return is_fused.then(|| ["q", "k", "v"].into_iter().enumerate().map(part).collect());
    }
    let (stem, kind) = rest.rsplit_once('.')?;
    whole(format!("{block}.{}.{kind}", lookup(OPENAI_LAYERS, stem)?))
}

const OPENAI_LAYERS: &[(&str, &str)] = &[
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

/// A T5 encoder that answers to both names of its embedding table; `None` if the source holds none.
pub fn t5(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |prefix: &str, name: &str| source.shape(&format!("{prefix}{name}")).is_some();
    if let Some(prefix) = T5_PREFIXES.into_iter().find(|prefix| has(prefix, T5_QUERY)) {
        let embedding = T5_EMBEDDINGS.into_iter().find(|name| has(prefix, name));
        return Some(Renamed::by(&source, prefix, |name| {
            let is_embedding = embedding == Some(name);
            let missing = |other: &&str| is_embedding && *other != name && !has(prefix, other);
            let both = T5_EMBEDDINGS.into_iter().filter(missing).map(|other| (other.to_owned(), Cut::Whole));
            let own = (name.starts_with("encoder.") || is_embedding).then(|| (name.to_owned(), Cut::Whole));
            Some(own.into_iter().chain(both).collect())
        }));
    }
    let prefix = T5_PREFIXES.into_iter().find(|prefix| has(prefix, LLAMA_QUERY))?;
    Some(Renamed::by(&source, prefix, llama_names))
}

/// The names of transformers for one tensor of T5's encoder as llama.cpp calls it. Source: ggml-org/llama.cpp,
/// gguf-py/gguf/tensor_mapping.py.
fn llama_names(name: &str) -> Option<Vec<(String, Cut)>> {
    let whole = |name: String| Some(vec![(name, Cut::Whole)]);
    match name {
        "token_embd.weight" => return Some(T5_EMBEDDINGS.map(|name| (name.to_owned(), Cut::Whole)).into()),
        "enc.output_norm.weight" => return whole("encoder.final_layer_norm.weight".into()),
        _ => {}
    }
    let (block, rest) = name.strip_prefix("enc.blk.")?.split_once('.')?;
    let (stem, kind) = rest.rsplit_once('.')?;
    whole(format!("encoder.block.{block}.layer.{}.{kind}", lookup(LLAMA_LAYERS, stem)?))
}

const LLAMA_LAYERS: &[(&str, &str)] = &[
    ("attn_q", "0.SelfAttention.q"),
    ("attn_k", "0.SelfAttention.k"),
    ("attn_v", "0.SelfAttention.v"),
    ("attn_o", "0.SelfAttention.o"),
    ("attn_rel_b", "0.SelfAttention.relative_attention_bias"),
    ("attn_norm", "0.layer_norm"),
    ("ffn_gate", "1.DenseReluDense.wi_0"),
    ("ffn_up", "1.DenseReluDense.wi_1"),
    ("ffn_down", "1.DenseReluDense.wo"),
    ("ffn_norm", "1.layer_norm"),
];

/// llama.cpp's name for a tensor of T5's encoder.
pub(crate) fn llama_name_of_t5(name: &str) -> Option<String> {
    if T5_EMBEDDINGS.contains(&name) {
        return Some("token_embd.weight".into());
    }
    if name == "encoder.final_layer_norm.weight" {
        return Some("enc.output_norm.weight".into());
    }
    let (block, rest) = name.strip_prefix("encoder.block.")?.split_once(".layer.")?;
    let (stem, kind) = rest.rsplit_once('.')?;
    Some(format!("enc.blk.{block}.{}.{kind}", reverse(LLAMA_LAYERS, stem)?))
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
    if source.names().iter().any(|name| qwen_of_llama(name).is_some_and(|new| new == format!("model.{known_by}"))) {
        return Some(Renamed::by(&source, "", |name| Some(vec![(qwen_of_llama(name)?, Cut::Whole)])));
    }
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

/// One of Qwen's language models as LoRA files change it: `part` is its name in a model. Prefixes: diffusers, ComfyUI, which names the
/// models; kohya's sd-scripts.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(crate) fn qwen_network(
    part: &'static str,
    source: &Arc<dyn TensorSource>,
    config: &QwenConfig,
    reads: &HiddenStates,
) -> Result<Network> {
    let layers = qwen_layers(config, reads)?;
    // As the language model alone calls them, and as it does inside one that sees.
    let other = |layer: &Layer| {
        let short = layer.name.strip_prefix("model.")?.to_owned();
        let parts = vec![(layer.name.clone(), Cut::Whole)];
        let within = format!("model.language_model.{short}");
        Some([short, within].map(|name| Alias { name, parts: parts.clone() }))
    };
    Ok(Network {
        part,
        source: Arc::clone(source),
        aliases: layers.iter().filter_map(other).flatten().collect(),
        layers,
        prefixes: &[
            "text_encoder.",
            "text_encoders.qwen3_4b.transformer.",
            "text_encoders.qwen3_8b.transformer.",
            "text_encoders.qwen25_7b.transformer.",
        ],
        flat_prefixes: &["lora_te1_", "lora_te_"],
    })
}

/// A language model's tensors outside its blocks, as llama.cpp calls them. Source: ggml-org/llama.cpp,
/// `gguf-py/gguf/tensor_mapping.py`.
const QWEN_LLAMA_TOP: [(&str, &str); 2] =
    [("token_embd.weight", "model.embed_tokens.weight"), ("output_norm.weight", "model.norm.weight")];
/// The same for what is in a block.
const QWEN_LLAMA_BLOCK: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The name of transformers for a tensor of a Qwen in llama.cpp's names, which does not permute its heads.
fn qwen_of_llama(name: &str) -> Option<String> {
    if let Some(new) = lookup(&QWEN_LLAMA_TOP, name) {
        return Some(new.to_owned());
    }
    let (index, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (stem, kind) = rest.rsplit_once('.')?;
    let new = lookup(&QWEN_LLAMA_BLOCK, stem)?;
    Some(format!("model.layers.{index}.{new}.{kind}"))
}

/// llama.cpp's name for a tensor of a Qwen.
pub(crate) fn llama_name_of_qwen(name: &str) -> Option<String> {
    if let Some(stored) = reverse(&QWEN_LLAMA_TOP, name) {
        return Some(stored.to_owned());
    }
    let (index, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (stem, kind) = rest.rsplit_once('.')?;
    Some(format!("blk.{index}.{}.{kind}", reverse(&QWEN_LLAMA_BLOCK, stem)?))
}
