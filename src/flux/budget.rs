//! What a forward pass costs: memory by the sizes of its pieces, and work.

use candle_core::DType;

use super::{FluxConfig, blocks::FEED_FORWARD_RATIO};
use crate::error::{Error, Result};

/// Tensors of one chunk's width that are alive at once at worst: in a single block the normed input, the attention's
/// output and the four widths of the feed-forward activations.
const CHUNK_WIDTHS: u64 = 2 + FEED_FORWARD_RATIO as u64;
/// The smallest chunk that still keeps matrix products busy.
const MIN_TOKEN_CHUNK: usize = 128;

/// Sizes of the pieces of a forward pass. They set memory and speed; the velocity does not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Tokens that are on their way through a block at once.
    pub token_chunk: usize,
    /// Queries of one piece of attention.
    pub query_rows: usize,
    /// Heads of one piece of attention, on devices where scores are a tensor.
    pub heads: usize,
}

impl Default for ForwardOptions {
    /// 2048 tokens keep two cores at their full rate (larger chunks measured no faster); 256 queries share a tile of keys in cache.
    fn default() -> Self {
        Self { token_chunk: 2048, query_rows: 256, heads: 1 }
    }
}

impl ForwardOptions {
    /// The largest pieces whose forward pass stays within `budget_bytes` of activations.
    ///
    /// # Errors
    /// [`Error::Memory`] with the least that would do, when even the smallest pieces do not fit.
    pub fn for_budget(
        config: &FluxConfig,
        image_tokens: usize,
        text_tokens: usize,
        dtype: DType,
        budget_bytes: u64,
    ) -> Result<Self> {
        let mut options = Self::default();
        let need = |options: &Self| forward_memory_bytes(config, image_tokens, text_tokens, dtype, options);
        while need(&options) > budget_bytes {
            if options.token_chunk <= MIN_TOKEN_CHUNK {
                let (least, had) = (need(&options).div_ceil(1 << 20), budget_bytes >> 20);
                let what = format!("the transformer needs {least} MiB for this picture and may take {had} MiB");
                return Err(Error::Memory {
                    what,
                    hint: "allow more with --memory, or ask for a smaller picture".into(),
                });
            }
            options.token_chunk /= 2;
            options.query_rows = options.query_rows.min(options.token_chunk);
        }
        Ok(options)
    }
}

/// Peak bytes of activations in one forward pass, its inputs and weights not counted: the stream, all keys and values,
/// the position tables, the velocity, and one chunk at its widest; `dtype` is what the streams compute in.
pub fn forward_memory_bytes(
    config: &FluxConfig,
    image_tokens: usize,
    text_tokens: usize,
    dtype: DType,
    options: &ForwardOptions,
) -> u64 {
    let (tokens, channels) = ((image_tokens + text_tokens) as u64, config.hidden_size() as u64);
    let width = dtype.size_in_bytes() as u64;
    let streams = 3 * tokens * channels * width;
    let tables = 2 * tokens * config.attention_head_dim as u64 / 2 * 4;
    let velocity = (image_tokens * config.in_channels) as u64 * 4;
    let chunk = (options.token_chunk as u64).min(tokens) * channels;
    streams + tables + velocity + chunk * chunk_bytes(dtype) + attention_bytes(config, tokens, dtype, options)
}

/// Bytes per token and channel of one chunk at its widest.
fn chunk_bytes(dtype: DType) -> u64 {
    let width = dtype.size_in_bytes() as u64;
    match dtype {
        DType::F32 => CHUNK_WIDTHS * width,
        // Norm and rotation hold three f32 copies beside the projection's input, output and target.
        _ => (CHUNK_WIDTHS * width).max(3 * width + 3 * 4),
    }
}

/// Bytes of attention's pieces.
fn attention_bytes(config: &FluxConfig, tokens: u64, dtype: DType, options: &ForwardOptions) -> u64 {
    match dtype {
        DType::F32 => rayon::current_num_threads() as u64 * cpu_attention_bytes(config, options),
        // Scores in f32 before and after the softmax, and once more in the stream's number type.
        other => {
            let scores = (options.heads * options.query_rows) as u64 * tokens;
            scores * (2 * 4 + other.size_in_bytes() as u64)
        }
    }
}

/// One task of the CPU's kernel: a tile of scores, its queries and outputs.
fn cpu_attention_bytes(config: &FluxConfig, options: &ForwardOptions) -> u64 {
    use super::ops::cpu::attention::{KEYS, PANEL};
    let queries = options.query_rows.next_multiple_of(PANEL);
    4 * (KEYS * PANEL + 2 * queries * config.attention_head_dim) as u64
}

/// Floating-point operations of one forward pass, a multiply-add counted as two.
pub fn step_flops(config: &FluxConfig, image_tokens: usize, text_tokens: usize) -> u64 {
    let (image, text) = (image_tokens as u64, text_tokens as u64);
    let (tokens, c) = (image + text, config.hidden_size() as u64);
    let blocks = (config.num_layers + config.num_single_layers) as u64;
    // Either kind of block: four projections of c x c and the feed-forward layers, c to 4c and back.
    let projections = 2 * (4 + 2 * FEED_FORWARD_RATIO as u64) * c * c * tokens;
    let attention = 4 * tokens * tokens * c;
    let modulation = 2 * c * c * (12 * config.num_layers + 3 * config.num_single_layers) as u64;
    let ends = 2 * c * (2 * image * config.in_channels as u64 + text * config.joint_attention_dim as u64);
    blocks * (projections + attention) + modulation + ends
}
