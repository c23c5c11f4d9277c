//! The linear layer on the CPU: panels of output channels, each packed once (and widened, where weights are bf16) into
//! the order the matrix product reads, then a single-threaded product with bias and activation behind it.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut, Strided, int8,
    pack::{SPAN, widen},
    pairs, product,
    simd::{gelu, multiversion},
    tiled::Tiled,
    use_unpacked_operands,
};
use crate::weights::{BlockType, Float8};

/// Numbers of one task's packed panel, 4.7 MB: 384 output channels of 3072 inputs, so that 3072 outputs make 8 tasks.
const PANEL: usize = 384 * 3072;
/// Output channels of one task at most, where inputs are few.
const MAX_WIDTH: usize = 384;
/// Rows of one product. Between 384 and 1152 the rate is the same within 3% (Zen 5); below, the panel is read too often.
const TILE_ROWS: usize = 768;

/// A weight [out, in] in the number type its file has; rows are `stride` apart.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// 32-bit numbers, used as they are.
    F32(&'a [f32]),
    /// 16-bit numbers, widened exactly.
    Bf16(&'a [bf16]),
    /// 16-bit numbers, widened exactly.
    F16(&'a [f16]),
    /// Floats of 8 bits, which are numbers when multiplied by a scale.
    F8 {
        /// As their file has them.
        codes: &'a [u8],
        /// Which floats.
        kind: Float8,
        /// What they are multiplied by, in f32: one number, or one of each output.
        scales: &'a [f32],
    },
    /// Quantised in blocks; rows and strides are counted in bytes.
    Blocks {
        /// As their file has them.
        bytes: &'a [u8],
        /// Which blocks.
        kind: BlockType,
        /// The first of the stored inputs that counts.
        first: usize,
        /// Whether x may be rounded to such blocks, where it may be rounded at all and this kind allows products of them.
        int8: bool,
    },
}

/// How exactly a weight's numbers are bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// More than bf16 holds: f32 or f16.
    Wide,
    /// bf16.
    Bf16,
    /// Floats of 8 bits with scales.
    Codes,
    /// Blocks.
    Blocks,
    /// Blocks of 8 bits that x may be rounded to.
    Int8,
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
    /// Numbers from one row of the weight to the next, at least `inputs`; of blocks the bytes.
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
pub(super) struct Tasks {
    /// Output channels of one task's panel.
    pub(super) width: usize,
    /// Panels of output channels.
    panels: usize,
    /// Rows of one task.
    rows: usize,
    /// Of all panels and groups of rows.
    pub(super) count: usize,
}

impl Tasks {
    /// Calls `work` with the output channels and rows of each, side by side.
    pub(super) fn each(&self, size: Size, work: impl Fn(Range<usize>, Range<usize>) + Sync) {
        (0..self.count).into_par_iter().with_max_len(1).for_each(|task| {
            let (panel, group) = (task % self.panels, task / self.panels);
            let rows = group * self.rows..size.rows.min((group + 1) * self.rows);
            work(panel * self.width..size.outputs.min((panel + 1) * self.width), rows);
        });
    }
}

impl Size {
    pub(super) fn tasks(&self) -> Tasks {
        let width = (PANEL / self.inputs.max(1) / REGISTER_ROWS * REGISTER_ROWS).clamp(REGISTER_ROWS, MAX_WIDTH);
        let panels = self.outputs.div_ceil(width).max(1);
        let groups = (2 * rayon::current_num_threads()).div_ceil(panels);
        let rows = self.rows.div_ceil(groups).next_multiple_of(64).max(64);
        Tasks { width, panels, rows, count: panels * self.rows.div_ceil(rows) }
    }

    /// Whether a product of rounded inputs and a bf16 weight is one of bf16 pairs.
    fn pairs(&self) -> bool {
        self.inputs.is_multiple_of(2) && self.stride.is_multiple_of(2) && pairs::pay()
    }

    /// Bytes of working room with a weight of this form: a packed panel of each task at work, of blocks what it decodes at a time, and x
    /// in pairs of bf16 where it may be rounded; or both in tiles.
    pub fn working_bytes(&self, form: Form, rounds: bool) -> u64 {
        if let Some(tiled) = Tiled::of(self, form, rounds) {
            return tiled.working_bytes(self);
        }
        let (tasks, in_pairs) = (self.tasks(), rounds && form != Form::Wide && self.pairs());
        let at_once = tasks.count.min(rayon::current_num_threads());
        if rounds && form == Form::Int8 {
            return int8::bytes(self, tasks.width.min(self.outputs), at_once);
        }
        let panel = tasks.width.min(self.outputs).next_multiple_of(REGISTER_ROWS) * self.inputs;
        let rounded = if in_pairs { self.rows * self.inputs } else { 0 };
        let width = if in_pairs { 2 } else { 4 };
        let decoded = if matches!(form, Form::Blocks | Form::Int8) { 4 * SPAN * REGISTER_ROWS } else { 0 };
        (at_once * (panel * width + decoded) + 2 * rounded) as u64
    }
}

impl Linear<'_> {
    /// Applies the layer to x [rows, in], writing out [rows, out].
    pub fn apply(&self, x: &[f32], out: &mut [f32]) {
        let Size { rows, inputs, outputs, stride } = self.size;
        assert_eq!(x.len(), rows * inputs, "x is [rows, in]");
        assert_eq!(out.len(), rows * outputs, "out is [rows, out]");
        assert!(self.weight.len() >= (outputs - 1) * stride + self.weight.row(inputs), "weight is [out, in]");
        let out = SharedMut::new(out);
        let (form, rounds) = (self.weight.form(inputs), self.rounds && !self.adds);
        if let Some(tiled) = Tiled::of(&self.size, form, rounds) {
            return tiled.apply(self, x, &out);
        }
        if let (Weight::Blocks { bytes, first, .. }, Form::Int8, true) = (self.weight, form, rounds) {
            return self.in_int8(x, (bytes, first), &out);
        }
        use_unpacked_operands();
        let rounded = self.takes_pairs().then(|| pairs::round(x));
        self.size.tasks().each(self.size, |columns, rows| match (&rounded, self.packed_pairs(&columns)) {
            (Some(x), Some(weight)) => self.paired_panel(columns, x, &weight, rows, &out),
            _ => self.panel(columns, x, rows, &out),
        });
    }

    /// Everything by x rounded to blocks of 8 bits, and a weight that has them.
    fn in_int8(&self, x: &[f32], (bytes, first): (&[u8], usize), out: &SharedMut<'_>) {
        let (x, depth) = (int8::round(x), self.size.inputs / int8::BLOCK);
        self.size.tasks().each(self.size, |columns, rows| {
            let packed = int8::pack(&self.size, bytes, first, &columns);
            self.tiles(columns, rows, out, &packed, depth, |rows, columns, lanes| {
                let x = &x[rows.start * depth..rows.end * depth];
                // SAFETY: each (row, panel) of out belongs to one task.
                unsafe { int8::product(x, lanes, out, (rows.start, columns), self.size.outputs) }; // [count, width]
            });
        });
    }

    /// Whether the product is one of bf16 pairs.
    fn takes_pairs(&self) -> bool {
        let is_narrow = match self.weight {
            Weight::Bf16(_) | Weight::F8 { .. } => true,
            Weight::Blocks { first, .. } => first.is_multiple_of(2),
            Weight::F32(_) | Weight::F16(_) => false,
        };
        self.rounds && !self.adds && is_narrow && self.size.pairs()
    }

    /// Some output channels of some rows.
    fn panel(&self, columns: Range<usize>, x: &[f32], rows: Range<usize>, out: &SharedMut<'_>) {
        let (size, depth) = (self.size, self.size.inputs);
        let packed = match self.weight {
            Weight::F32(weight) => size.pack(weight, &columns, |_, value| value),
            Weight::Bf16(weight) => size.pack(weight, &columns, |_, value| widen(value)),
            Weight::F16(weight) => size.pack(weight, &columns, |_, value| value.to_f32()),
            Weight::F8 { codes, kind, scales: [scale] } => {
                let numbers = kind.numbers().map(|number| number * scale);
                size.pack(codes, &columns, |_, code| numbers[usize::from(code)])
            }
            Weight::F8 { codes, kind, scales } => {
                let numbers = kind.numbers();
                size.pack(codes, &columns, |row, code| numbers[usize::from(code)] * scales[row])
            }
            Weight::Blocks { bytes, kind, first, .. } => size.pack_blocks((bytes, kind, first), &columns),
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
        let size = Size { inputs: self.size.inputs / 2, stride: self.size.stride / 2, ..self.size };
        Some(match self.weight {
            Weight::Bf16(weight) => {
                size.pack(weight.as_chunks::<2>().0, columns, |_, [low, high]| pairs::pair(low, high))
            }
            Weight::F8 { codes, kind, scales: [scale] } => {
                let numbers = kind.numbers().map(|number| bf16::from_f32(number * scale));
                let number = |code: u8| numbers[usize::from(code)];
                size.pack(codes.as_chunks::<2>().0, columns, |_, [low, high]| pairs::pair(number(low), number(high)))
            }
            Weight::F8 { codes, kind, scales } => {
                let numbers = kind.numbers();
                let number = |row: usize, code: u8| bf16::from_f32(numbers[usize::from(code)] * scales[row]);
                let pair = |row, [low, high]: [u8; 2]| pairs::pair(number(row, low), number(row, high));
                size.pack(codes.as_chunks::<2>().0, columns, pair)
            }
            Weight::Blocks { bytes, kind, first, .. } => self.size.pack_blocks_in_pairs((bytes, kind, first), columns),
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
            let pairs = &x[rows.start * depth..rows.end * depth];
            let x = pairs::Rounded { pairs, rows: rows.len(), row: depth, step: 1 };
            // SAFETY: `takes_pairs` asked the processor; each (row, panel) of out belongs to one task.
            unsafe { pairs::product(x, lanes, out, (rows.start, columns), (self.size.outputs, false)) }; // [count, width]
        });
    }

    /// Calls `product` for each tile of rows and each 64 columns, then finishes the rows while they are in cache.
    fn tiles<T>(
        &self,
        columns: Range<usize>,
        rows: Range<usize>,
        out: &SharedMut<'_>,
        packed: &[T],
        depth: usize,
        product: impl Fn(Range<usize>, Range<usize>, &[T]),
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
    pub(super) fn finish(&self, values: &mut [f32], column: usize) {
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
    /// With so many inputs.
    fn form(&self, inputs: usize) -> Form {
        match self {
            Self::F32(_) | Self::F16(_) => Form::Wide,
            Self::Bf16(_) => Form::Bf16,
            Self::F8 { .. } => Form::Codes,
            Self::Blocks { kind, first, int8: true, .. } if int8::takes(*kind, *first, inputs) => Form::Int8,
            Self::Blocks { .. } => Form::Blocks,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(weight) => weight.len(),
            Self::Bf16(weight) => weight.len(),
            Self::F16(weight) => weight.len(),
            Self::F8 { codes, .. } => codes.len(),
            Self::Blocks { bytes, .. } => bytes.len(),
        }
    }

    /// Numbers of a row with so many inputs; of blocks the bytes.
    fn row(&self, inputs: usize) -> usize {
        match self {
            Self::Blocks { kind, first, .. } => kind.bytes_of((first + inputs).next_multiple_of(kind.numbers())),
            _ => inputs,
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
