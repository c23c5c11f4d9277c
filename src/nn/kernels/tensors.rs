//! The same operations made of candle's tensors: what runs on CUDA and Metal, and on the CPU in other number types.

use candle_core::{DType, Tensor};

use crate::{
    error::Result,
    nn::{self, Activation, AttentionTiles, NORM_EPS, Rotation, check_elements},
};

/// [`crate::nn::linear`].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let weight = weight.to_dtype(x.dtype())?.contiguous()?;
    let mut out = x.matmul(&weight.t()?)?; // [C, out]
    if let Some(bias) = bias {
        out = out.broadcast_add(&bias.to_dtype(x.dtype())?)?;
    }
    match activation {
        Activation::None => Ok(out),
        Activation::Gelu => Ok(out.gelu()?),
    }
}

/// [`crate::nn::norm_modulate`] of all rows of x; the norm is computed in f32.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    // candle's layer norm accumulates in f32 whatever the number type; (1 + scale) and shift are its weight and bias.
    let weight = (scale + 1.0)?.to_dtype(x.dtype())?;
    let bias = shift.to_dtype(x.dtype())?;
    Ok(candle_nn::ops::layer_norm(&x.contiguous()?, &weight, &bias, NORM_EPS as f32)?) // [C', C]
}

/// [`crate::nn::add_gated`].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn add_gated(x: &Tensor, start: usize, gate: &Tensor, y: &Tensor) -> Result<()> {
    let sum = (x.narrow(0, start, y.dim(0)?)? + y.broadcast_mul(gate)?)?;
    Ok(x.slice_set(&sum, 0, start)?)
}

/// [`crate::nn::split_heads`]; norm and rotation in f32.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn split_heads(x: &Tensor, rotation: Option<Rotation<'_>>, out: &Tensor, start: usize) -> Result<()> {
    let (heads, _, dim) = out.dims3()?;
    let x = x.reshape((x.dim(0)?, heads, dim))?.transpose(0, 1)?; // [H, C, D]
    let rows = match rotation {
        None => x.contiguous()?,
        Some(Rotation { weight, cos, sin }) => {
            let x = x.to_dtype(DType::F32)?.contiguous()?;
            let x = candle_nn::ops::rms_norm(&x, &weight.to_dtype(DType::F32)?, NORM_EPS as f32)?;
            let x = candle_nn::rotary_emb::rope_i(&x.unsqueeze(0)?, cos, sin)?; // [1, H, C, D]
            x.squeeze(0)?.to_dtype(out.dtype())?
        }
    };
    Ok(out.slice_set(&rows, 1, start)?) // [H, N, D]
}

/// [`crate::nn::attention`]: scores of `tiles.heads` heads and `tiles.query_rows` queries at a time, softmax in f32.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, tiles: AttentionTiles) -> Result<Tensor> {
    let ((heads, queries, dim), keys) = (q.dims3()?, k.dim(1)?);
    let out = nn::zeros(&[heads, queries, dim], q.dtype(), q.device())?;
    let scale = 1.0 / (dim as f64).sqrt();
    for head in (0..heads).step_by(tiles.heads) {
        let head_count = tiles.heads.min(heads - head);
        let keys_transposed = k.narrow(0, head, head_count)?.transpose(1, 2)?; // [H', D, N]
        let values = v.narrow(0, head, head_count)?; // [H', N, D]
        let mut rows = Vec::with_capacity(queries.div_ceil(tiles.query_rows));
        for row in (0..queries).step_by(tiles.query_rows) {
            let count = tiles.query_rows.min(queries - row);
            check_elements(&[head_count, count, keys])?;
            let q = (q.narrow(0, head, head_count)?.narrow(1, row, count)?.contiguous()? * scale)?;
            let scores = q.matmul(&keys_transposed)?.to_dtype(DType::F32)?; // [H', rows, N]
            let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
            rows.push(weights.matmul(&values)?); // [H', rows, D]
        }
        out.slice_set(&Tensor::cat(&rows, 1)?, 0, head)?;
    }
    Ok(out.transpose(0, 1)?.reshape((queries, heads * dim))?) // [C, H·D]
}
