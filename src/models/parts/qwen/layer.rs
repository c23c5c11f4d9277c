//! One layer: `x += o(attention(norm(x)))`, `x += down(silu(gate(norm(x))) · up(norm(x)))`.

use candle_core::DType;

use super::QwenConfig;
use crate::{
    error::Result,
    models::parts::layers::TILES,
    nn::{self, Array, Attention, Bias, Compute, Linear, Parameters, RmsNorm},
};

/// How the tokens of one sequence are turned, and which of them are seen.
pub(super) struct Pass {
    /// Cosines [T, D/2], f32.
    pub(super) cos: Array,
    /// Sines [T, D/2], f32.
    pub(super) sin: Array,
    /// Tokens that are no padding.
    pub(super) real: usize,
}

pub(super) struct QwenLayer {
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// The norms of each head's queries and keys.
    qk_norm: Option<[RmsNorm; 2]>,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    num_heads: usize,
    num_key_value_heads: usize,
    /// What the projections compute in.
    dtype: DType,
    /// What the gated activations are held in.
    wide: DType,
}

impl QwenLayer {
    pub(super) fn load(config: &QwenConfig, parameters: &Parameters, index: usize) -> Result<Self> {
        let parameters = parameters.pp("model.layers").pp(index);
        let (width, hidden, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let (attn, mlp) = (parameters.pp("self_attn"), parameters.pp("mlp"));
        let compute = Compute::on(parameters.place().kind(), parameters.dtype());
        let (heads, groups, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim());
        let projection = |name, heads| match config.qkv_bias {
            true => attn.linear(name, width, heads * dim, compute),
            false => attn.linear_no_bias(name, width, heads * dim, compute),
        };
        let head_norm = |name| RmsNorm::load(&attn.pp(name), dim, eps);
        // Trained in bf16: the gated activations of a few channels may be beyond f16's 65504.
        let (down, wide) = match compute.dtype {
            DType::F16 => (mlp.with_dtype(DType::F32), Compute::EXACT_F32),
            _ => (mlp.clone(), compute),
        };
        let layer = Self {
            input_norm: RmsNorm::load(&parameters.pp("input_layernorm"), width, eps)?,
            q: projection("q_proj", heads)?,
            k: projection("k_proj", groups)?,
            v: projection("v_proj", groups)?,
            o: attn.linear_no_bias("o_proj", heads * dim, width, compute)?,
            qk_norm: if config.qk_norm { Some([head_norm("q_norm")?, head_norm("k_norm")?]) } else { None },
            feed_forward_norm: RmsNorm::load(&parameters.pp("post_attention_layernorm"), width, eps)?,
            gate: mlp.linear_no_bias("gate_proj", width, hidden, compute)?,
            up: mlp.linear_no_bias("up_proj", width, hidden, compute)?,
            down: down.linear_no_bias("down_proj", hidden, width, wide)?,
            num_heads: heads,
            num_key_value_heads: groups,
            dtype: compute.dtype,
            wide: wide.dtype,
        };
        // What was read is copied: its mapped pages need not stay.
        parameters.release();
        Ok(layer)
    }

    /// x [T, C] f32.
    pub(super) fn forward(&self, x: &Array, pass: &Pass) -> Result<Array> {
        let normed = self.input_norm.forward(x)?.to_dtype(self.dtype)?;
        let [q_norm, k_norm] = self.qk_norm.as_ref().map_or([None, None], |[q, k]| [Some(q), Some(k)]);
        let q = self.turned(&self.q.forward(&normed)?, self.num_heads, q_norm, pass)?; // [H, T, D]
        let k = self.turned(&self.k.forward(&normed)?, self.num_key_value_heads, k_norm, pass)?; // [K, T, D]
        let v = nn::heads_of(&self.v.forward(&normed)?, None, self.num_key_value_heads)?; // [K, T, D]
        let how = Attention { bias: Bias::Causal { keys: pass.real }, ..Attention::plain(TILES) };
        let mixed = nn::attention(&q, &k, &v, &how)?; // [T, H·D]
        drop((q, k, v));
        let x = x.add(&self.o.forward(&mixed)?.to_dtype(DType::F32)?)?; // [T, C]
        drop(mixed);

        let normed = self.feed_forward_norm.forward(&x)?.to_dtype(self.dtype)?;
        let gate = self.gate.forward(&normed)?.silu()?.to_dtype(self.wide)?; // [T, F]
        let hidden = gate.mul(&self.up.forward(&normed)?.to_dtype(self.wide)?)?; // [T, F]
        drop(gate);
        x.add(&self.down.forward(&hidden)?.to_dtype(DType::F32)?) // [T, C]
    }

    /// x [T, H·D] as heads [H, T, D], normed where the model does so, and turned by halves, in f32.
    fn turned(&self, x: &Array, heads: usize, norm: Option<&RmsNorm>, pass: &Pass) -> Result<Array> {
        let (tokens, channels) = x.dims2()?;
        let mut x = x.to_dtype(DType::F32)?;
        if let Some(norm) = norm {
            let by_head = x.reshape(&[tokens * heads, channels / heads])?; // [T·H, D]
            x = norm.forward(&by_head)?.reshape(&[tokens, channels])?; // [T, H·D]
        }
        let x = nn::heads_of(&x, None, heads)?.unsqueeze(0)?; // [1, H, T, D]
        x.turn_halves(&pass.cos, &pass.sin)?.squeeze(0)?.to_dtype(self.dtype) // [H, T, D]
    }
}
