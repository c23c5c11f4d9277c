//! The linear layer on the CPU: panels of output channels, each packed once (and widened, where weights are bf16) into
//! the order the matrix product reads, then a single-threaded product with bias and activation behind it.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut, Strided, pairs, product,
    simd::{gelu, multiversion},
    use_unpacked_operands,
};
use crate::weights::convert::F8_E4M3;

/// Numbers of one task's packed panel, 4.7 MB: 384 output channels of 3072 inputs, so that 3072 outputs make 8 tasks.
const PANEL: usize = 384 * 3072;
/// Output channels of one task at most, where inputs are few.
const MAX_WIDTH: usize = 384;
/// Rows of one product. Between 384 and 1152 the rate is the same within 3% (Zen 5); below, the panel is read too often.
const TILE_ROWS: usize = 768;
/// Numbers of one row that are packed together: a cache line of f32, or of pairs of bf16.
const PACK_DEPTH: usize = 16;

/// A weight [out, in] in the number type its file has; rows are `stride` apart.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// 32-bit numbers, used as they are.
    F32(&'a [f32]),
    /// 16-bit numbers, widened exactly.
    Bf16(&'a [bf16]),
    /// 16-bit numbers, widened exactly.
    F16(&'a [f16]),
    /// Floats of 8 bits, 4 of them exponent, which are numbers when multiplied by a scale.
    F8 {
        /// As their file has them.
        codes: &'a [u8],
        /// What they are multiplied by, in f32.
        scale: f32,
    },
}

/// What follows the product and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// gelu in its tanh form.
    Gelu,
}

/// The sizes of one linear layer's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows of x.
    pub rows: usize,
    /// in
    pub inputs: usize,
    /// out
    pub outputs: usize,
    /// Numbers from one row of the weight to the next; at least `inputs`.
    pub stride: usize,
}

/// One linear layer: `activation(x·wᵀ + bias)`, or with what is there before.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// [out, in]
    pub weight: Weight<'a>,
    /// How large everything is.
    pub size: Size,
    /// \[out\], where there is one.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub activation: Activation,
    /// Whether x may be rounded to bf16 where the weight is bf16 and the processor multiplies such pairs at twice the rate.
    pub rounds: bool,
    /// Whether the product is added to what is there; then nothing is rounded.
    pub adds: bool,
}

/// How a layer is cut into tasks.
struct Tasks {
    /// Output channels of one task's panel.
    width: usize,
    /// Panels of output channels.
    panels: usize,
    /// Rows of one task.
    rows: usize,
    /// Of all panels and groups of rows.
    count: usize,
}

impl Size {
    fn tasks(&self) -> Tasks {
        let width = (PANEL / self.inputs.max(1) / REGISTER_ROWS * REGISTER_ROWS).clamp(REGISTER_ROWS, MAX_WIDTH);
        let panels = self.outputs.div_ceil(width).max(1);
        let groups = (2 * rayon::current_num_threads()).div_ceil(panels);
        let rows = self.rows.div_ceil(groups).next_multiple_of(64).max(64);
        Tasks { width, panels, rows, count: panels * self.rows.div_ceil(rows) }
    }

    /// Whether a product of rounded inputs and a bf16 weight is one of bf16 pairs.
    fn pairs(&self) -> bool {
        self.inputs.is_multiple_of(2) && self.stride.is_multiple_of(2) && pairs::available()
    }

    /// Bytes of working room: a packed panel of each task at work, and x in pairs of bf16 where `rounds` says that it may be
    /// rounded.
    pub fn working_bytes(&self, rounds: bool) -> u64 {
        let (tasks, in_pairs) = (self.tasks(), rounds && self.pairs());
        let at_once = tasks.count.min(rayon::current_num_threads());
        let panel = tasks.width.min(self.outputs).next_multiple_of(REGISTER_ROWS) * self.inputs;
        let rounded = if in_pairs { self.rows * self.inputs } else { 0 };
        let width = if in_pairs { 2 } else { 4 };
        (at_once * panel * width + 2 * rounded) as u64
    }
}

impl Linear<'_> {
    /// Applies the layer to x [rows, in], writing out [rows, out].
    pub fn apply(&self, x: &[f32], out: &mut [f32]) {
        let Size { rows, inputs, outputs, stride } = self.size;
        assert_eq!(x.len(), rows * inputs, "x is [rows, in]");
        assert_eq!(out.len(), rows * outputs, "out is [rows, out]");
        assert!(self.weight.len() >= (outputs - 1) * stride + inputs, "weight is [out, in]");
        use_unpacked_operands();
        let Tasks { width, panels, rows: rows_per_task, count } = self.size.tasks();
        let rounded = self.takes_pairs().then(|| pairs::round(x));
        let out = SharedMut::new(out);
        (0..count).into_par_iter().with_max_len(1).for_each(|task| {
            let (panel, group) = (task % panels, task / panels);
            let rows = group * rows_per_task..rows.min((group + 1) * rows_per_task);
            let columns = panel * width..outputs.min((panel + 1) * width);
            match (&rounded, self.packed_pairs(&columns)) {
                (Some(x), Some(weight)) => self.paired_panel(columns, x, &weight, rows, &out),
                _ => self.panel(columns, x, rows, &out),
            }
        });
    }

    /// Whether the product is one of bf16 pairs.
    fn takes_pairs(&self) -> bool {
        self.rounds && !self.adds && matches!(self.weight, Weight::Bf16(_) | Weight::F8 { .. }) && self.size.pairs()
    }

    /// Some output channels of some rows.
    fn panel(&self, columns: Range<usize>, x: &[f32], rows: Range<usize>, out: &SharedMut<'_>) {
        let (first, width, depth) = (columns.start * self.size.stride, columns.len(), self.size.inputs);
        let packed = match self.weight {
            Weight::F32(weight) => pack(&weight[first..], self.size.stride, depth, width, |value| value),
            Weight::Bf16(weight) => pack(&weight[first..], self.size.stride, depth, width, widen),
            Weight::F16(weight) => pack(&weight[first..], self.size.stride, depth, width, f16::to_f32),
            Weight::F8 { codes, scale } => {
                let numbers = numbers_of_codes(scale);
                pack(&codes[first..], self.size.stride, depth, width, |code| numbers[usize::from(code)])
            }
        };
        self.tiles(columns, rows, out, &packed, depth, |rows, columns, lanes| {
            let (count, width) = (rows.len(), columns.len());
            let corner = out.corner(rows.start * self.size.outputs + columns.start, count, width, self.size.outputs);
            let x = Strided { start: x[rows.start * depth..rows.end * depth].as_ptr(), rows: depth, columns: 1 };
            let weight = Strided { start: lanes.as_ptr().cast::<f32>(), rows: REGISTER_ROWS, columns: 1 };
            let out = Strided { start: corner, rows: self.size.outputs, columns: 1 };
            // SAFETY: x and weight are as long as this asks; each (row, panel) of out belongs to one task.
            unsafe { product((count, width, depth), out, self.adds, x, weight) }; // [count, width]
        });
    }

    /// Some output channels in pairs of bf16, where the product is one of such; codes of 8 bits are rounded to them.
    fn packed_pairs(&self, columns: &Range<usize>) -> Option<Vec<pairs::PairLane>> {
        if !self.takes_pairs() {
            return None;
        }
        let (first, width) = (columns.start * self.size.stride, columns.len());
        let (stride, depth) = (self.size.stride / 2, self.size.inputs / 2);
        Some(match self.weight {
            Weight::Bf16(weight) => {
                pack(weight[first..].as_chunks::<2>().0, stride, depth, width, |[low, high]| pairs::pair(low, high))
            }
            Weight::F8 { codes, scale } => {
                let numbers = numbers_of_codes(scale).map(bf16::from_f32);
                let number = |code: u8| numbers[usize::from(code)];
                let pair = |[low, high]: [u8; 2]| pairs::pair(number(low), number(high));
                pack(codes[first..].as_chunks::<2>().0, stride, depth, width, pair)
            }
            Weight::F32(_) | Weight::F16(_) => return None,
        })
    }

    /// The same for x [rows, in / 2] and a panel in pairs of bf16.
    fn paired_panel(
        &self,
        columns: Range<usize>,
        x: &[u32],
        packed: &[pairs::PairLane],
        rows: Range<usize>,
        out: &SharedMut<'_>,
    ) {
        let depth = self.size.inputs / 2;
        self.tiles(columns, rows, out, packed, depth, |rows, columns, lanes| {
            let x = &x[rows.start * depth..rows.end * depth];
            // SAFETY: `takes_pairs` asked the processor; each (row, panel) of out belongs to one task.
            unsafe { pairs::product(x, lanes, out, (rows.start, columns), self.size.outputs) }; // [count, width]
        });
    }

    /// Calls `product` for each tile of rows and each 64 columns, then finishes the rows while they are in cache.
    fn tiles<T>(
        &self,
        columns: Range<usize>,
        rows: Range<usize>,
        out: &SharedMut<'_>,
        packed: &[[T; REGISTER_ROWS]],
        depth: usize,
        product: impl Fn(Range<usize>, Range<usize>, &[[T; REGISTER_ROWS]]),
    ) {
        for start in rows.clone().step_by(TILE_ROWS) {
            let tile = start..rows.end.min(start + TILE_ROWS);
            for (i, lanes) in packed.chunks(depth).enumerate() {
                let first = columns.start + i * REGISTER_ROWS;
                product(tile.clone(), first..columns.end.min(first + REGISTER_ROWS), lanes);
            }
            for row in tile {
                // SAFETY: each (row, panel) belongs to one task, and the product is over.
                let values = unsafe { out.slice(row * self.size.outputs + columns.start, columns.len()) };
                self.finish(values, columns.start);
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
            Self::F16(weight) => weight.len(),
            Self::F8 { codes, .. } => codes.len(),
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

/// The number of each code of 8 bits.
fn numbers_of_codes(scale: f32) -> [f32; 256] {
    F8_E4M3.map(|number| number * scale)
}

/// The same number with 16 more bits, all zero.
fn widen(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// The first `width` rows of a matrix, `depth` long and `stride` apart, as [width / 64, depth, 64]; missing rows are zero.
fn pack<T: Copy, U: Copy + Default>(
    matrix: &[T],
    stride: usize,
    depth: usize,
    width: usize,
    convert: impl Fn(T) -> U,
) -> Vec<[U; REGISTER_ROWS]> {
    let mut packed = vec![[U::default(); REGISTER_ROWS]; width.div_ceil(REGISTER_ROWS) * depth];
    for (lanes, target) in packed.chunks_mut(depth).enumerate() {
        let first = lanes * REGISTER_ROWS;
        for (block, target) in target.chunks_mut(PACK_DEPTH).enumerate() {
            for lane in 0..REGISTER_ROWS.min(width - first) {
                let row = &matrix[(first + lane) * stride + block * PACK_DEPTH..][..target.len()];
                for (target, value) in target.iter_mut().zip(row) {
                    target[lane] = convert(*value);
                }
            }
        }
    }
    packed
}
