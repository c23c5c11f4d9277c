//! What happens to one token at a time: norms, modulation, rotation, gated addition. Every function runs over rows in parallel.

use rayon::prelude::*;

use super::{
    SharedMut,
    simd::{multiversion, silu},
};

/// Rows one task takes at least: below that, starting a task costs more than its work.
const MIN_ROWS: usize = 8;
/// Independent partial sums: one vector of 512 bits, twice, so that additions need not wait for each other.
const LANES: usize = 32;

/// `(1 + scale)·layer_norm(x) + shift` of each row of x [rows, C]; eps stands within the root.
pub fn norm_modulate(x: &[f32], shift: &[f32], scale: &[f32], eps: f32, out: &mut [f32]) {
    let channels = shift.len();
    assert_eq!((scale.len(), x.len() % channels, x.len()), (channels, 0, out.len()));
    out.par_chunks_mut(channels)
        .zip(x.par_chunks(channels))
        .with_min_len(MIN_ROWS)
        .for_each(|(out, x)| norm_modulate_row(x, shift, scale, eps, out));
}

/// `x += gate·y` of each row of x and y [rows, C].
pub fn add_gated(x: &mut [f32], gate: &[f32], y: &[f32]) {
    let channels = gate.len();
    assert_eq!((x.len() % channels, x.len()), (0, y.len()));
    x.par_chunks_mut(channels)
        .zip(y.par_chunks(channels))
        .with_min_len(MIN_ROWS)
        .for_each(|(x, y)| add_gated_row(x, gate, y));
}

/// `gate = silu(gate)·x` of each row of gate and x [rows, C].
pub fn silu_gated(gate: &mut [f32], x: &[f32], channels: usize) {
    let channels = channels.max(1);
    assert_eq!((gate.len() % channels, gate.len()), (0, x.len()));
    gate.par_chunks_mut(channels)
        .zip(x.par_chunks(channels))
        .with_min_len(MIN_ROWS)
        .for_each(|(gate, x)| silu_gated_row(gate, x));
}

/// Where the rows of heads go: rows `start..` of a tensor [H, `tokens`, D].
#[derive(Debug, Clone, Copy)]
pub struct HeadRows {
    /// H
    pub heads: usize,
    /// D
    pub dim: usize,
    /// Rows of each head.
    pub tokens: usize,
    /// The first row to write.
    pub start: usize,
}

/// The norm's weight \[D\] and the rotation [rows, D/2] of queries and keys.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// \[D\]
    pub weight: &'a [f32],
    /// Within the root of the norm.
    pub eps: f32,
    /// [rows, D/2]
    pub cos: &'a [f32],
    /// [rows, D/2]
    pub sin: &'a [f32],
}

/// Rows of x [rows, H·D] become rows of `out` [H, tokens, D]; with a rotation, each head is normed and turned on the way.
pub fn split_heads(x: &[f32], rotation: Option<Rotation<'_>>, at: HeadRows, out: &mut [f32]) {
    let HeadRows { heads, dim, tokens, start } = at;
    let rows = x.len() / (heads * dim);
    assert_eq!((x.len(), out.len()), (rows * heads * dim, heads * tokens * dim));
    assert!(start + rows <= tokens, "rows {start} + {rows} of {tokens}");
    if let Some(Rotation { weight, cos, sin, .. }) = rotation {
        assert_eq!((weight.len(), cos.len(), sin.len()), (dim, rows * dim / 2, rows * dim / 2));
    }
    let out = SharedMut::new(out);
    x.par_chunks(heads * dim).enumerate().with_min_len(MIN_ROWS).for_each(|(row, x)| {
        for (head, x) in x.chunks_exact(dim).enumerate() {
            // SAFETY: each (head, row) is written once.
            let target = unsafe { out.slice((head * tokens + start + row) * dim, dim) };
            match rotation {
                None => target.copy_from_slice(x),
                Some(Rotation { weight, eps, cos, sin }) => {
                    let half = row * dim / 2..(row + 1) * dim / 2;
                    rms_norm_rotate(x, weight, eps, &cos[half.clone()], &sin[half], target);
                }
            }
        }
    });
}

/// The sum of `f` over a row, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for chunk in chunks {
        for (p, v) in partial.iter_mut().zip(chunk) {
            *p += f(*v);
        }
    }
    partial.iter().sum::<f32>() + rest
}

multiversion! {
    /// [`norm_modulate`] of one row.
    pub fn norm_modulate_row<FMA>(x: &[f32], shift: &[f32], scale: &[f32], eps: f32, out: &mut [f32]) {
        let mean = sum_of(x, |v| v) / x.len() as f32;
        let variance = sum_of(x, |v| (v - mean) * (v - mean)) / x.len() as f32;
        let inverse = 1.0 / (variance + eps).sqrt();
        for (((out, x), shift), scale) in out.iter_mut().zip(x).zip(shift).zip(scale) {
            *out = (x - mean) * inverse * (1.0 + scale) + shift;
        }
    }
}

multiversion! {
    /// [`add_gated`] of one row.
    pub fn add_gated_row<FMA>(x: &mut [f32], gate: &[f32], y: &[f32]) {
        for ((x, gate), y) in x.iter_mut().zip(gate).zip(y) {
            *x += gate * y;
        }
    }
}

multiversion! {
    /// [`silu_gated`] of one row.
    pub fn silu_gated_row<FMA>(gate: &mut [f32], x: &[f32]) {
        for (gate, x) in gate.iter_mut().zip(x) {
            *gate = silu::<FMA>(*gate) * x;
        }
    }
}

multiversion! {
    /// One head of one token: RMS norm with its weight, then each pair `(x[2i], x[2i+1])` turned by its angle.
    pub fn rms_norm_rotate<FMA>(x: &[f32], weight: &[f32], eps: f32, cos: &[f32], sin: &[f32], out: &mut [f32]) {
        let inverse = 1.0 / (sum_of(x, |v| v * v) / x.len() as f32 + eps).sqrt();
        let (x, _) = x.as_chunks::<2>();
        let (weight, _) = weight.as_chunks::<2>();
        let (out, _) = out.as_chunks_mut::<2>();
        for ((((out, x), weight), cos), sin) in out.iter_mut().zip(x).zip(weight).zip(cos).zip(sin) {
            let (a, b) = (x[0] * inverse * weight[0], x[1] * inverse * weight[1]);
            *out = [a * cos - b * sin, a * sin + b * cos];
        }
    }
}
