//! The products of transformed tiles, point by point: by vectors, or in the tiles of a matrix unit.

use super::{
    buffer::Buffer,
    matmul::{View, multiply},
};
use crate::nn::kernels::cpu::tiles::{self, DEPTH, MatrixUnit, Operand, SIDE, Target, Task, Terms, Unit, product};

/// Numbers of f32 in two halves on both sides: weights at their points are no bf16, whatever they were.
const TERMS: Terms = Terms::Three;

/// Weights at the points of a scheme, [N * N, I, O].
pub(crate) enum Points {
    /// As they are.
    Numbers(Buffer),
    /// As a unit reads them: in two halves of 16 bits, which is as many bytes.
    Tiles(Unit, Vec<Operand>),
}

/// The unit that takes products of so many channels: those that fill whole tiles.
pub(crate) fn unit_for(inputs: usize, outputs: usize) -> Option<Unit> {
    let is_whole = inputs.is_multiple_of(DEPTH) && outputs.is_multiple_of(2 * SIDE);
    if is_whole { tiles::unit() } else { None }
}

/// Numbers that the products of so many tiles take besides their inputs and outputs: the inputs of one point, in two halves.
pub(crate) fn working_elements(unit: Option<Unit>, count: usize, inputs: usize) -> usize {
    unit.map_or(0, |_| tiles::bytes(Operand::tiles(count, inputs, TERMS.left())) as usize / size_of::<f32>())
}

impl Points {
    /// Of a unit; `matrix` writes the weights [I, O] of a point.
    pub fn tiles(
        unit: Unit,
        points: usize,
        [inputs, outputs]: [usize; 2],
        mut matrix: impl FnMut(usize, &mut [f32]),
    ) -> Self {
        let mut weights = vec![0.0; inputs * outputs];
        let mut packed = |point| {
            matrix(point, &mut weights);
            Operand::right(outputs, inputs, TERMS.right(), |output, from, out| {
                for (out, row) in out.iter_mut().zip(weights[from * outputs..].chunks_exact(outputs)) {
                    *out = row[output];
                }
            })
        };
        Self::Tiles(unit, (0..points).map(&mut packed).collect())
    }

    /// `output` [N * N, count, O] from `input` [N * N, count, I], on this thread.
    pub fn multiply(&self, [count, inputs, outputs]: [usize; 3], input: &[f32], output: &mut [f32]) {
        let sides = input.chunks_exact(count * inputs).zip(output.chunks_exact_mut(count * outputs));
        match self {
            Self::Numbers(weights) => {
                for ((input, output), weights) in sides.zip(weights.chunks_exact(inputs * outputs)) {
                    let (a, b) = (View { data: input, stride: inputs }, View { data: weights, stride: outputs });
                    multiply([count, inputs, outputs], a, b, output, outputs, false);
                }
            }
            Self::Tiles(unit, weights) => unit.run(InTiles { weights, inputs, outputs, sides }),
        }
    }
}

/// The products in tiles: `sides` are the input [count, I] and the output [count, O] of each point.
struct InTiles<'p, S> {
    weights: &'p [Operand],
    inputs: usize,
    outputs: usize,
    sides: S,
}

impl<'a, S: Iterator<Item = (&'a [f32], &'a mut [f32])>> Task for InTiles<'_, S> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        for ((input, output), weights) in self.sides.zip(self.weights) {
            let (input, rows) = (Operand::left_here(input, self.inputs, TERMS), input.len() / self.inputs);
            let target = Target { start: output.as_mut_ptr(), stride: self.outputs, rows, columns: self.outputs };
            assert_eq!(output.len(), rows * self.outputs, "output is [count, O]");
            // SAFETY: output is as large as this asks, and borrowed mutably.
            unsafe { product(unit, (&input, 0..rows), weights, TERMS, (target, false)) }; // [count, O]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::nn::bands::cpu::buffer::Pool;

    #[test]
    fn tiles_give_what_vectors_give() {
        let wave =
            |count: usize, phase: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.37 + phase).sin()).collect() };
        for (points, size) in [(9, [37, 32, 64]), (16, [128, 96, 32])] {
            let [count, inputs, outputs] = size;
            let (weights, input) = (wave(points * inputs * outputs, 0.1), wave(points * count * inputs, 1.3));
            let of_point = |point: usize, matrix: &mut [f32]| {
                matrix.copy_from_slice(&weights[point * inputs * outputs..][..inputs * outputs]);
            };
            let vectors = Points::Numbers(Arc::new(Pool::default()).copy(&weights));
            let tiles = Points::tiles(Unit::Model, points, [inputs, outputs], of_point);
            let [expected, found] = [vectors, tiles].map(|points_of| {
                let mut output = vec![f32::NAN; points * count * outputs];
                points_of.multiply(size, &input, &mut output);
                output
            });
            let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5 * inputs as f32, "{size:?}: {worst:e}");
        }
    }
}
