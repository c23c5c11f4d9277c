//! The linear layer on the CPU: panels of output channels, each packed once (and widened, where weights are bf16) into
//! the order the matrix product reads, then a single-threaded product with bias and activation behind it.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut, Strided, product,
    simd::{gelu, multiversion},
    use_unpacked_operands,
};

/// Numbers of one task's packed panel, 4.7 MB: 384 output channels of 3072 inputs, so that 3072 outputs make 8 tasks.
const PANEL: usize = 384 * 3072;
/// Output channels of one task at most, where inputs are few.
const MAX_WIDTH: usize = 384;
/// Rows of one product. Between 384 and 1152 the rate is the same within 3% (Zen 5); below, the panel is read too often.
const TILE_ROWS: usize = 768;
/// Inputs that are packed together: one cache line of a row of f32.
const PACK_INPUTS: usize = 16;

/// One input of [`REGISTER_ROWS`] output channels.
type Lane = [f32; REGISTER_ROWS];

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
    /// [out], where there is one.
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
        use_unpacked_operands();
        let width = (PANEL / self.inputs / REGISTER_ROWS * REGISTER_ROWS).clamp(REGISTER_ROWS, MAX_WIDTH);
        let panels = self.outputs.div_ceil(width);
        let groups = (2 * rayon::current_num_threads()).div_ceil(panels);
        let rows_per_task = rows.div_ceil(groups).next_multiple_of(64);
        let out = SharedMut::new(out);
        (0..panels * rows.div_ceil(rows_per_task)).into_par_iter().with_max_len(1).for_each(|task| {
            let (panel, group) = (task % panels, task / panels);
            let first = group * rows_per_task;
            let count = rows_per_task.min(rows - first);
            let x = &x[first * self.inputs..][..count * self.inputs];
            self.panel(panel * width..self.outputs.min((panel + 1) * width), x, first, &out);
        });
    }

    /// Some output channels for the rows in `x`, the first of which is row `first` of the whole.
    fn panel(&self, columns: Range<usize>, x: &[f32], first: usize, out: &SharedMut<'_>) {
        let (column, width) = (columns.start, columns.len());
        let at = column * self.stride;
        let packed = match self.weight {
            Weight::F32(weight) => self.pack(&weight[at..], width, |value| value),
            Weight::Bf16(weight) => self.pack(&weight[at..], width, widen),
        };
        for (tile, x) in x.chunks(TILE_ROWS * self.inputs).enumerate() {
            let (row, count) = (first + tile * TILE_ROWS, x.len() / self.inputs);
            let x = Strided { start: x.as_ptr(), rows: self.inputs, columns: 1 };
            for (lanes, weight) in packed.chunks(self.inputs).enumerate() {
                let first = lanes * REGISTER_ROWS;
                let width = REGISTER_ROWS.min(width - first);
                let weight = Strided { start: weight.as_ptr().cast::<f32>(), rows: REGISTER_ROWS, columns: 1 };
                let corner = out.corner(row * self.outputs + column + first, count, width, self.outputs);
                let out = Strided { start: corner, rows: self.outputs, columns: 1 };
                // SAFETY: x and weight are as long as this asks; each (row, panel) of out belongs to one task.
                unsafe { product((count, width, self.inputs), out, false, x, weight) }; // [count, width]
            }
            for row in row..row + count {
                // SAFETY: as above, and the product is over.
                let values = unsafe { out.slice(row * self.outputs + column, width) };
                self.finish(values, column);
            }
        }
    }

    /// The first `width` rows of a weight [.., in] as [width / 64, in, 64], missing rows zero.
    fn pack<T: Copy>(&self, weight: &[T], width: usize, widen: impl Fn(T) -> f32) -> Vec<Lane> {
        let mut packed = vec![[0.0; REGISTER_ROWS]; width.div_ceil(REGISTER_ROWS) * self.inputs];
        for (lanes, target) in packed.chunks_mut(self.inputs).enumerate() {
            let first = lanes * REGISTER_ROWS;
            for (block, target) in target.chunks_mut(PACK_INPUTS).enumerate() {
                for lane in 0..REGISTER_ROWS.min(width - first) {
                    let row = &weight[(first + lane) * self.stride + block * PACK_INPUTS..][..target.len()];
                    for (target, value) in target.iter_mut().zip(row) {
                        target[lane] = widen(*value);
                    }
                }
            }
        }
        packed
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

/// The same number with 16 more bits, all zero.
fn widen(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}
