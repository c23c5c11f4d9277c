//! The few operations a block is made of. Each has a form for the CPU ([`kernels::cpu`]), on slices, fused and vectorised, and a
//! form made of candle's tensors ([`kernels::tensors`]) for every other device; both are held against each other in the tests.
//!
//! Token streams are [N, C], one picture at a time; heads are [H, N, D].

mod attention_check;
pub mod bands;
pub mod kernels;
mod ledger;
mod rope;
mod view;

use candle_core::{DType, Device, Tensor};

pub use attention_check::tell_attention_error;
pub use kernels::cpu::linear::Activation;
pub use ledger::{Held, Ledger};
pub use rope::{PositionAxis, PositionIds, RopeTables, TokenRun};

use crate::error::{Error, Result};
use cpu::{
    attention::{Bias, Piece, Shape},
    rows,
};
use kernels::{cpu, flash, tensors};
use view::{View, in_place, view};

/// eps of every norm in FLUX. Source: diffusers, FluxTransformerBlock and its attention.
pub const NORM_EPS: f64 = 1e-6;

/// What norms and rotates queries and keys.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Weight of the RMS norm over each head \[D\].
    pub weight: &'a Tensor,
    /// Cosines of these rows [C, D/2], f32.
    pub cos: &'a Tensor,
    /// Sines of these rows [C, D/2], f32.
    pub sin: &'a Tensor,
}

/// Whether the CPU's own kernels take this tensor.
fn is_fast(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}

/// A new tensor of zeros, refused where its elements cannot be counted in 32 bits: candle's CUDA launches truncate there.
///
/// # Errors
/// [`Error::Memory`] when the tensor would have 2^32 elements or more.
pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    check_elements(shape)?;
    Ok(Tensor::zeros(shape, dtype, device)?)
}

/// Refuses a shape of 2^32 elements or more.
///
/// # Errors
/// [`Error::Memory`] for such a shape.
pub fn check_elements(shape: &[usize]) -> Result<()> {
    let elements = shape.iter().map(|n| *n as u128).product::<u128>();
    if elements < 1 << 32 {
        return Ok(());
    }
    Err(Error::Memory {
        what: format!("a tensor of shape {shape:?} has {elements} elements, more than devices count"),
        hint: "ask for a smaller picture".into(),
    })
}

/// Tensors that do not fit together: a bug of the caller.
pub(crate) fn mismatch(what: impl Into<String>) -> Error {
    Error::Tensor(candle_core::Error::msg(what.into()))
}

/// How linear layers multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// In the number type of the stream.
    Exact,
    /// As [`Products::Exact`], except that the CPU may round inputs to bf16, where the weight is bf16 and the processor
    /// multiplies such pairs at twice the rate; sums stay f32.
    Rounded,
}

/// [`linear_in`] with exact products.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    linear_in(Products::Exact, x, weight, bias, activation)
}

/// `activation(x·weightᵀ + bias)` for x [C, in] and weight [out, in]; a weight of another number type is converted on the way.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn linear_in(
    products: Products,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let ((rows, inputs), (outputs, weight_inputs)) = (x.dims2()?, weight.dims2()?);
    if inputs != weight_inputs {
        return Err(mismatch(format!("linear: {inputs} inputs for a weight of {weight_inputs}")));
    }
    check_elements(&[rows, outputs])?;
    let held = matches!(weight.dtype(), DType::F32 | DType::BF16) && weight.stride()[1] == 1;
    if !is_fast(x) || !held {
        return tensors::linear(x, weight, bias, activation);
    }
    let (weight_view, bias) = (view(weight), bias.map(view));
    let layer = cpu::linear::Linear {
        weight: weight_view.weight()?,
        stride: weight.stride()[0],
        inputs,
        outputs,
        bias: bias.as_ref().map(View::f32).transpose()?,
        activation,
        rounds: products == Products::Rounded,
    };
    let mut out = vec![0.0; rows * outputs];
    layer.apply(view(x).f32()?, &mut out);
    Ok(Tensor::from_vec(out, (rows, outputs), x.device())?) // [C, out]
}

/// `(1 + scale)·layer_norm(x) + shift` for rows `start..start + count` of x [N, C]; shift and scale \[C\].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn norm_modulate(x: &Tensor, start: usize, count: usize, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let x = x.narrow(0, start, count)?;
    if !is_fast(&x) {
        return tensors::norm_modulate(&x, shift, scale);
    }
    let mut out = vec![0.0; x.elem_count()];
    let (shift, scale) = (view(shift), view(scale));
    rows::norm_modulate(view(&x).f32()?, shift.f32()?, scale.f32()?, NORM_EPS as f32, &mut out);
    Ok(Tensor::from_vec(out, x.dims(), x.device())?) // [count, C]
}

/// `x[start..] += gate·y` in place, for y [C', C], x [N, C] and gate \[C\].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn add_gated(x: &Tensor, start: usize, gate: &Tensor, y: &Tensor) -> Result<()> {
    if !is_fast(x) {
        return tensors::add_gated(x, start, gate, y);
    }
    let (gate, y_view) = (view(gate), view(y));
    let (gate, y_values) = (gate.f32()?, y_view.f32()?);
    in_place(&x.narrow(0, start, y.dim(0)?)?, |x| rows::add_gated(x, gate, y_values))
}

/// Rows of x [C, H·D] become rows `start..` of `out` [H, N, D], in place; with a rotation each head is RMS-normed and
/// its pairs of channels are turned on the way.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn split_heads(x: &Tensor, rotation: Option<Rotation<'_>>, out: &Tensor, start: usize) -> Result<()> {
    let (heads, tokens, dim) = out.dims3()?;
    if !is_fast(x) {
        return tensors::split_heads(x, rotation, out, start);
    }
    let at = rows::HeadRows { heads, dim, tokens, start };
    let x = view(x);
    let x = x.f32()?;
    let Some(rotation) = rotation else {
        return in_place(out, |out| rows::split_heads(x, None, at, out));
    };
    let (weight, cos, sin) = (view(rotation.weight), view(rotation.cos), view(rotation.sin));
    let (weight, cos, sin) = (weight.f32()?, cos.f32()?, sin.f32()?);
    let rotation = rows::Rotation { weight, eps: NORM_EPS as f32, cos, sin };
    in_place(out, |out| rows::split_heads(x, Some(rotation), at, out))
}

/// How far the attention of this device is from the plain one made of tensors: ‖a - b‖ / ‖b‖ on a small slice of random
/// numbers, `heads` of `dim` channels in `dtype`.
///
/// # Errors
/// When the device fails.
pub fn attention_error(heads: usize, dim: usize, dtype: DType, device: &Device) -> Result<f64> {
    /// Neither is a multiple of a kernel's tile: its edges are part of what is compared.
    const SLICE: (usize, usize) = (100, 300);
    let (queries, keys) = SLICE;
    // Not random, but without any order that a kernel could profit from: the fractional parts of multiples.
    let numbers = |rows: usize, step: f32| -> Result<Tensor> {
        let values = (0..heads * rows * dim).map(|i| 4.0 * (i as f32 * step).fract() - 2.0).collect();
        Ok(Tensor::from_vec::<_, f32>(values, (heads, rows, dim), device)?.to_dtype(dtype)?) // [H, N, D]
    };
    let (q, k, v) = (numbers(queries, 0.618_034)?, numbers(keys, 0.414_214)?, numbers(keys, 0.732_051)?);
    let tiles = AttentionTiles { query_rows: 64, heads };
    let wide = |x: Tensor| x.to_dtype(DType::F32);
    let plain = wide(tensors::attention(&q, &k, &v, tiles)?)?;
    let found = wide(attention(&q, &k, &v, tiles)?)?;
    let squares = |x: &Tensor| -> Result<f64> { Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?)) };
    Ok((squares(&(found - &plain)?)? / squares(&plain)?).sqrt())
}

/// How attention is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionTiles {
    /// Queries of one piece.
    pub query_rows: usize,
    /// Heads of one piece, where scores are a tensor; the CPU's kernel takes one head at a time.
    pub heads: usize,
}

/// `softmax(q·kᵀ/√D)·v` for q [H, C, D], k and v [H, N, D], as [C, H·D]; scores never exist all at once.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, tiles: AttentionTiles) -> Result<Tensor> {
    let ((heads, queries, dim), (_, keys, _)) = (q.dims3()?, k.dims3()?);
    if (k.dims(), v.dims()) != (&[heads, keys, dim][..], &[heads, keys, dim][..]) {
        return Err(mismatch(format!("attention: q {:?}, k {:?}, v {:?}", q.dims(), k.dims(), v.dims())));
    }
    if let Some(out) = flash::attention(q, k, v)? {
        return Ok(out); // [C, H·D]
    }
    if !is_fast(q) {
        return tensors::attention(q, k, v, tiles);
    }
    let mut out = vec![0.0; q.elem_count()];
    let (k, v) = (view(k), view(v));
    let piece = Piece { k: k.f32()?, v: v.f32()? };
    let how = cpu::attention::Attention {
        shape: Shape { heads, dim, queries, keys },
        scale: std::f32::consts::LOG2_E / (dim as f32).sqrt(),
        bias: Bias::None,
        query_rows: tiles.query_rows,
    };
    cpu::attention::attention(view(q).f32()?, &[piece], &how, &mut out);
    Ok(Tensor::from_vec(out, (queries, heads * dim), q.device())?) // [C, H·D]
}
