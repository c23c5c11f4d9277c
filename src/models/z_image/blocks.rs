//! The transformer's one kind of layer: norms before and behind attention and feed-forward, scaled and gated by t where the layer
//! sees the picture.
//!
//! A layer is two passes over its tokens in chunks: the first makes all keys and values, the second finishes each chunk. So
//! queries and feed-forward activations never exist for more than one chunk, and x is updated in place.

use candle_core::DType;

use super::ZImageConfig;
use crate::{
    error::Result,
    models::ForwardOptions,
    nn::{
        self, Array, Attention, AttentionTiles, Bias, Compute, KeyBias, Linear, Parameters, Place, Products, Rotation,
        Scale,
    },
};

/// Epsilon of the norms of queries and keys. Source: diffusers, `ZImageTransformerBlock`.
const QK_EPS: f64 = 1e-5;

/// What a pass over some tokens gives each of its layers.
pub(super) struct Pass {
    /// t, embedded [1, min(C, 256)]; none for layers that see the text alone.
    pub time: Option<Array>,
    /// Cosines of every token's angles [N, D/2], f32.
    pub cos: Array,
    /// Sines of every token's angles [N, D/2], f32.
    pub sin: Array,
    /// Keys of all tokens [H, N, D]: room that every layer fills anew.
    keys: Array,
    /// Values of all tokens [H, N, D].
    values: Array,
    /// What is added to the logits of some keys, where anything is.
    pub bias: Option<KeyBias>,
    /// What logits are multiplied by.
    pub logit_scale: f64,
    /// How attention multiplies.
    products: Products,
    /// Sizes of the pieces.
    options: ForwardOptions,
}

impl Pass {
    /// A pass over as many tokens as the tables have rows, computed in these numbers.
    pub fn new(
        config: &ZImageConfig,
        time: Option<Array>,
        [cos, sin]: [Array; 2],
        (Compute { dtype, products }, options): (Compute, ForwardOptions),
    ) -> Result<Self> {
        let shape = [config.n_heads, cos.dim(0), config.head_dim()];
        let room = || cos.place().zeros(&shape, dtype);
        let (keys, values) = (room()?, room()?);
        Ok(Self { time, cos, sin, keys, values, bias: None, logit_scale: 1.0, products, options })
    }

    fn chunks(&self, work: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        self.keys.place().pieces(0..self.cos.dim(0), self.options.token_chunk, work)
    }

    /// cos and sin of rows `start..start + count`.
    fn angles(&self, start: usize, count: usize) -> Result<[Array; 2]> {
        Ok([self.cos.narrow(0, start, count)?, self.sin.narrow(0, start, count)?])
    }

    /// Attention of q [H, C', D] over all tokens: [C', C].
    fn attend(&self, q: &Array) -> Result<Array> {
        let tiles = AttentionTiles { query_rows: self.options.query_rows, heads: self.options.heads };
        let bias = self.bias.as_ref().map_or(Bias::None, Bias::Keys);
        let scale = Scale::InverseRootTimes(self.logit_scale);
        nn::attention(q, &self.keys, &self.values, &Attention { scale, bias, tiles, products: self.products })
    }
}

/// The norms of a layer at one moment: weights \[C\], f32, and gates \[C\] in the number type of the stream.
struct Norms {
    attention_1: Array,
    attention_2: Array,
    attention_gate: Array,
    ffn_1: Array,
    ffn_2: Array,
    ffn_gate: Array,
}

/// A layer.
pub(super) struct Block {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: Array,
    norm_k: Array,
    w1: Linear,
    w2: Linear,
    w3: Linear,
    /// attention_norm1, attention_norm2, ffn_norm1, ffn_norm2, f32.
    norms: [Array; 4],
    modulation: Option<Linear>,
    eps: f64,
}

impl Block {
    /// The layer that `parameters` stands at, with or without modulation by t.
    pub fn load(parameters: &Parameters, config: &ZImageConfig, compute: Compute, is_modulated: bool) -> Result<Self> {
        let (channels, hidden) = (config.dim, config.feed_forward());
        let (attention, ff) = (parameters.pp("attention"), parameters.pp("feed_forward"));
        let square = |name| attention.linear_no_bias(name, channels, channels, compute);
        // In f32 from the load on, whatever the streams are: norms are computed in it.
        let in_f32 = parameters.with_dtype(DType::F32);
        let norm = |name| in_f32.pp(name).get("weight", &[channels]);
        let head_norm = |name| in_f32.pp("attention").pp(name).get("weight", &[config.head_dim()]);
        let modulation =
            |()| parameters.linear("adaLN_modulation.0", config.time_channels(), 4 * channels, compute.exact());
        let block = Self {
            norm_q: head_norm("norm_q")?,
            norm_k: head_norm("norm_k")?,
            to_q: square("to_q")?,
            to_k: square("to_k")?,
            to_v: square("to_v")?,
            to_out: square("to_out.0")?,
            w1: ff.linear_no_bias("w1", channels, hidden, compute)?,
            w2: ff.linear_no_bias("w2", hidden, channels, compute)?,
            w3: ff.linear_no_bias("w3", channels, hidden, compute)?,
            norms: [norm("attention_norm1")?, norm("attention_norm2")?, norm("ffn_norm1")?, norm("ffn_norm2")?],
            modulation: is_modulated.then_some(()).map(modulation).transpose()?,
            eps: config.norm_eps,
        };
        // What was read is copied: its mapped pages would only make the process look, and be, larger than it is.
        parameters.release();
        Ok(block)
    }

    /// Updates the first rows of x [N, C], as many as the pass has tokens, in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let norms = self.norms_at(pass, &x.place(), x.dtype())?;
        pass.chunks(|start, count| {
            let h = nn::rms_norm(&x.narrow(0, start, count)?, &norms.attention_1, self.eps)?; // [C', C]
            let [cos, sin] = pass.angles(start, count)?;
            let rotation = Rotation { weight: &self.norm_k, eps: QK_EPS, cos: &cos, sin: &sin };
            nn::split_heads(&self.to_k.forward(&h)?, Some(rotation), &pass.keys, start)?;
            nn::split_heads(&self.to_v.forward(&h)?, None, &pass.values, start)
        })?;
        pass.chunks(|start, count| {
            let attended = pass.attend(&self.queries(x, (start, count), &norms, pass)?)?; // [C', C]
            let y = self.to_out.forward(&attended)?; // [C', C]
            drop(attended);
            nn::add_gated_norm(x, start, &norms.attention_gate, &y, &norms.attention_2, self.eps)?;
            drop(y);
            let h = nn::rms_norm(&x.narrow(0, start, count)?, &norms.ffn_1, self.eps)?;
            let y = self.feed_forward(&h)?; // [C', C]
            nn::add_gated_norm(x, start, &norms.ffn_gate, &y, &norms.ffn_2, self.eps)
        })
    }

    /// Rotated queries of some tokens: [H, C', D].
    fn queries(&self, x: &Array, (start, count): (usize, usize), norms: &Norms, pass: &Pass) -> Result<Array> {
        let h = nn::rms_norm(&x.narrow(0, start, count)?, &norms.attention_1, self.eps)?;
        let [cos, sin] = pass.angles(start, count)?;
        let rotation = Rotation { weight: &self.norm_q, eps: QK_EPS, cos: &cos, sin: &sin };
        nn::heads_of(&self.to_q.forward(&h)?, Some(rotation), pass.keys.dim(0)) // [H, C', D]
    }

    /// `w2(silu(w1 h)·w3 h)` for h [C', C].
    fn feed_forward(&self, h: &Array) -> Result<Array> {
        let gated = nn::silu_gated(self.w1.forward(h)?, &self.w3.forward(h)?)?; // [C', 8/3·C]
        self.w2.forward(&gated)
    }

    /// The norms as t scales and gates them.
    fn norms_at(&self, pass: &Pass, place: &Place, dtype: DType) -> Result<Norms> {
        let [attention_1, attention_2, ffn_1, ffn_2] = self.norms.each_ref().map(Array::clone);
        let (Some(modulation), Some(time)) = (&self.modulation, &pass.time) else {
            let channels = ffn_1.dim(0);
            let one = place.floats(&[channels], || vec![1.0; channels])?.to_dtype(dtype)?;
            let (attention_gate, ffn_gate) = (one.clone(), one);
            return Ok(Norms { attention_1, attention_2, attention_gate, ffn_1, ffn_2, ffn_gate });
        };
        let all = modulation.forward(time)?.squeeze(0)?; // [4·C]
        let channels = all.dim(0) / 4;
        let part = |index: usize| all.narrow(0, index * channels, channels);
        let scaled = |weight: &Array, scale: Array| weight.mul(&scale.to_dtype(DType::F32)?.affine(1.0, 1.0)?);
        Ok(Norms {
            attention_1: scaled(&attention_1, part(0)?)?,
            attention_2,
            attention_gate: part(1)?.tanh()?,
            ffn_1: scaled(&ffn_1, part(2)?)?,
            ffn_2,
            ffn_gate: part(3)?.tanh()?,
        })
    }
}
