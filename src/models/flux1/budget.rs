//! What a forward pass costs: memory by the sizes of its pieces, and work.

use candle_core::DType;

use super::{FluxConfig, blocks::FEED_FORWARD_RATIO, layers::Compute};
use crate::{
    error::{Error, Result},
    nn::Products,
    nn::kernels::{cpu::attention::Shape, flash},
};

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
        compute: Compute,
        budget_bytes: u64,
    ) -> Result<Self> {
        let mut options = if compute.own_kernels { Self::default() } else { Self::LARGEST };
        let need = |options: &Self| forward_memory_bytes(config, image_tokens, text_tokens, compute, options);
        let tokens = (image_tokens + text_tokens) as u64;
        while need(&options) > budget_bytes || options.scores_elements(config, tokens) > u64::from(u32::MAX) {
            if options.token_chunk <= MIN_TOKEN_CHUNK {
                let (least, had) = (need(&options).div_ceil(1 << 20), budget_bytes >> 20);
                let what = format!("the transformer needs {least} MiB for this picture and may take {had} MiB");
                return Err(Error::Memory {
                    what,
                    hint: "allow more with --memory, or ask for a smaller picture".into(),
                });
            }
            options = options.smaller();
        }
        Ok(options)
    }

    /// Numbers in one piece's scores, on devices where they are a tensor: it must stay below 2^32
    /// ([`crate::nn::check_elements`]) however much memory there is.
    pub fn scores_elements(&self, config: &FluxConfig, tokens: u64) -> u64 {
        (self.heads.min(config.num_attention_heads) * self.query_rows.min(self.token_chunk)) as u64 * tokens
    }

    /// Where to start from on devices that hold scores as a tensor: pieces as large as a large card wants them.
    const LARGEST: Self = Self { token_chunk: 8192, query_rows: 2048, heads: 8 };

    /// The next smaller pieces: scores first, down to one head and 256 queries, then tokens.
    fn smaller(self) -> Self {
        match self {
            Self { heads: 2.., .. } => Self { heads: self.heads / 2, ..self },
            Self { query_rows: 257.., .. } => Self { query_rows: self.query_rows / 2, ..self },
            _ => Self {
                token_chunk: self.token_chunk / 2,
                query_rows: self.query_rows.min(self.token_chunk / 2),
                ..self
            },
        }
    }
}

/// Peak bytes of activations in one forward pass, its inputs and weights not counted: the stream, all keys and values,
/// the position tables, the velocity, and one chunk at its widest. `compute` is what the device computes in
/// ([`Compute::on`]): the streams hold its number type, and products rounded to bf16 add half a chunk's feed-forward
/// activations.
pub fn forward_memory_bytes(
    config: &FluxConfig,
    image_tokens: usize,
    text_tokens: usize,
    compute: Compute,
    options: &ForwardOptions,
) -> u64 {
    let (tokens, channels) = ((image_tokens + text_tokens) as u64, config.hidden_size() as u64);
    let streams = 3 * tokens * channels * compute.dtype.size_in_bytes() as u64;
    let tables = 2 * tokens * config.attention_head_dim as u64 / 2 * 4;
    let velocity = (image_tokens * config.in_channels) as u64 * 4;
    let chunk = (options.token_chunk as u64).min(tokens) * channels;
    streams + tables + velocity + chunk_bytes(config, chunk, tokens, compute, options)
}

/// Bytes of one chunk of `chunk` numbers (tokens times channels) at its widest: in a single block, whose normed input
/// and attention stand beside the feed-forward activations.
fn chunk_bytes(config: &FluxConfig, chunk: u64, tokens: u64, compute: Compute, options: &ForwardOptions) -> u64 {
    let dtype = compute.dtype;
    let width = dtype.size_in_bytes() as u64;
    // Normed input, queries, output.
    let attention = 3 * chunk * width;
    let feed_forward = FEED_FORWARD_RATIO as u64 * chunk * width;
    if compute.own_kernels {
        let shape = Shape {
            heads: config.num_attention_heads,
            dim: config.attention_head_dim,
            queries: options.token_chunk,
            keys: tokens as usize,
        };
        let tiles = shape.working_bytes(options.query_rows);
        let rounded = if compute.products == Products::Rounded { feed_forward / 2 } else { 0 };
        return (attention + tiles).max(2 * chunk * width + feed_forward + rounded);
    }
    // Tensors are not changed in place there: a bias or an activation holds its input and its output.
    let attention = attention + score_bytes(config, tokens, dtype, options);
    // A projection on its way to heads: its input, itself, the heads, and f32 before the norm, after it, and turned.
    let rotation = chunk * (4 * width + 3 * 4);
    attention.max(rotation).max(2 * chunk * width + 2 * feed_forward)
}

/// Scores of one piece: in f32 before and after the softmax, and once more in the stream's number type; none where they
/// stay on the chip.
fn score_bytes(config: &FluxConfig, tokens: u64, dtype: DType, options: &ForwardOptions) -> u64 {
    if flash::takes(dtype, config.attention_head_dim) {
        return 0;
    }
    options.scores_elements(config, tokens) * (2 * 4 + dtype.size_in_bytes() as u64)
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
