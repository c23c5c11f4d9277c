//! How files of other programs hold text encoders: llama.cpp's names and keys for those it knows. Source: ggml-org/llama.cpp,
//! `gguf-py/gguf/constants.py`. The vocabulary is not written: who reads these files for pictures has the tokenizer's own.

use super::{QwenConfig, T5Config, text_names};
use crate::{
    error::Error,
    models::{Exchange, GgufNames},
    weights::{lora::Network, write::Key},
};

/// The refusal of another part than those that a family's models are converted in.
pub(crate) fn not_converted(family: &str, part: &str, converted: &str) -> Error {
    let what = format!("the {part} of a {family} model is not converted");
    Error::request(what, format!("what is converted are {converted}"))
}

/// A CLIP: no program reads one as GGUF.
pub(crate) fn clip(network: Network) -> Exchange {
    let tables = &["text_model.embeddings.", "embeddings."];
    Exchange { network, kept: &[], tables, gguf: None }
}

/// A T5 encoder.
pub(crate) fn t5(network: Network, config: &T5Config) -> Exchange {
    /// The table of positions, which llama.cpp keeps.
    const KEPT: &[&str] = &["encoder.block.0.layer.0.SelfAttention.relative_attention_bias."];
    let count = |value: usize| Key::Count(u32::try_from(value).unwrap_or(u32::MAX));
    let keys = vec![
        ("t5encoder.embedding_length", count(config.d_model)),
        ("t5encoder.feed_forward_length", count(config.d_ff)),
        ("t5encoder.block_count", count(config.num_layers)),
        ("t5encoder.attention.head_count", count(config.num_heads)),
        ("t5encoder.attention.key_length", count(config.d_kv)),
        ("t5encoder.attention.value_length", count(config.d_kv)),
        ("t5encoder.attention.layer_norm_epsilon", Key::Number(config.layer_norm_epsilon as f32)),
        ("t5encoder.attention.layer_norm_rms_epsilon", Key::Number(config.layer_norm_epsilon as f32)),
        ("t5encoder.attention.relative_buckets_count", count(config.relative_attention_num_buckets)),
    ];
    let names = GgufNames { architecture: "t5encoder", layers: Vec::new(), name: text_names::llama_name_of_t5, keys };
    Exchange { network, kept: KEPT, tables: &["shared.", "encoder.embed_tokens."], gguf: Some(names) }
}

/// A Qwen3.
pub(crate) fn qwen3(network: Network, config: &QwenConfig) -> Exchange {
    let keys = qwen_keys(
        [
            "qwen3.embedding_length",
            "qwen3.feed_forward_length",
            "qwen3.block_count",
            "qwen3.attention.head_count",
            "qwen3.attention.head_count_kv",
            "qwen3.attention.key_length",
            "qwen3.attention.value_length",
        ],
        ["qwen3.rope.freq_base", "qwen3.attention.layer_norm_rms_epsilon"],
        config,
    );
    qwen(network, "qwen3", keys)
}

/// The language part of a Qwen2.5-VL.
pub(crate) fn qwen25_vl(network: Network, config: &QwenConfig) -> Exchange {
    let mut keys = qwen_keys(
        [
            "qwen2vl.embedding_length",
            "qwen2vl.feed_forward_length",
            "qwen2vl.block_count",
            "qwen2vl.attention.head_count",
            "qwen2vl.attention.head_count_kv",
            "qwen2vl.attention.key_length",
            "qwen2vl.attention.value_length",
        ],
        ["qwen2vl.rope.freq_base", "qwen2vl.attention.layer_norm_rms_epsilon"],
        config,
    );
    // Time, height and width. Source: Qwen/Qwen2.5-VL-7B-Instruct, config.json, mrope_section.
    keys.push(("qwen2vl.rope.dimension_sections", Key::Counts(vec![16, 24, 24, 0])));
    qwen(network, "qwen2vl", keys)
}

fn qwen_keys(counts: [&'static str; 7], numbers: [&'static str; 2], config: &QwenConfig) -> Vec<(&'static str, Key)> {
    let sizes = [
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim(),
        config.head_dim(),
    ];
    let sizes = counts.into_iter().zip(sizes.map(|size| Key::Count(u32::try_from(size).unwrap_or(u32::MAX))));
    let numbers = numbers.into_iter().zip([config.rope_theta, config.rms_norm_eps].map(|x| Key::Number(x as f32)));
    sizes.chain(numbers).collect()
}

fn qwen(network: Network, architecture: &'static str, keys: Vec<(&'static str, Key)>) -> Exchange {
    let names = GgufNames { architecture, layers: Vec::new(), name: text_names::llama_name_of_qwen, keys };
    Exchange { network, kept: &[], tables: &["model.embed_tokens."], gguf: Some(names) }
}
