//! The operations made of candle's tensors: what runs on CUDA and Metal, and on the CPU in other number types. Written over
//! [`Array`], so that their dry pass is this code.

use candle_core::DType;

use crate::{
    error::Result,
    nn::{Activation, Array, Attention, Bias, NORM_EPS, Rotation},
};

/// `x·weightᵀ` for x [C, in] and weight [out, in].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn product(x: &Array, weight: &Array) -> Result<Array> {
    let weight = weight.to_dtype(x.dtype())?.contiguous()?;
    x.matmul(&weight.transpose(0, 1)?) // [C, out]
}

/// `activation(x + bias)`.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn after_product(x: Array, bias: Option<&Array>, activation: Activation) -> Result<Array> {
    let mut out = x;
    if let Some(bias) = bias {
        out = out.add(&bias.to_dtype(out.dtype())?)?;
    }
    match activation {
        Activation::None => Ok(out),
        Activation::Gelu => out.gelu(),
    }
}

/// [`crate::nn::norm_modulate`] of all rows of x; the norm is computed in f32.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn norm_modulate(x: &Array, shift: &Array, scale: &Array) -> Result<Array> {
    // candle's layer norm accumulates in f32 whatever the number type; (1 + scale) and shift are its weight and bias.
    let weight = scale.affine(1.0, 1.0)?.to_dtype(x.dtype())?;
    let bias = shift.to_dtype(x.dtype())?;
    x.contiguous()?.layer_norm(&weight, &bias, NORM_EPS as f32) // [C', C]
}

/// [`crate::nn::rms_norm`].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn rms_norm(x: &Array, weight: &Array, eps: f64) -> Result<Array> {
    x.contiguous()?.rms_norm(&weight.to_dtype(x.dtype())?, eps as f32)
}

/// [`crate::nn::add_gated`].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn add_gated(x: &Array, start: usize, gate: &Array, y: &Array) -> Result<()> {
    let sum = x.narrow(0, start, y.dim(0))?.add(&y.mul(gate)?)?;
    x.slice_set(&sum, 0, start)
}

/// [`crate::nn::split_heads`]; norm and rotation in f32.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn split_heads(x: &Array, rotation: Option<Rotation<'_>>, out: &Array, start: usize) -> Result<()> {
    let (heads, _, dim) = out.dims3()?;
    let x = x.reshape(&[x.dim(0), heads, dim])?.transpose(0, 1)?; // [H, C, D]
    let rows = match rotation {
        None => x.contiguous()?,
        Some(Rotation { weight, eps, cos, sin }) => {
            let x = x.to_dtype(DType::F32)?.contiguous()?;
            let x = x.rms_norm(&weight.to_dtype(DType::F32)?, eps as f32)?;
            let x = x.unsqueeze(0)?.turn_pairs(cos, sin)?; // [1, H, C, D]
            x.squeeze(0)?.to_dtype(out.dtype())?
        }
    };
    out.slice_set(&rows, 1, start) // [H, N, D]
}

/// [`crate::nn::attention()`]: scores of so many heads and queries at a time, in f32 from the product to the softmax.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Array> {
    let (heads, queries, dim) = q.dims3()?;
    let place = q.place();
    let out = place.zeros(&[heads, queries, dim], q.dtype())?;
    let bias = ScoreBias::new(q, k, how)?;
    // Of heads that share keys, all are in one piece.
    let sharing = heads / k.dim(0);
    place.pieces(0..heads, how.tiles.heads.next_multiple_of(sharing), |head, count| {
        // Products of half-precision numbers would be rounded to them, and large logits with them.
        let keys = of_heads(k, head, count, sharing)?.to_dtype(DType::F32)?.transpose(1, 2)?; // [H', D, N]
        let values = of_heads(v, head, count, sharing)?; // [H', N, D]
        let target = out.narrow(0, head, count)?; // [H', C, D]
        place.pieces(0..queries, how.tiles.query_rows, |row, rows| {
            let q = q.narrow(0, head, count)?.narrow(1, row, rows)?.contiguous()?.to_dtype(DType::F32)?;
            let scores = q.affine(how.scale.factor(dim), 0.0)?.matmul(&keys)?; // [H', rows, N]
            let scores = bias.add_to(scores, (head, count), (row, rows))?;
            let weights = scores.softmax()?;
            drop(scores);
            target.slice_set(&weights.to_dtype(v.dtype())?.matmul(&values)?, 1, row) // [H', rows, D]
        })
    })?;
    out.transpose(0, 1)?.reshape(&[queries, heads * dim]) // [C, H·D]
}

/// What heads `head..head + count` of q meet of x [K, N, D], each of whose heads so many share: [count, N, D].
fn of_heads(x: &Array, head: usize, count: usize, sharing: usize) -> Result<Array> {
    let x = x.narrow(0, head / sharing, count / sharing)?;
    if sharing == 1 {
        return Ok(x);
    }
    let (groups, keys, dim) = x.dims3()?;
    x.unsqueeze(1)?.broadcast_as(&[groups, sharing, keys, dim])?.reshape(&[count, keys, dim]) // [H', N, D]
}

/// A bias as it is added to pieces of scores [H', rows, N].
enum ScoreBias {
    None,
    /// [1, 1, N]
    Keys(Array),
    /// [H, C, N], or [1, C, N] for all heads.
    Scores(Array),
}

impl ScoreBias {
    fn new(q: &Array, k: &Array, how: &Attention<'_>) -> Result<Self> {
        match how.bias {
            Bias::None => Ok(Self::None),
            Bias::Scores(scores) => Ok(Self::Scores(scores.clone())),
            Bias::Causal { keys: seen } => {
                let (queries, keys) = (q.dim(1), k.dim(1));
                let hides = |query, key| if key <= query && key < seen { 0.0 } else { f32::NEG_INFINITY };
                let row = |query| (0..keys).map(move |key| hides(query, key));
                let mask = q.place().floats(&[1, queries, keys], || (0..queries).flat_map(row).collect())?;
                Ok(Self::Scores(mask))
            }
            Bias::Keys(runs) => {
                let keys = k.dim(1);
                Ok(Self::Keys(q.place().floats(&[1, 1, keys], || runs.of_each_key(keys))?))
            }
        }
    }

    fn add_to(&self, scores: Array, heads: (usize, usize), rows: (usize, usize)) -> Result<Array> {
        match self {
            Self::None => Ok(scores),
            Self::Keys(keys) => scores.add(keys),
            Self::Scores(bias) => {
                let bias = if bias.dim(0) == 1 { bias.clone() } else { bias.narrow(0, heads.0, heads.1)? };
                scores.add(&bias.narrow(1, rows.0, rows.1)?)
            }
        }
    }
}
