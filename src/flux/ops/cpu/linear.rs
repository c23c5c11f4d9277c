//! The linear layer on the CPU: panels of output channels, each a single-threaded product with its bias and
//! activation applied while the tile is still in cache. Half-width weights are widened one panel at a time.

use half::bf16;
use rayon::prelude::*;

use super::{
    SharedMut, Strided, product,
    simd::{gelu, multiversion},
};

/// Output channels of one panel: the widened panel of 3072 inputs takes 4.7 MB, and 3072 outputs make 8 tasks.
const PANEL: usize = 384;
/// Rows whose outputs get their bias and activation at once: 512 x 384 outputs take 0.8 MB, within the cache.
const TILE_ROWS: usize = 1152;

/// A weight [out, in] in the number type its file has; rows are `stride` apart.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// 32-bit numbers, used as they are.
    F32(&'a [f32]),
    /// 16-bit numbers, widened exactly.
    Bf16(&'a [bf16]),
}

/// What follows the product and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// gelu in its tanh form.
    Gelu,
}

/// One linear layer: `activation(x·wᵀ + bias)`.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// [out, in]
    pub weight: Weight<'a>,
    /// Numbers from one row of the weight to the next; at least `inputs`.
    pub stride: usize,
    /// in
    pub inputs: usize,
    /// out
    pub outputs: usize,
    /// `[out]`, where there is one.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub activation: Activation,
}

impl Linear<'_> {
    /// Applies the layer to x [rows, in], writing out [rows, out].
    pub fn apply(&self, x: &[f32], out: &mut [f32]) {
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs, "x is [rows, in]");
        assert_eq!(out.len(), rows * self.outputs, "out is [rows, out]");
        assert!(self.weight.len() >= (self.outputs - 1) * self.stride + self.inputs, "weight is [out, in]");
        let panels = self.outputs.div_ceil(PANEL);
        let groups = (2 * rayon::current_num_threads()).div_ceil(panels);
        let rows_per_task = rows.div_ceil(groups).next_multiple_of(64);
        let out = SharedMut::new(out);
        (0..panels * rows.div_ceil(rows_per_task)).into_par_iter().with_max_len(1).for_each(|task| {
            let (panel, group) = (task % panels, task / panels);
            let first = group * rows_per_task;
            let count = rows_per_task.min(rows - first);
            self.panel(panel * PANEL, &x[first * self.inputs..][..count * self.inputs], first, &out);
        });
    }

    /// Output channels `column..column + PANEL` of the rows in `x`, the first of which is row `first` of the whole.
    fn panel(&self, column: usize, x: &[f32], first: usize, out: &SharedMut<'_>) {
        let width = PANEL.min(self.outputs - column);
        let mut widened = Vec::new();
        let (weight, stride) = match self.weight {
            Weight::F32(weight) => (&weight[column * self.stride..], self.stride),
            Weight::Bf16(weight) => {
                widened.resize(width * self.inputs, 0.0);
                for (row, target) in widened.chunks_exact_mut(self.inputs).enumerate() {
                    widen(&weight[(column + row) * self.stride..][..self.inputs], target);
                }
                (widened.as_slice(), self.inputs)
            }
        };
        for (tile, x) in x.chunks(TILE_ROWS * self.inputs).enumerate() {
            let (row, count) = (first + tile * TILE_ROWS, x.len() / self.inputs);
            // SAFETY: each (row, panel) belongs to one task; all `count` rows of `width` lie within out [rows, out].
            unsafe {
                let corner = out.corner(row * self.outputs + column, count, width, self.outputs);
                let out = Strided { start: corner, rows: self.outputs, columns: 1 };
                let x = Strided { start: x.as_ptr(), rows: self.inputs, columns: 1 };
                let weight = Strided { start: weight.as_ptr(), rows: 1, columns: stride };
                product((count, width, self.inputs), out, false, x, weight); // [count, width]
            }
            for row in row..row + count {
                // SAFETY: as above, and the product is over.
                let values = unsafe { out.slice(row * self.outputs + column, width) };
                self.finish(values, column);
            }
        }
    }

    /// Bias and activation of one row's outputs from `column` on.
    fn finish(&self, values: &mut [f32], column: usize) {
        if let Some(bias) = self.bias {
            for (value, bias) in values.iter_mut().zip(&bias[column..]) {
                *value += bias;
            }
        }
        if self.activation == Activation::Gelu {
            gelu_in_place(values);
        }
    }
}

impl Weight<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(weight) => weight.len(),
            Self::Bf16(weight) => weight.len(),
        }
    }
}

multiversion! {
    /// gelu of each number.
    pub fn gelu_in_place<FMA>(values: &mut [f32]) {
        for value in values {
            *value = gelu::<FMA>(*value);
        }
    }
}

multiversion! {
    /// The same numbers with 16 more bits, all zero.
    pub fn widen<FMA>(narrow: &[bf16], wide: &mut [f32]) {
        for (wide, narrow) in wide.iter_mut().zip(narrow) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
    }
}
