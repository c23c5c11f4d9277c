//! The two kinds of transformer blocks.
//!
//! All tokens live in one stream x [N, C], text first, and every block is two passes over it in chunks of tokens:
//! the first makes the keys and values of all tokens, the second finishes each chunk from its queries to its output.
//! So queries, attention outputs and feed-forward activations never exist for more than one chunk, and x is updated
//! in place: once all keys and values are there, a token's old state is needed by nobody but itself.

use std::ops::Range;

use candle_core::DType;

use super::{FluxConfig, ForwardOptions, layers::Modulation};
use crate::{
    error::Result,
    nn::{self, Array, Attention, AttentionTiles, Bias, Compute, KeyBias, Linear, NORM_EPS, Parameters, Rotation},
};

/// Channels of the feed-forward layers, as a multiple of the streams'. Source: diffusers, mlp_ratio.
const FEED_FORWARD_RATIO: usize = 4;

/// What one forward pass gives each of its blocks.
pub struct Pass {
    /// silu of the conditioning [1, C].
    pub vec: Array,
    /// Cosines of every token's angles [N, D/2], f32.
    pub cos: Array,
    /// Sines of every token's angles [N, D/2], f32.
    pub sin: Array,
    /// Keys of all tokens [H, N, D]: room that every block fills anew.
    pub keys: Array,
    /// Values of all tokens [H, N, D].
    pub values: Array,
    /// N_txt: tokens of text, which come first.
    pub text_tokens: usize,
    /// What is added to the logits of the text's keys, where anything is.
    pub text_bias: Option<KeyBias>,
    /// Sizes of the pieces.
    pub options: ForwardOptions,
}

impl Pass {
    /// Calls `work` with (start, count) for pieces of `rows` of at most `token_chunk`.
    fn chunks(&self, rows: Range<usize>, work: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        self.keys.place().pieces(rows, self.options.token_chunk, work)
    }

    /// Rows of all tokens.
    fn all(&self) -> Range<usize> {
        0..self.cos.dim(0)
    }

    /// cos and sin of rows `start..start + count`.
    fn angles(&self, start: usize, count: usize) -> Result<(Array, Array)> {
        Ok((self.cos.narrow(0, start, count)?, self.sin.narrow(0, start, count)?))
    }
}

/// The projections of attention and the norms of its queries and keys.
#[derive(Debug)]
struct Projections {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    norm_q: Array,
    norm_k: Array,
}

impl Projections {
    /// `names`: to_q, to_k, to_v, norm_q, norm_k as this stream calls them.
    fn load(parameters: &Parameters, names: [&str; 5], config: &FluxConfig, compute: Compute) -> Result<Self> {
        let channels = config.hidden_size();
        let [q, k, v, norm_q, norm_k] = names;
        let linear = |name| parameters.linear(name, channels, channels, compute);
        // In f32 from the load on, whatever the streams are: norms are computed in it.
        let in_f32 = parameters.with_dtype(DType::F32);
        let norm = |name| in_f32.pp(name).get("weight", &[config.attention_head_dim]);
        Ok(Self { to_q: linear(q)?, to_k: linear(k)?, to_v: linear(v)?, norm_q: norm(norm_q)?, norm_k: norm(norm_k)? })
    }

    /// Keys and values of h [C', C], which holds the tokens from `start` on.
    fn write_keys_values(&self, h: &Array, start: usize, pass: &Pass) -> Result<()> {
        let (cos, sin) = pass.angles(start, h.dim(0))?;
        let rotation = Rotation { weight: &self.norm_k, eps: NORM_EPS, cos: &cos, sin: &sin };
        nn::split_heads(&self.to_k.forward(h)?, Some(rotation), &pass.keys, start)?;
        nn::split_heads(&self.to_v.forward(h)?, None, &pass.values, start)
    }

    /// Rotated queries of h [C', C], which holds the tokens from `start` on: [H, C', D].
    fn queries(&self, h: &Array, start: usize, pass: &Pass) -> Result<Array> {
        let (heads, _, dim) = pass.keys.dims3()?;
        let (cos, sin) = pass.angles(start, h.dim(0))?;
        let rotation = Rotation { weight: &self.norm_q, eps: NORM_EPS, cos: &cos, sin: &sin };
        let q = h.place().zeros(&[heads, h.dim(0), dim], h.dtype())?;
        nn::split_heads(&self.to_q.forward(h)?, Some(rotation), &q, 0)?;
        Ok(q)
    }
}

/// Attention of q [H, C', D] over all tokens: [C', C].
fn attend(q: &Array, pass: &Pass) -> Result<Array> {
    let tiles = AttentionTiles { query_rows: pass.options.query_rows, heads: pass.options.heads };
    let bias = pass.text_bias.as_ref().map_or(Bias::None, Bias::Keys);
    nn::attention(q, &pass.keys, &pass.values, &Attention { bias, ..Attention::plain(tiles) })
}

/// One stream's half of a double block.
#[derive(Debug)]
struct Stream {
    norm1: Modulation<6>,
    attn: Projections,
    to_out: Linear,
    ff_in: Linear,
    ff_out: Linear,
}

/// What a stream's modulation says: before and after attention, before and after the feed-forward layers.
type StreamModulation = [Array; 6];

impl Stream {
    /// `names`: the modulation, the attention's output, the feed-forward layers.
    fn load(
        parameters: &Parameters,
        config: &FluxConfig,
        compute: Compute,
        names: [&str; 3],
        attn: [&str; 5],
    ) -> Result<Self> {
        let channels = config.hidden_size();
        let [norm1, to_out, ff] = names;
        let (heads, ff) = (parameters.pp("attn"), parameters.pp(ff).pp("net"));
        Ok(Self {
            norm1: Modulation::load(parameters, norm1, channels, compute)?,
            attn: Projections::load(&heads, attn, config, compute)?,
            to_out: heads.linear(to_out, channels, channels, compute)?,
            ff_in: ff.linear("0.proj", channels, FEED_FORWARD_RATIO * channels, compute)?,
            ff_out: ff.linear("2", FEED_FORWARD_RATIO * channels, channels, compute)?,
        })
    }

    fn write_keys_values(&self, x: &Array, rows: Range<usize>, m: &StreamModulation, pass: &Pass) -> Result<()> {
        let [shift, scale, ..] = m;
        pass.chunks(rows, |start, count| {
            let h = nn::norm_modulate(x, start, count, shift, scale)?; // [C', C]
            self.attn.write_keys_values(&h, start, pass)
        })
    }

    fn finish(&self, x: &Array, rows: Range<usize>, m: &StreamModulation, pass: &Pass) -> Result<()> {
        let [shift, scale, gate, ff_shift, ff_scale, ff_gate] = m;
        pass.chunks(rows, |start, count| {
            let q = self.attn.queries(&nn::norm_modulate(x, start, count, shift, scale)?, start, pass)?;
            nn::add_gated(x, start, gate, &self.to_out.forward(&attend(&q, pass)?)?)?;
            drop(q);
            let h = self.ff_in.forward_gelu(&nn::norm_modulate(x, start, count, ff_shift, ff_scale)?)?; // [C', 4·C]
            nn::add_gated(x, start, ff_gate, &self.ff_out.forward(&h)?)
        })
    }
}

/// A block in which text and image have weights of their own and meet in attention.
#[derive(Debug)]
pub struct DoubleBlock {
    txt: Stream,
    img: Stream,
}

impl DoubleBlock {
    /// `transformer_blocks.{i}`, which `parameters` stands at.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, config: &FluxConfig, compute: Compute) -> Result<Self> {
        let txt_attn = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];
        let img_attn = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let txt_names = ["norm1_context.linear", "to_add_out", "ff_context"];
        let img_names = ["norm1.linear", "to_out.0", "ff"];
        Ok(Self {
            txt: Stream::load(parameters, config, compute, txt_names, txt_attn)?,
            img: Stream::load(parameters, config, compute, img_names, img_attn)?,
        })
    }

    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let txt = 0..pass.text_tokens;
        let img = pass.text_tokens..pass.all().end;
        let (txt_m, img_m) = (self.txt.norm1.forward(&pass.vec)?, self.img.norm1.forward(&pass.vec)?);
        self.txt.write_keys_values(x, txt.clone(), &txt_m, pass)?;
        self.img.write_keys_values(x, img.clone(), &img_m, pass)?;
        self.txt.finish(x, txt, &txt_m, pass)?;
        self.img.finish(x, img, &img_m, pass)
    }
}

/// A block in which all tokens share weights, and attention and feed-forward layers run side by side.
#[derive(Debug)]
pub struct SingleBlock {
    norm: Modulation<3>,
    attn: Projections,
    proj_mlp: Linear,
    /// The part of proj_out that takes the attention's output.
    out_attn: Linear,
    /// The part of proj_out that takes the feed-forward activations.
    out_mlp: Linear,
}

impl SingleBlock {
    /// `single_transformer_blocks.{i}`, which `parameters` stands at.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, config: &FluxConfig, compute: Compute) -> Result<Self> {
        let (channels, ff) = (config.hidden_size(), FEED_FORWARD_RATIO * config.hidden_size());
        let names = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let proj_out = parameters.linear("proj_out", channels + ff, channels, compute)?;
        let (out_attn, out_mlp) = proj_out.split_inputs(channels)?;
        Ok(Self {
            norm: Modulation::load(parameters, "norm.linear", channels, compute)?,
            attn: Projections::load(&parameters.pp("attn"), names, config, compute)?,
            proj_mlp: parameters.linear("proj_mlp", channels, ff, compute)?,
            out_attn,
            out_mlp,
        })
    }

    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let [shift, scale, gate] = self.norm.forward(&pass.vec)?;
        pass.chunks(pass.all(), |start, count| {
            let h = nn::norm_modulate(x, start, count, &shift, &scale)?; // [C', C]
            self.attn.write_keys_values(&h, start, pass)
        })?;
        pass.chunks(pass.all(), |start, count| {
            let h = nn::norm_modulate(x, start, count, &shift, &scale)?; // [C', C]
            let attended = attend(&self.attn.queries(&h, start, pass)?, pass)?; // [C', C]
            let mlp = self.proj_mlp.forward_gelu(&h)?; // [C', 4·C]
            drop(h);
            // The gate is linear: both halves of proj_out can be added one after the other, without their sum or their cat.
            nn::add_gated(x, start, &gate, &self.out_attn.forward(&attended)?)?;
            nn::add_gated(x, start, &gate, &self.out_mlp.forward(&mlp)?)
        })
    }
}
