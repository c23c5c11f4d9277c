//! What comes between products, each in one pass over the numbers, by kernels of our own on CUDA: norms with what scales and
//! shifts them, gated sums, biases with activations, heads that are normed and turned. Their text, `rows.ptx`, is part of the
//! program as attention's is ([`super::flash`]).
//!
//! They take bf16, f16 and f32, compute in f32 and round once, at the end. PyTorch computes each of its operations in f32 too, but
//! rounds after each: a norm before it is scaled, a gated stream before it is added. Each (kernel, number type) is held against the
//! operations of [`super::tensors`] in f32 before a model is loaded ([`crate::nn::settle_kernels`]); one that fails is not used.

mod given;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(test)]
mod tests;

use candle_core::DType;

use self::given::Given;
use super::{checked::Checked, refused::Refused};
use crate::{
    error::Result,
    nn::{Array, Rotation},
};

/// A kernel of `rows.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Layer norm, scaled and shifted.
    LayerNorm,
    /// Root mean square norm with its weight; gated and added where that is asked.
    RmsNorm,
    /// A gated sum in place.
    AddGated,
    /// A bias in place.
    AddBias,
    /// A bias, where there is one, and gelu in its tanh form, in place.
    AddBiasGelu,
    /// silu of a gate times what it lets through, in place of the gate.
    SiluGated,
    /// Heads.
    SplitHeads,
    /// Heads, normed and turned.
    RotateHeads,
}

/// What failed its check on this machine.
static REFUSED: Refused<(Kernel, DType)> = Refused::new();

impl Checked for Kernel {
    const ALL: &'static [Self] = &[
        Self::LayerNorm,
        Self::RmsNorm,
        Self::AddGated,
        Self::AddBias,
        Self::AddBiasGelu,
        Self::SiluGated,
        Self::SplitHeads,
        Self::RotateHeads,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LayerNorm => "layer_norm",
            Self::RmsNorm => "rms_norm",
            Self::AddGated => "add_gated",
            Self::AddBias => "add_bias",
            Self::AddBiasGelu => "add_bias_gelu",
            Self::SiluGated => "silu_gated",
            Self::SplitHeads => "split_heads",
            Self::RotateHeads => "rotate_heads",
        }
    }

    fn refused() -> &'static Refused<(Self, DType)> {
        &REFUSED
    }
}

impl Kernel {
    fn takes_array(self, x: &Array) -> bool {
        !x.is_cpu() && x.elem_count() > 0 && self.takes(x.place().kind(), x.dtype())
    }
}

/// Whether whoever reads what a layer gives for x adds its bias on the way ([`crate::nn::unbiased::Unbiased`]).
pub fn adds_biases(x: &Array) -> bool {
    Kernel::AddBias.takes_array(x)
}

/// `(1 + scale)·layer_norm(x) + shift` for x [R, C], scale and shift \[C\]; `None` where the kernel does not take them, as with
/// all functions here.
///
/// # Errors
/// When the device fails.
pub fn norm_modulate(x: &Array, shift: &Array, scale: &Array, eps: f64) -> Result<Option<Array>> {
    if !Kernel::LayerNorm.takes_array(x) {
        return Ok(None);
    }
    let (scale, shift) = (scale.to_dtype(x.dtype())?, shift.to_dtype(x.dtype())?);
    Given::of_rows(Kernel::LayerNorm, x, [Some(&scale), Some(&shift)], eps)?
        .map(|given| given.made(x.dims()))
        .transpose()
}

/// `x / rms(x)·weight` for x [R, C] and weight \[C\] f32.
///
/// # Errors
/// When the device fails.
pub fn rms_norm(x: &Array, weight: &Array, eps: f64) -> Result<Option<Array>> {
    if !Kernel::RmsNorm.takes_array(x) {
        return Ok(None);
    }
    Given::of_rows(Kernel::RmsNorm, x, [Some(weight), None], eps)?.map(|given| given.made(x.dims())).transpose()
}

/// `x += gate·y / rms(y)·weight` in place, for x and y [R, C], gate \[C\], and weight \[C\] f32; whether the kernel took them.
///
/// # Errors
/// When the device fails.
pub fn add_gated_norm(x: &Array, gate: &Array, y: &Array, weight: &Array, eps: f64) -> Result<bool> {
    if !Kernel::RmsNorm.takes_array(y) {
        return Ok(false);
    }
    let given = Given::of_rows(Kernel::RmsNorm, y, [Some(weight), Some(gate)], eps)?;
    given.map_or(Ok(false), |given| given.in_place(x))
}

/// `x += gate·(y + bias)` in place, for x and y [R, C], gate and bias \[C\]; whether the kernel took them.
///
/// # Errors
/// When the device fails.
pub fn add_gated(x: &Array, gate: &Array, y: &Array, bias: Option<&Array>) -> Result<bool> {
    if !Kernel::AddGated.takes_array(y) {
        return Ok(false);
    }
    Given::of_columns(Kernel::AddGated, Some(y), [Some(gate), bias], y)?.map_or(Ok(false), |given| given.in_place(x))
}

/// `x + bias` in place of x [R, C], for a bias \[C\], with gelu behind it where that is asked; whether the kernel took them.
///
/// # Errors
/// When the device fails.
pub fn add_bias(x: &Array, bias: Option<&Array>, is_gelu: bool) -> Result<bool> {
    let kernel = if is_gelu { Kernel::AddBiasGelu } else { Kernel::AddBias };
    if !kernel.takes_array(x) {
        return Ok(false);
    }
    Given::of_columns(kernel, None, [bias, None], x)?.map_or(Ok(false), |given| given.in_place(x))
}

/// `silu(gate)·x` in place of the gate, for gate and x [R, C]; whether the kernel took them.
///
/// # Errors
/// When the device fails.
pub fn silu_gated(gate: &Array, x: &Array) -> Result<bool> {
    if !Kernel::SiluGated.takes_array(gate) {
        return Ok(false);
    }
    Given::of_columns(Kernel::SiluGated, Some(x), [None, None], x)?.map_or(Ok(false), |given| given.in_place(gate))
}

/// Rows of x [R, H·D] + bias \[H·D\] become rows `start..` of `out` [H, N, D], normed and turned where that is asked; whether the
/// kernel took them.
///
/// # Errors
/// When the device fails.
pub fn split_heads(
    x: (&Array, Option<&Array>),
    rotation: Option<Rotation<'_>>,
    out: &Array,
    start: usize,
) -> Result<bool> {
    let (heads, tokens, _) = out.dims3()?;
    Given::of_heads(x, rotation, [heads, tokens, start])?.map_or(Ok(false), |given| given.in_place(out))
}

/// Heads [H, R, D] of x [R, H·D] + bias \[H·D\], normed and turned where that is asked.
///
/// # Errors
/// When the device fails.
pub fn heads_of(x: (&Array, Option<&Array>), rotation: Option<Rotation<'_>>, heads: usize) -> Result<Option<Array>> {
    let (rows, columns) = x.0.dims2()?;
    let given = Given::of_heads(x, rotation, [heads, rows, 0])?;
    given.map(|given| given.made(&[heads, rows, columns / heads.max(1)])).transpose()
}
