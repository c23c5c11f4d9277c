//! Matrix products on slices, and the 1 x 1 projections made of them.

use rayon::prelude::*;

use super::{Rows, elementwise};
use crate::{
    nn::bands::Before,
    nn::kernels::cpu::{Strided, product},
};

/// A matrix inside a slice: the distance from row to row, the columns lying side by side.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// From the first element on.
    pub data: &'a [f32],
    /// Elements from one row to the next; rows may overlap.
    pub stride: usize,
}

/// out [m, n] (+)= a [m, k] b [k, n], on this thread; `out` has rows of `out_stride`.
pub(crate) fn multiply([m, k, n]: [usize; 3], a: View<'_>, b: View<'_>, out: &mut [f32], out_stride: usize, add: bool) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!((m - 1) * a.stride + k <= a.data.len(), "a lies inside its slice");
    assert!((k - 1) * b.stride + n <= b.data.len(), "b lies inside its slice");
    assert!(n <= out_stride && (m - 1) * out_stride + n <= out.len(), "out lies inside its slice, rows apart");
    let strided = |view: View<'_>| Strided { start: view.data.as_ptr(), rows: view.stride, columns: 1 };
    let out = Strided { start: out.as_mut_ptr(), rows: out_stride, columns: 1 };
    // SAFETY: the assertions above keep every element inside its slice, and `out` is borrowed mutably.
    unsafe { product((m, n, k), out, add, strided(a), strided(b)) };
}

/// The columns of a [rows, cols] matrix as rows: `out` is [cols, rows].
fn transpose(matrix: &[f32], cols: usize, out: &mut [f32]) {
    /// Rows and columns moved together, so that neither side leaves the cache.
    const BLOCK: usize = 16;
    let rows = matrix.len() / cols;
    out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, out)| {
        for first in (0..rows).step_by(BLOCK) {
            for (c, out) in out.chunks_exact_mut(rows).enumerate() {
                for r in first..rows.min(first + BLOCK) {
                    out[r] = matrix[r * cols + block * BLOCK + c];
                }
            }
        }
    });
}

/// A projection's weights.
pub(crate) struct Matrix {
    inputs: usize,
    weight: Vec<f32>, // [I, O]
    bias: Vec<f32>,   // [O]
}

/// Pixels of one task: enough for the weights' packing to vanish beside the product.
pub(crate) const PIXELS: usize = 512;

impl Matrix {
    /// From weights [O, I] and bias (O numbers).
    pub fn new(inputs: usize, weight: &[f32], bias: Vec<f32>) -> Self {
        let mut transposed = vec![0.0; weight.len()];
        transpose(weight, inputs, &mut transposed);
        Self { inputs, weight: transposed, bias }
    }

    /// before(x) W^T + bias (+ residual), for every pixel.
    pub fn project(&self, rows: &Rows, before: Before<'_>, residual: Option<&Rows>) -> Rows {
        let (inputs, outputs) = (self.inputs, self.bias.len());
        let mut output = Rows::blank(rows.height, rows.width, outputs);
        let tasks = output.data.par_chunks_mut(PIXELS * outputs).zip(rows.data.par_chunks(PIXELS * inputs));
        tasks.enumerate().for_each(|(task, (out, input))| {
            let add = residual.map(|r| &r.data[task * PIXELS * outputs..][..out.len()]);
            for (p, pixel) in out.chunks_exact_mut(outputs).enumerate() {
                pixel.copy_from_slice(&self.bias);
                if let Some(add) = add {
                    pixel.iter_mut().zip(&add[p * outputs..]).for_each(|(o, a)| *o += a);
                }
            }
            let mut prepared = Vec::new();
            let input = match before {
                Before::Nothing => input,
                _ => {
                    prepared.resize(input.len(), 0.0);
                    elementwise::apply(before, input, &mut prepared);
                    &prepared
                }
            };
            let a = View { data: input, stride: inputs };
            let b = View { data: &self.weight, stride: outputs };
            multiply([out.len() / outputs, inputs, outputs], a, b, out, outputs, true);
        });
        output
    }
}
