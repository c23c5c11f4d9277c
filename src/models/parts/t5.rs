//! The T5 encoder, v1.1 with gated GELU (Raffel et al. 2020, arXiv 1910.10683): every token of the prompt becomes one
//! row of `prompt_embeds`.
//!
//! Each block is `x += o(attention(norm(x)))`, `x += wo(gelu(wi_0(norm(x))) · wi_1(norm(x)))`. Attention scores are
//! not scaled; a bias learned per head and distance, held by block 0, is added in every block. FLUX passes no mask, so
//! padding takes part. The residual stream stays f32.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::Linear;
use serde::Deserialize;

use super::layers::{attention, check_dimensions, embedding_rows, for_each_block, linear_no_bias, project, rms_norm};
use crate::{
    base::json::read_json,
    error::{Error, Result},
    weights::Weights,
};

/// Dimensions of a T5 encoder, as `text_encoder_2/config.json` gives them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct T5Config {
    /// Rows of the token embedding; 32128.
    pub vocab_size: usize,
    /// C: width of the encoder and of `prompt_embeds`; 4096.
    pub d_model: usize,
    /// D: channels of one attention head; 64.
    pub d_kv: usize,
    /// Width of the feed-forward part; 10240.
    pub d_ff: usize,
    /// Encoder blocks; 24.
    pub num_layers: usize,
    /// H: attention heads; 64.
    pub num_heads: usize,
    /// Rows of the relative position bias, half of them for each direction; 32.
    #[serde(default = "t5_buckets")]
    pub relative_attention_num_buckets: usize,
    /// The distance in tokens from which all share one bucket; 128.
    #[serde(default = "t5_max_distance")]
    pub relative_attention_max_distance: usize,
    /// Epsilon of the norms; 1e-6.
    #[serde(default = "t5_eps")]
    pub layer_norm_epsilon: f64,
    /// The kind of feed-forward part; only "gated-gelu" is known here.
    pub feed_forward_proj: String,
    /// Its activation; "gelu_new", the tanh approximation.
    #[serde(default)]
    pub dense_act_fn: Option<String>,
}

/// Source: transformers, `T5Config`.
fn t5_buckets() -> usize {
    32
}

/// Source: transformers, `T5Config`.
fn t5_max_distance() -> usize {
    128
}

/// Source: transformers, `T5Config`.
fn t5_eps() -> f64 {
    1e-6
}

impl T5Config {
    /// T5 v1.1 XXL, the token encoder of every FLUX.1: 4.7 billion parameters.
    pub fn t5_xxl() -> Self {
        Self {
            vocab_size: 32_128,
            d_model: 4096,
            d_kv: 64,
            d_ff: 10_240,
            num_layers: 24,
            num_heads: 64,
            relative_attention_num_buckets: t5_buckets(),
            relative_attention_max_distance: t5_max_distance(),
            layer_norm_epsilon: t5_eps(),
            feed_forward_proj: "gated-gelu".into(),
            dense_act_fn: Some("gelu_new".into()),
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, lacks a key, names a feed-forward
    /// part or an activation other than T5 v1.1's, or holds impossible dimensions.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = read_json(path)?;
        let hint = "FLUX.1 takes the encoder of T5 v1.1; check that this file is its config.json, or fetch it again";
        config.check().map_err(|what| Error::model(format!("{}: {what}", path.display()), hint))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        check_dimensions(&[
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
        ])?;
        if self.feed_forward_proj != "gated-gelu" {
            return Err(format!("feed_forward_proj is {:?}, expected \"gated-gelu\"", self.feed_forward_proj));
        }
        if let Some(name) = self.dense_act_fn.as_deref().filter(|name| *name != "gelu_new") {
            return Err(format!("dense_act_fn is {name:?}, expected \"gelu_new\""));
        }
        let (buckets, furthest) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if !buckets.is_multiple_of(4) || furthest <= buckets / 4 {
            return Err(format!("{buckets} relative position buckets for distances to {furthest} make no sense"));
        }
        Ok(())
    }

    /// H·D: width of the queries, keys and values.
    fn inner_size(&self) -> usize {
        self.num_heads * self.d_kv
    }
}

/// A T5 encoder that holds no weights: they are loaded, used and dropped block by block, 772 MB each for T5-XXL in f32.
pub struct T5Encoder {
    config: T5Config,
    weights: Weights,
}

impl T5Encoder {
    /// An encoder on `weights`. Nothing is loaded yet.
    pub fn open(config: T5Config, weights: Weights) -> Self {
        Self { config, weights }
    }

    /// The dimensions.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Loads every tensor once, without computing, and drops it: a source that answers without reading makes this a
    /// check of all names and shapes.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing, misshapen or unreadable.
    pub fn check_weights(&self) -> Result<()> {
        self.weights.pp("shared").get("weight", &self.token_table())?;
        self.load_bias_table()?;
        for index in 0..self.config.num_layers {
            self.load_block(index)?;
        }
        self.load_final_norm().map(drop)
    }

    /// The token embeddings of several prompts, each [1, T, C] f32, in one pass over the weights.
    ///
    /// `ids` are what [`super::PromptTokenizer`] makes, padding included; `on_block` is told how many blocks are done.
    ///
    /// # Errors
    /// [`Error::Model`] when the weights do not fit the config or ids are beyond the embedding table,
    /// [`Error::Tensor`] when the device fails.
    pub fn encode(&self, ids: &[Vec<u32>], mut on_block: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        let mut states = embedding_rows(&self.weights.pp("shared"), self.token_table(), ids)?;
        let biases = self.position_biases(ids)?;
        let run = |index, block: T5Block| {
            for (state, bias) in states.iter_mut().zip(&biases) {
                *state = block.forward(state, bias)?;
            }
            on_block(index + 1);
            Ok(())
        };
        // On an accelerator a block takes longer to arrive than to compute: looking ahead would only cost memory.
        let prefetch = self.weights.device().is_cpu();
        for_each_block(self.config.num_layers, prefetch, |index| self.load_block(index), run)?;
        let norm = self.load_final_norm()?;
        let finish = |state: &Tensor| Ok(rms_norm(state, &norm, self.config.layer_norm_epsilon)?.unsqueeze(0)?); // [1, T, C]
        states.iter().map(finish).collect()
    }

    /// The relative position bias of each prompt, [H, T, T] f32; prompts of one length share one tensor.
    fn position_biases(&self, ids: &[Vec<u32>]) -> Result<Vec<Tensor>> {
        let table = self.load_bias_table()?;
        let mut known: Vec<(usize, Tensor)> = Vec::new();
        let mut bias_of = |tokens| {
            if let Some((_, bias)) = known.iter().find(|(length, _)| *length == tokens) {
                return Ok(bias.clone());
            }
            let bias = position_bias(&self.config, &table, tokens, self.weights.device())?;
            known.push((tokens, bias.clone()));
            Ok(bias)
        };
        ids.iter().map(|ids| bias_of(ids.len())).collect()
    }

    fn load_block(&self, index: usize) -> Result<T5Block> {
        let weights = self.weights.pp("encoder.block").pp(index).pp("layer");
        let block = T5Block::load(&self.config, &weights)?;
        // What was read is copied: its mapped pages need not stay.
        weights.release();
        Ok(block)
    }

    /// The bias per bucket and head, [buckets, H] f32.
    fn load_bias_table(&self) -> Result<Tensor> {
        let weights = self.weights.pp("encoder.block.0.layer.0.SelfAttention.relative_attention_bias");
        let shape = [self.config.relative_attention_num_buckets, self.config.num_heads];
        weights.with_dtype(DType::F32).get("weight", &shape)
    }

    fn load_final_norm(&self) -> Result<Tensor> {
        load_norm(&self.config, &self.weights.pp("encoder.final_layer_norm"))
    }

    fn token_table(&self) -> [usize; 2] {
        [self.config.vocab_size, self.config.d_model]
    }
}

/// The bucket of each relative position: one per token up to a quarter of the buckets, then logarithmically wider ones
/// up to the largest distance; the upper half is for keys after the query (transformers, `_relative_position_bucket`).
fn position_bucket(config: &T5Config, query: usize, key: usize) -> u32 {
    let per_direction = config.relative_attention_num_buckets / 2;
    let exact = per_direction / 2;
    let distance = query.abs_diff(key);
    let bucket = if distance < exact {
        distance
    } else {
        // In f32 as the reference: the borders at powers of two are exact ties.
        let furthest = (config.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
        let beyond = (distance as f32 / exact as f32).ln() / furthest * (per_direction - exact) as f32;
        (exact + beyond as usize).min(per_direction - 1)
    };
    let after = if key > query { per_direction } else { 0 };
    (after + bucket) as u32
}

/// The bias [H, T, T] for every pair of query and key, from the table [buckets, H].
fn position_bias(config: &T5Config, table: &Tensor, tokens: usize, device: &Device) -> Result<Tensor> {
    let buckets: Vec<u32> =
        (0..tokens).flat_map(|query| (0..tokens).map(move |key| position_bucket(config, query, key))).collect();
    let buckets = Tensor::from_vec(buckets, tokens * tokens, device)?;
    let by_head = table.t()?.contiguous()?; // [H, buckets]
    Ok(by_head.index_select(&buckets, 1)?.reshape((config.num_heads, tokens, tokens))?)
}

/// A norm's weight [C], in f32.
fn load_norm(config: &T5Config, weights: &Weights) -> Result<Tensor> {
    weights.with_dtype(DType::F32).get("weight", &[config.d_model])
}

struct T5Block {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    feed_forward_norm: Tensor,
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
    num_heads: usize,
    eps: f64,
}

impl T5Block {
    fn load(config: &T5Config, weights: &Weights) -> Result<Self> {
        let (width, inner) = (config.d_model, config.inner_size());
        let attn = weights.pp("0.SelfAttention");
        let dense = weights.pp("1.DenseReluDense");
        // T5-XXL's gated activations exceed f16's 65504: as the reference does, wo keeps f32 then.
        let wo = if weights.dtype() == DType::F16 { dense.with_dtype(DType::F32) } else { dense.clone() };
        Ok(Self {
            attention_norm: load_norm(config, &weights.pp("0.layer_norm"))?,
            q: linear_no_bias(&attn.pp("q"), width, inner)?,
            k: linear_no_bias(&attn.pp("k"), width, inner)?,
            v: linear_no_bias(&attn.pp("v"), width, inner)?,
            o: linear_no_bias(&attn.pp("o"), inner, width)?,
            feed_forward_norm: load_norm(config, &weights.pp("1.layer_norm"))?,
            wi_0: linear_no_bias(&dense.pp("wi_0"), width, config.d_ff)?,
            wi_1: linear_no_bias(&dense.pp("wi_1"), width, config.d_ff)?,
            wo: linear_no_bias(&wo.pp("wo"), config.d_ff, width)?,
            num_heads: config.num_heads,
            eps: config.layer_norm_epsilon,
        })
    }

    /// x [T, C] f32, bias [H, T, T] f32.
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(x, &self.attention_norm, self.eps)?;
        let (q, k, v) = (project(&self.q, &normed)?, project(&self.k, &normed)?, project(&self.v, &normed)?); // [T, H·D]
        let mixed = attention([&q, &k, &v], self.num_heads, 1.0, bias)?; // [T, H·D]
        let x = (x + project(&self.o, &mixed)?.to_dtype(DType::F32)?)?; // [T, C]

        let normed = rms_norm(&x, &self.feed_forward_norm, self.eps)?;
        let wide = self.wo.weight().dtype();
        let gate = project(&self.wi_0, &normed)?.to_dtype(wide)?.gelu()?; // [T, F]; candle's gelu is the tanh form
        let hidden = (gate * project(&self.wi_1, &normed)?.to_dtype(wide)?)?; // [T, F]
        Ok((x + project(&self.wo, &hidden)?.to_dtype(DType::F32)?)?) // [T, C]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From transformers 5, `T5Attention._relative_position_bucket(key - query, True, 32, 128)`: where buckets begin.
    #[test]
    fn buckets_begin_where_the_reference_begins_them() {
        let config = T5Config::t5_xxl();
        let starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for distance in 0..600 {
            let bucket = starts.iter().filter(|start| **start <= distance).count() as u32 - 1;
            assert_eq!(position_bucket(&config, distance, 0), bucket, "keys before, distance {distance}");
            if distance > 0 {
                assert_eq!(position_bucket(&config, 0, distance), 16 + bucket, "keys after, distance {distance}");
            }
        }
    }

    #[test]
    fn other_feed_forward_parts_are_refused_by_name() {
        let other = T5Config { feed_forward_proj: "relu".into(), ..T5Config::t5_xxl() };
        assert!(other.check().expect_err("T5 v1.0").contains("relu"));
        let other = T5Config { dense_act_fn: Some("silu".into()), ..T5Config::t5_xxl() };
        assert!(other.check().expect_err("unknown").contains("silu"));
        assert_eq!(T5Config::t5_xxl().check(), Ok(()));
    }

    #[test]
    fn impossible_dimensions_are_refused() {
        for config in [
            T5Config { num_heads: 0, ..T5Config::t5_xxl() },
            T5Config { d_kv: usize::MAX, ..T5Config::t5_xxl() },
            T5Config { relative_attention_num_buckets: 2, ..T5Config::t5_xxl() },
            T5Config { relative_attention_max_distance: 8, ..T5Config::t5_xxl() },
        ] {
            assert!(config.check().is_err());
        }
    }
}
