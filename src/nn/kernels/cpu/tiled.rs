//! The linear layer in the tiles of a matrix unit.

use std::ops::Range;

use super::{
    SharedMut,
    linear::{Form, Linear, Size, Weight},
    pack::SPAN,
    tiles::{self, DEPTH, MatrixUnit, Operand, SIDE, Target, Task, Terms, Unit, bytes, product},
};

/// Inputs that are multiplied before others: x in tiles is no larger than this many of each row.
const SLICE: usize = 3072;
/// Rows of one product: with their tiles, in two halves, and the sums they stay in the second cache.
const ROWS: usize = 512;

/// How a layer is computed in tiles.
#[derive(Debug, Clone, Copy)]
pub struct Tiled {
    unit: Unit,
    terms: Terms,
}

impl Tiled {
    /// How one of this size is, where a unit takes it; `rounds` says that bf16's products will do.
    pub fn of(size: &Size, form: Form, rounds: bool) -> Option<Self> {
        // What does not fill a tile is not worth one.
        if size.rows < SIDE || size.inputs < DEPTH {
            return None;
        }
        let terms = match form {
            Form::Int8 if rounds => return None,
            Form::Bf16 | Form::Codes | Form::Blocks if rounds => Terms::One,
            Form::Bf16 => Terms::Two,
            Form::Wide | Form::Codes | Form::Blocks | Form::Int8 => Terms::Three,
        };
        tiles::unit().map(|unit| Self { unit, terms })
    }

    /// Bytes of x in tiles, and of a panel of each task at work.
    pub fn working_bytes(&self, size: &Size) -> u64 {
        let (tasks, slice) = (size.tasks(), SLICE.min(size.inputs));
        let at_once = tasks.count.min(rayon::current_num_threads());
        let panel = Operand::tiles(tasks.width.min(size.outputs), slice, self.terms.right());
        bytes(Operand::tiles(size.rows, slice, self.terms.left()) + at_once * panel)
    }

    /// Applies the layer to x [rows, in], writing out [rows, out].
    pub fn apply(&self, layer: &Linear<'_>, x: &[f32], out: &SharedMut<'_>) {
        let size = layer.size;
        for first in (0..size.inputs).step_by(SLICE) {
            let inputs = first..size.inputs.min(first + SLICE);
            let x = Operand::left(x, (size.rows, size.inputs), first, inputs.len(), self.terms);
            size.tasks().each(size, |columns, rows| {
                self.unit.run(Panel { layer, terms: self.terms, x: &x, inputs: inputs.clone(), columns, rows, out });
            });
        }
    }
}

/// Some output channels of some rows, by some of the inputs.
struct Panel<'a> {
    layer: &'a Linear<'a>,
    terms: Terms,
    x: &'a Operand,
    inputs: Range<usize>,
    columns: Range<usize>,
    rows: Range<usize>,
    out: &'a SharedMut<'a>,
}

impl Task for Panel<'_> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        let Size { inputs, outputs, .. } = self.layer.size;
        let (weight, width) = (self.weight(), self.columns.len());
        let adds = self.layer.adds || self.inputs.start > 0;
        for start in self.rows.clone().step_by(ROWS) {
            let rows = start..self.rows.end.min(start + ROWS);
            let corner = self.out.corner(start * outputs + self.columns.start, rows.len(), width, outputs);
            let target = Target { start: corner, stride: outputs, rows: rows.len(), columns: width };
            // SAFETY: each (row, panel) of out belongs to one task.
            unsafe { product(unit, (self.x, rows.clone()), &weight, self.terms, (target, adds)) }; // [count, width]
            if self.inputs.end < inputs {
                continue;
            }
            for row in rows {
                // SAFETY: as above, and the product is over.
                let values = unsafe { self.out.slice(row * outputs + self.columns.start, width) };
                self.layer.finish(values, self.columns.start);
            }
        }
    }
}

impl Panel<'_> {
    /// The weight of these outputs and inputs in tiles.
    fn weight(&self) -> Operand {
        let (columns, numbers) = (self.columns.len(), self.inputs.len());
        let stride = self.layer.size.stride;
        let at = |column: usize, from: usize| (self.columns.start + column) * stride + self.inputs.start + from;
        let halves = self.terms.right();
        match self.layer.weight {
            Weight::Bf16(weight) => {
                Operand::right_as_it_is(columns, numbers, |column, from| &weight[at(column, from)..])
            }
            Weight::F32(weight) => Operand::right(columns, numbers, halves, |column, from, out| {
                out.copy_from_slice(&weight[at(column, from)..][..out.len()]);
            }),
            Weight::F16(weight) => Operand::right(columns, numbers, halves, |column, from, out| {
                convert(&weight[at(column, from)..], out, half::f16::to_f32);
            }),
            Weight::F8 { codes, kind, scales } => {
                let table = kind.numbers();
                Operand::right(columns, numbers, halves, |column, from, out| {
                    let scale = if let [scale] = scales { *scale } else { scales[self.columns.start + column] };
                    convert(&codes[at(column, from)..], out, |code: u8| table[usize::from(code)] * scale);
                })
            }
            Weight::Blocks { bytes, kind, first, .. } => {
                let mut decoded = [0.0; 2 * SPAN];
                Operand::right(columns, numbers, halves, |column, from, out| {
                    let start = first + self.inputs.start + from;
                    let whole = start / kind.numbers() * kind.numbers();
                    let count = (start + out.len() - whole).next_multiple_of(kind.numbers());
                    let row = &bytes[(self.columns.start + column) * stride..];
                    kind.decode(&row[kind.bytes_of(whole)..kind.bytes_of(whole + count)], &mut decoded[..count]);
                    out.copy_from_slice(&decoded[start - whole..][..out.len()]);
                })
            }
        }
    }
}

/// The first numbers of a row.
fn convert<T: Copy>(row: &[T], out: &mut [f32], number: impl Fn(T) -> f32) {
    for (out, value) in out.iter_mut().zip(row) {
        *out = number(*value);
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::{
        nn::kernels::cpu::linear::Activation,
        weights::{BlockType, Float8},
    };

    fn wave(count: usize, phase: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37 + phase).sin() * (i as f32 * 0.011).cos()).collect()
    }

    /// Inputs beyond one slice, rows and outputs that are no whole tiles.
    const SIZE: Size = Size { rows: 70, inputs: SLICE + 256, outputs: 45, stride: SLICE + 256 };

    fn assert_as_vectors(what: &str, weight: Weight<'_>, size: Size, tolerance: f32) {
        let x = wave(size.rows * size.inputs, 0.4);
        let bias = wave(size.outputs, 2.0);
        for (activation, adds) in [(Activation::None, false), (Activation::Gelu, false), (Activation::None, true)] {
            let layer = Linear { weight, size, bias: (!adds).then_some(&bias), activation, rounds: false, adds };
            let (mut expected, mut found) = (vec![1.5; size.rows * size.outputs], vec![1.5; size.rows * size.outputs]);
            layer.apply(&x, &mut expected);
            let terms = if let Weight::Bf16(_) = weight { Terms::Two } else { Terms::Three };
            Tiled { unit: Unit::Model, terms }.apply(&layer, &x, &SharedMut::new(&mut found));
            let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < tolerance * largest, "{what} {activation:?} adds {adds}: {worst:e} of {largest}");
        }
    }

    #[test]
    fn every_form_of_weight_gives_what_vectors_give() {
        let numbers = wave(SIZE.outputs * SIZE.inputs, 1.1);
        let halves: Vec<bf16> = numbers.iter().map(|value| bf16::from_f32(*value)).collect();
        let shorts: Vec<f16> = numbers.iter().map(|value| f16::from_f32(*value)).collect();
        let codes: Vec<u8> = (0..numbers.len()).map(|i| (i * 37 % 251) as u8 & 0xBF).collect();
        let scales: Vec<f32> = (0..SIZE.outputs).map(|row| 0.02 + 0.001 * row as f32).collect();
        assert_as_vectors("f32", Weight::F32(&numbers), SIZE, 2e-5);
        assert_as_vectors("bf16", Weight::Bf16(&halves), SIZE, 2e-5);
        assert_as_vectors("f16", Weight::F16(&shorts), SIZE, 2e-5);
        for scales in [&scales[..1], &scales] {
            let weight = Weight::F8 { codes: &codes, kind: Float8::E4M3, scales };
            assert_as_vectors("fp8", weight, SIZE, 2e-5);
        }
    }

    #[test]
    fn blocks_may_begin_within_one() {
        let kind = BlockType::Q8_0;
        let (stored, first) = (SLICE + 512, 40);
        let row = kind.bytes_of(stored);
        // Scales of 2^-6 in f16, and whole numbers of 8 bits.
        let bytes: Vec<u8> = (0..SIZE.outputs * row)
            .map(|i| match i % row % kind.bytes() {
                0 => 0,
                1 => 0x24,
                _ => (i * 31 % 255) as u8,
            })
            .collect();
        let size = Size { stride: row, ..SIZE };
        assert_as_vectors("Q8_0", Weight::Blocks { bytes: &bytes, kind, first, int8: false }, size, 4e-5);
    }

    #[test]
    fn what_is_small_stays_with_vectors() {
        for size in [Size { rows: 4, ..SIZE }, Size { inputs: 16, ..SIZE }] {
            assert!(Tiled::of(&size, Form::Bf16, true).is_none());
        }
    }
}
