//! The T5 encoder, v1.1 with gated GELU (Raffel et al. 2020, arXiv 1910.10683): every token of the prompt becomes one
//! row of `prompt_embeds`.
//!
//! Each block is `x += o(attention(norm(x)))`, `x += wo(gelu(wi_0(norm(x))) · wi_1(norm(x)))`. Attention scores are
//! not scaled; a bias learned per head and distance, held by block 0, is added in every block. FLUX passes no mask, so
//! padding takes part. The residual stream stays f32.

use std::path::Path;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::{
    config::{self, Config, Key, computed, idle, one_of, other_name},
    layers::{PRETRAINED, TILES, check_epsilon},
    open,
};
use crate::{
    error::{Error, Result},
    nn::{self, Array, Attention, Bias, Blocks, Compute, Ledger, Linear, Parameters, RmsNorm, Scale, embedding_rows},
    weights::{Expected, Weights, lora::Layer},
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
    pub relative_attention_num_buckets: usize,
    /// The distance in tokens from which all share one bucket; 128.
    pub relative_attention_max_distance: usize,
    /// Epsilon of the norms; 1e-6.
    pub layer_norm_epsilon: f64,
}

/// Source: transformers, `T5Config`.
const KEYS: &[Key] = &[
    computed("vocab_size", "32128"),
    computed("d_model", "512"),
    computed("d_kv", "64"),
    computed("d_ff", "2048"),
    computed("num_layers", "6"),
    // Of the decoder, which FLUX does not have.
    idle("num_decoder_layers", "null"),
    idle("scale_decoder_outputs", "null"),
    idle("tie_word_embeddings", "null"),
    idle("is_decoder", "false"),
    computed("num_heads", "8"),
    computed("relative_attention_num_buckets", "32"),
    computed("relative_attention_max_distance", "128"),
    // Training.
    idle("dropout_rate", "0.1"),
    idle("classifier_dropout", "0.0"),
    idle("initializer_factor", "1.0"),
    computed("layer_norm_epsilon", "1e-6"),
    one_of("feed_forward_proj", r#""relu""#, &[r#""gated-gelu""#]),
    // What follows from it: a config that was written says it too, and then it wins.
    one_of("dense_act_fn", "null", &["null", r#""gelu_new""#]),
    one_of("is_gated_act", "null", &["null", "true"]),
    // Text that is generated.
    idle("use_cache", "true"),
    // The tokenizer's own files say these.
    idle("pad_token_id", "0"),
    idle("eos_token_id", "1"),
    other_name("hidden_size", "d_model", "512"),
    other_name("num_attention_heads", "num_heads", "8"),
    other_name("num_hidden_layers", "num_layers", "6"),
    other_name("head_dim", "d_kv", "64"),
];

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
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, names a feed-forward part or an
    /// activation other than T5 v1.1's, or holds impossible dimensions.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// H·D: width of the queries, keys and values.
    fn inner_size(&self) -> usize {
        self.num_heads * self.d_kv
    }
}

impl Config for T5Config {
    const KEYS: &'static [&'static [Key]] = &[PRETRAINED, KEYS];
    const ADVICE: &'static str =
        "FLUX.1 takes the encoder of T5 v1.1; check that this file is its config.json, or fetch it again";

    fn check(&self) -> Result<()> {
        let layers = ("num_layers", self.num_layers);
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
            layers,
        ];
        open::check_range(&sizes, &[layers], Self::ADVICE)?;
        let (buckets, furthest) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        // The reference divides by the buckets of single tokens, and by the logarithm of how far the others reach.
        let single = buckets / 2 / 2;
        if single == 0 {
            let what = format!("relative_attention_num_buckets is {buckets}, expected at least 4");
            return Err(Error::model(what, Self::ADVICE));
        }
        if furthest <= single {
            let what = format!(
                "relative_attention_max_distance is {furthest}, expected more than {single} for {buckets} buckets"
            );
            return Err(Error::model(what, Self::ADVICE));
        }
        check_epsilon("layer_norm_epsilon", self.layer_norm_epsilon, Self::ADVICE)
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

    /// The token embeddings of several prompts, each [1, T, C] f32, in one pass over the weights.
    ///
    /// `ids` are what [`super::PromptTokenizer`] makes, padding included; `on_block` is told how many blocks are done.
    ///
    /// # Errors
    /// [`Error::Model`] when the weights do not fit the config or ids are beyond the embedding table,
    /// [`Error::Tensor`] when the device fails.
    pub fn encode(&self, ids: &[Vec<u32>], on_block: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        let parameters = Parameters::real(&self.weights).held_as_stored();
        let embeddings = encode(&self.config, &parameters, ids, on_block)?;
        embeddings.iter().map(|rows| Ok(rows.real()?.clone())).collect()
    }

    /// What [`T5Encoder::encode`] would do on such a device, into `ledger`; the embeddings are held while they live.
    ///
    /// # Errors
    /// As there, but for weights.
    pub fn dry(&self, ids: &[Vec<u32>], ledger: &Ledger) -> Result<Vec<Array>> {
        let parameters = Parameters::dry(&self.weights, ledger).held_as_stored();
        encode(&self.config, &parameters, ids, |_| ())
    }
}

/// Names and shapes of all tensors a T5 encoder's loader asks for, in its order.
///
/// # Errors
/// [`Error::Model`] when the configuration makes no sense.
pub fn t5_tensors(config: &T5Config) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config)?.asked())
}

/// The linear layers of a T5 encoder, in the order its loader asks for them.
///
/// # Errors
/// [`Error::Model`] when the configuration makes no sense.
pub(crate) fn t5_layers(config: &T5Config) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config)?.layers())
}

fn loaded_dry(config: &T5Config) -> Result<Parameters> {
    Parameters::of_load(|parameters| {
        embedding_rows(&parameters.pp("shared"), token_table(config), &[vec![0]])?;
        (0..config.num_layers).try_for_each(|index| T5Block::load(config, parameters, index).map(drop))?;
        load_bias_table(config, parameters)?;
        load_final_norm(config, parameters)
    })
}

/// The token embeddings [1, T, C] of lists of ids.
fn encode(
    config: &T5Config,
    parameters: &Parameters,
    ids: &[Vec<u32>],
    mut on_block: impl FnMut(usize),
) -> Result<Vec<Array>> {
    let mut states = embedding_rows(&parameters.pp("shared"), token_table(config), ids)?;
    let biases = position_biases(config, parameters, ids)?;
    blocks(config, parameters).for_each(|index, block| {
        for (state, bias) in states.iter_mut().zip(&biases) {
            *state = block.forward(state, bias)?;
        }
        on_block(index + 1);
        Ok(())
    })?;
    let norm = load_final_norm(config, parameters)?;
    states.iter().map(|state| norm.forward(state)?.unsqueeze(0)).collect() // [1, T, C]
}

/// The blocks, one after another.
fn blocks(config: &T5Config, parameters: &Parameters) -> Blocks<T5Block> {
    let config = config.clone();
    let kinds = [config.num_layers];
    Blocks::one_by_one(&kinds, parameters, move |index, parameters| T5Block::load(&config, parameters, index))
}

/// The relative position bias of each prompt, [H, T, T] f32; prompts of one length share one.
fn position_biases(config: &T5Config, parameters: &Parameters, ids: &[Vec<u32>]) -> Result<Vec<Array>> {
    let table = load_bias_table(config, parameters)?;
    let mut known: Vec<(usize, Array)> = Vec::new();
    let mut bias_of = |tokens| {
        if let Some((_, bias)) = known.iter().find(|(length, _)| *length == tokens) {
            return Ok(bias.clone());
        }
        let bias = position_bias(config, &table, tokens)?;
        known.push((tokens, bias.clone()));
        Ok(bias)
    };
    ids.iter().map(|ids| bias_of(ids.len())).collect()
}

/// The bias per bucket and head, [buckets, H] f32.
fn load_bias_table(config: &T5Config, parameters: &Parameters) -> Result<Array> {
    let parameters = parameters.pp("encoder.block.0.layer.0.SelfAttention.relative_attention_bias");
    let shape = [config.relative_attention_num_buckets, config.num_heads];
    parameters.with_dtype(DType::F32).get("weight", &shape)
}

fn load_final_norm(config: &T5Config, parameters: &Parameters) -> Result<RmsNorm> {
    RmsNorm::load(&parameters.pp("encoder.final_layer_norm"), config.d_model, config.layer_norm_epsilon)
}

fn token_table(config: &T5Config) -> [usize; 2] {
    [config.vocab_size, config.d_model]
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
fn position_bias(config: &T5Config, table: &Array, tokens: usize) -> Result<Array> {
    let row = |query: usize| (0..tokens).map(move |key| position_bucket(config, query, key));
    let buckets = table.place().indices(&[tokens * tokens], || (0..tokens).flat_map(row).collect())?;
    let by_head = table.transpose(0, 1)?.contiguous()?; // [H, buckets]
    by_head.index_select(&buckets, 1)?.reshape(&[config.num_heads, tokens, tokens])
}

struct T5Block {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    feed_forward_norm: RmsNorm,
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
    num_heads: usize,
    /// What the projections compute in.
    dtype: DType,
    /// What the gated activations are held in.
    wide: DType,
}

impl T5Block {
    fn load(config: &T5Config, parameters: &Parameters, index: usize) -> Result<Self> {
        let parameters = parameters.pp("encoder.block").pp(index).pp("layer");
        let (width, inner) = (config.d_model, config.inner_size());
        let compute = Compute::on(parameters.place().kind(), parameters.dtype());
        let attn = parameters.pp("0.SelfAttention");
        let dense = parameters.pp("1.DenseReluDense");
        // T5-XXL's gated activations exceed f16's 65504: as the reference does, wo keeps f32 then.
        let (wo, wide) = match compute.dtype {
            DType::F16 => (dense.with_dtype(DType::F32), Compute::EXACT_F32),
            _ => (dense.clone(), compute),
        };
        let norm = |name| RmsNorm::load(&parameters.pp(name), width, config.layer_norm_epsilon);
        let block = Self {
            attention_norm: norm("0.layer_norm")?,
            q: attn.linear_no_bias("q", width, inner, compute)?,
            k: attn.linear_no_bias("k", width, inner, compute)?,
            v: attn.linear_no_bias("v", width, inner, compute)?,
            o: attn.linear_no_bias("o", inner, width, compute)?,
            feed_forward_norm: norm("1.layer_norm")?,
            wi_0: dense.linear_no_bias("wi_0", width, config.d_ff, compute)?,
            wi_1: dense.linear_no_bias("wi_1", width, config.d_ff, compute)?,
            wo: wo.linear_no_bias("wo", config.d_ff, width, wide)?,
            num_heads: config.num_heads,
            dtype: compute.dtype,
            wide: wide.dtype,
        };
        // What was read is copied: its mapped pages need not stay.
        parameters.release();
        Ok(block)
    }

    /// x [T, C] f32, bias [H, T, T] f32.
    fn forward(&self, x: &Array, bias: &Array) -> Result<Array> {
        let normed = self.attention_norm.forward(x)?.to_dtype(self.dtype)?;
        let heads = |linear: &Linear| nn::heads_of(&linear.forward(&normed)?, None, self.num_heads);
        let (q, k, v) = (heads(&self.q)?, heads(&self.k)?, heads(&self.v)?); // [H, T, D]
        let how = Attention { scale: Scale::One, bias: Bias::Scores(bias), ..Attention::plain(TILES) };
        let mixed = nn::attention(&q, &k, &v, &how)?; // [T, H·D]
        drop((q, k, v));
        let x = x.add(&self.o.forward(&mixed)?.to_dtype(DType::F32)?)?; // [T, C]

        let normed = self.feed_forward_norm.forward(&x)?.to_dtype(self.dtype)?;
        let gate = self.wi_0.forward_gelu(&normed)?.to_dtype(self.wide)?; // [T, F]
        let hidden = gate.mul(&self.wi_1.forward(&normed)?.to_dtype(self.wide)?)?; // [T, F]
        drop(gate);
        x.add(&self.wo.forward(&hidden)?.to_dtype(DType::F32)?) // [T, C]
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
    fn impossible_dimensions_are_refused() {
        for config in [
            T5Config { num_heads: 0, ..T5Config::t5_xxl() },
            T5Config { d_kv: usize::MAX, ..T5Config::t5_xxl() },
            T5Config { relative_attention_num_buckets: 1, ..T5Config::t5_xxl() },
            T5Config { relative_attention_num_buckets: 3, ..T5Config::t5_xxl() },
            T5Config { relative_attention_max_distance: 0, ..T5Config::t5_xxl() },
            T5Config { relative_attention_max_distance: 2, ..T5Config::t5_xxl() },
            T5Config { relative_attention_max_distance: 8, ..T5Config::t5_xxl() },
        ] {
            assert!(config.check().is_err());
        }
    }
}
