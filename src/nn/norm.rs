//! Norms, and what transformers do with them on the way: modulation, gates, heads.

use candle_core::DType;

use super::{
    Array, Parameters,
    kernels::{cpu::rows, fused, tensors},
    mismatch,
    unbiased::Unbiased,
    view::view,
};
use crate::error::Result;

/// eps of every norm in FLUX. Source: diffusers, FluxTransformerBlock and its attention.
pub const NORM_EPS: f64 = 1e-6;

/// What norms and rotates queries and keys.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Weight of the RMS norm over each head \[D\], f32.
    pub weight: &'a Array,
    /// Within the root of the norm.
    pub eps: f64,
    /// Cosines of these rows [C, D/2], f32.
    pub cos: &'a Array,
    /// Sines of these rows [C, D/2], f32.
    pub sin: &'a Array,
}

/// `(1 + scale)·layer_norm(x) + shift` for rows `start..start + count` of x [N, C]; shift and scale \[C\].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn norm_modulate(x: &Array, start: usize, count: usize, shift: &Array, scale: &Array) -> Result<Array> {
    let x = x.narrow(0, start, count)?;
    if !x.is_fast() {
        let made = fused::norm_modulate(&x, shift, scale, NORM_EPS)?;
        return made.map_or_else(|| tensors::norm_modulate(&x, shift, scale), Ok);
    }
    x.computed(x.dims(), |out| {
        let (x, shift, scale) = (view(x.real()?), view(shift.real()?), view(scale.real()?));
        rows::norm_modulate(x.f32()?, shift.f32()?, scale.f32()?, NORM_EPS as f32, out);
        Ok(())
    }) // [count, C]
}

/// The root mean square norm of x [C', C], times `weight` \[C\] f32 (Zhang and Sennrich 2019, arXiv 1910.07467).
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn rms_norm(x: &Array, weight: &Array, eps: f64) -> Result<Array> {
    fused::rms_norm(x, weight, eps)?.map_or_else(|| tensors::rms_norm(x, weight, eps), Ok) // [C', C]
}

/// `x[start..] += gate·rms_norm(y)` in place, for y [C', C], x [N, C] and gate \[C\]; weight \[C\] f32.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn add_gated_norm(x: &Array, start: usize, gate: &Array, y: &Array, weight: &Array, eps: f64) -> Result<()> {
    if fused::add_gated_norm(&x.narrow(0, start, y.dim(0))?, gate, y, weight, eps)? {
        return Ok(());
    }
    add_gated(x, start, gate, &rms_norm(y, weight, eps)?)
}

/// `x[start..] += gate·y` in place, for y [C', C], x [N, C] and gate \[C\].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn add_gated(x: &Array, start: usize, gate: &Array, y: impl Into<Unbiased>) -> Result<()> {
    let y = y.into();
    if !x.is_fast() {
        let (rows, bias) = y.parts();
        if fused::add_gated(&x.narrow(0, start, rows.dim(0))?, gate, rows, bias)? {
            return Ok(());
        }
        return tensors::add_gated(x, start, gate, &y.biased()?);
    }
    let (Array::Real(gate), Array::Real(y)) = (gate, y.biased()?) else { return Ok(()) };
    let rows = x.narrow(0, start, y.dim(0)?)?;
    let (gate, y) = (view(gate), view(&y));
    let (gate, y) = (gate.f32()?, y.f32()?);
    rows.change(|x| rows::add_gated(x, gate, y))
}

/// `silu(gate)·x` for gate and x [C', F], in place of the gate where a kernel of our own takes it (Shazeer 2020, arXiv
/// 2002.05202).
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn silu_gated(gate: Array, x: &Array) -> Result<Array> {
    if gate.dims() != x.dims() {
        return Err(mismatch(format!("a gate {:?} for {:?}", gate.dims(), x.dims())));
    }
    if !(gate.is_fast() && gate.is_contiguous() && x.is_contiguous()) {
        if fused::silu_gated(&gate, x)? {
            return Ok(gate);
        }
        let silu = gate.silu()?;
        drop(gate);
        return silu.mul(x);
    }
    if let Array::Real(x) = x {
        let (x, channels) = (view(x), gate.channels());
        let x = x.f32()?;
        gate.change(|gate| rows::silu_gated(gate, x, channels))?;
    }
    Ok(gate)
}

/// Rows of x [C, H·D] become rows `start..` of `out` [H, N, D], in place; with a rotation each head is RMS-normed and
/// its pairs of channels are turned on the way.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn split_heads(x: impl Into<Unbiased>, rotation: Option<Rotation<'_>>, out: &Array, start: usize) -> Result<()> {
    let ((heads, tokens, dim), x) = (out.dims3()?, x.into());
    if fused::split_heads(x.parts(), rotation, out, start)? {
        return Ok(());
    }
    let x = x.biased()?;
    if !x.is_fast() {
        return tensors::split_heads(&x, rotation, out, start);
    }
    let Array::Real(x) = x else { return Ok(()) };
    let at = rows::HeadRows { heads, dim, tokens, start };
    let x = view(&x);
    let x = x.f32()?;
    let Some(Rotation { weight, eps, cos, sin }) = rotation else {
        return out.change(|out| rows::split_heads(x, None, at, out));
    };
    let (weight, cos, sin) = (view(weight.real()?), view(cos.real()?), view(sin.real()?));
    let (weight, cos, sin) = (weight.f32()?, cos.f32()?, sin.f32()?);
    let rotation = rows::Rotation { weight, eps: eps as f32, cos, sin };
    out.change(|out| rows::split_heads(x, Some(rotation), at, out))
}

/// x [N, H·D] as heads [H, N, D], with a rotation as in [`split_heads`].
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn heads_of(x: impl Into<Unbiased>, rotation: Option<Rotation<'_>>, heads: usize) -> Result<Array> {
    let x = x.into();
    if let Some(out) = fused::heads_of(x.parts(), rotation, heads)? {
        return Ok(out);
    }
    let (rows, _) = x.parts();
    let (tokens, channels) = rows.dims2()?;
    let out = rows.place().zeros(&[heads, tokens, channels / heads.max(1)], rows.dtype())?;
    split_heads(x, rotation, &out, 0)?;
    Ok(out)
}

/// Root mean square norm without centring: `x / √(mean(x²) + eps) · weight`, in f32 (Zhang and Sennrich 2019,
/// arXiv 1910.07467).
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Array,
    eps: f64,
}

impl RmsNorm {
    /// `weight` \[C\] below `parameters`, held in f32.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when it is missing or has another shape.
    pub fn load(parameters: &Parameters, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: parameters.with_dtype(DType::F32).get("weight", &[channels])?, eps })
    }

    /// For x [N, C] f32.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        x.contiguous()?.rms_norm(&self.weight, self.eps as f32)
    }
}

/// Layer norm with weight and bias, in f32.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Array,
    bias: Array,
    eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias` \[C\] below `parameters`, held in f32.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when one is missing or has another shape.
    pub fn load(parameters: &Parameters, channels: usize, eps: f64) -> Result<Self> {
        let parameters = parameters.with_dtype(DType::F32);
        Ok(Self { weight: parameters.get("weight", &[channels])?, bias: parameters.get("bias", &[channels])?, eps })
    }

    /// For x [N, C] f32.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        x.contiguous()?.layer_norm(&self.weight, &self.bias, self.eps as f32)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn a_gate_is_silu_times_what_it_lets_through() {
        let row = |at: usize, step: f32| (0..at).map(|i| (i as f32 - 40.0) * step).collect::<Vec<_>>();
        let (gate, x) = (row(2 * 67, 0.1), row(2 * 67, -0.03));
        let tensor = |values: &[f32], dtype| {
            let tensor = Tensor::from_vec(values.to_vec(), (2, 67), &Device::Cpu).and_then(|x| x.to_dtype(dtype));
            Array::from(tensor.expect("a tensor"))
        };
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F16, 5e-3)] {
            let found = silu_gated(tensor(&gate, dtype), &tensor(&x, dtype)).expect("computes");
            let found = found.to_dtype(DType::F32).expect("widens");
            let found: Vec<f32> = found.real().expect("real").flatten_all().and_then(|x| x.to_vec1()).expect("numbers");
            for ((found, gate), x) in found.iter().zip(&gate).zip(&x) {
                let expected = gate / (1.0 + (-gate).exp()) * x;
                assert!(
                    (found - expected).abs() <= tolerance * expected.abs().max(1.0),
                    "{dtype:?}: {found} {expected}"
                );
            }
        }
        assert!(
            silu_gated(tensor(&gate, DType::F32), &tensor(&x, DType::F32).reshape(&[67, 2]).expect("a view")).is_err()
        );
    }
}
