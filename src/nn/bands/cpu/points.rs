//! A convolution's weights at the points of a scheme, and the products of each: plain ones, or in the tiles of a matrix unit, both sides
//! split in two halves as in every product of f32 there.

use std::sync::Arc;

use rayon::prelude::*;

use super::{
    buffer::{Buffer, Pool},
    direct,
    matmul::{View, multiply},
};
use crate::nn::kernels::cpu::tiles::{self, MatrixUnit, Operand, Target, Task, Terms, Unit};

/// How exactly a unit computes them.
const TERMS: Terms = Terms::Three;

/// A convolution's weights as its file has them.
#[derive(Clone, Copy)]
pub(crate) struct Taps<'a> {
    /// [O, I, 3, 3]
    pub weight: &'a [f32],
    /// I
    pub inputs: usize,
    /// O
    pub outputs: usize,
}

/// They at the points of a scheme.
pub(crate) enum Points {
    /// [points, I, O]
    Plain { inputs: usize, outputs: usize, matrices: Buffer },
    /// For a unit: I x O at each point.
    Tiles { inputs: usize, outputs: usize, unit: Unit, matrices: Vec<Operand> },
}

impl Points {
    /// G w G^T of every filter; `columns` are G's.
    pub fn new<const N: usize>(columns: [[f64; N]; 3], taps: Taps<'_>, unit: Option<Unit>, pool: &Arc<Pool>) -> Self {
        let Taps { inputs, outputs, .. } = taps;
        // What a tap counts for at a point.
        let factor = |point: usize, tap: usize| (columns[tap / 3][point / N] * columns[tap % 3][point % N]) as f32;
        match unit {
            Some(unit) => {
                let matrix = |point| in_tiles(taps, std::array::from_fn(|tap| factor(point, tap)));
                Self::Tiles { inputs, outputs, unit, matrices: (0..N * N).into_par_iter().map(matrix).collect() }
            }
            None => Self::Plain { inputs, outputs, matrices: plain(N * N, taps, factor, pool) },
        }
    }

    /// Numbers of f32 that so many points take.
    pub fn elements(points: usize, [inputs, outputs]: [usize; 2], unit: Option<Unit>) -> usize {
        let tiled = || numbers(Operand::tiles(outputs, inputs, TERMS.right()));
        points * unit.map_or(inputs * outputs, |_| tiled())
    }

    /// Numbers of f32 that a product of so many rows takes for itself.
    pub fn scratch_elements(rows: usize, inputs: usize, unit: Option<Unit>) -> usize {
        unit.map_or(0, |_| numbers(Operand::tiles(rows, inputs, TERMS.left())))
    }

    /// Products of `count` rows at each point: [points, count, I] to [points, count, O].
    pub fn multiply(&self, count: usize, input: &[f32], output: &mut [f32]) {
        match self {
            Self::Plain { inputs, outputs, matrices } => {
                let all = input.chunks_exact(count * inputs).zip(output.chunks_exact_mut(count * outputs));
                for ((input, output), matrix) in all.zip(matrices.chunks_exact(inputs * outputs)) {
                    let (a, b) = (View { data: input, stride: *inputs }, View { data: matrix, stride: *outputs });
                    multiply([count, *inputs, *outputs], a, b, output, *outputs, false);
                }
            }
            Self::Tiles { inputs, outputs, unit, matrices } => {
                unit.run(AtPoints { matrices, size: [count, *inputs, *outputs], input, output });
            }
        }
    }
}

/// Numbers of f32 in so many tiles.
fn numbers(count: usize) -> usize {
    tiles::bytes(count) as usize / size_of::<f32>()
}

/// [points, I, O]
fn plain(points: usize, taps: Taps<'_>, factor: impl Fn(usize, usize) -> f32 + Sync, pool: &Arc<Pool>) -> Buffer {
    let Taps { weight, inputs, outputs } = taps;
    let by_tap = direct::by_tap(inputs, outputs, weight, pool);
    let mut matrices = pool.take(points * inputs * outputs);
    matrices.fill(0.0);
    matrices.par_chunks_exact_mut(inputs * outputs).enumerate().for_each(|(point, matrix)| {
        for (tap, weights) in by_tap.chunks_exact(inputs * outputs).enumerate() {
            let factor = factor(point, tap);
            if factor != 0.0 {
                matrix.iter_mut().zip(weights).for_each(|(point, weight)| *point += factor * weight);
            }
        }
    });
    matrices
}

/// One point's matrix, whose columns are outputs.
fn in_tiles(taps: Taps<'_>, factors: [f32; 9]) -> Operand {
    let Taps { weight, inputs, outputs } = taps;
    Operand::right(outputs, inputs, TERMS.right(), |output, from, out| {
        let filters = weight[(output * inputs + from) * 9..].as_chunks::<9>().0;
        for (out, filter) in out.iter_mut().zip(filters) {
            *out = filter.iter().zip(&factors).map(|(weight, factor)| factor * weight).sum();
        }
    })
}

/// The products of some rows at every point.
struct AtPoints<'a> {
    matrices: &'a [Operand],
    /// Rows, I, O.
    size: [usize; 3],
    input: &'a [f32],
    output: &'a mut [f32],
}

impl Task for AtPoints<'_> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        let [rows, inputs, outputs] = self.size;
        let all = self.input.chunks_exact(rows * inputs).zip(self.output.chunks_exact_mut(rows * outputs));
        for ((input, output), right) in all.zip(self.matrices) {
            let left = Operand::left_here(input, inputs, TERMS);
            let target = Target { start: output.as_mut_ptr(), stride: outputs, rows, columns: outputs };
            // SAFETY: the output is borrowed mutably, rows of `outputs` numbers.
            unsafe { tiles::product(unit, (&left, 0..rows), right, TERMS, (target, false)) }; // [rows, O]
        }
    }
}
