//! Weights in the order that products read: 64 rows side by side, widened or in pairs of bf16.

use std::ops::Range;

use half::bf16;

use super::{REGISTER_ROWS, linear::Size, pairs, simd::ask_for};
use crate::weights::BlockType;

/// Numbers of one row that are packed together: a cache line of f32, or of pairs of bf16.
const PACK_DEPTH: usize = 16;
/// Numbers of one row that are decoded together: one large block, or several small ones.
pub(super) const SPAN: usize = 256;

/// The same number with 16 more bits, all zero.
pub(super) fn widen(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// 64 rows of a matrix side by side, number by number.
type Lanes<T> = [T; REGISTER_ROWS];

/// Room for `width` rows of `depth` numbers, as [width / 64, depth, 64]; missing rows are zero.
fn room<T: Copy + Default>(width: usize, depth: usize) -> Vec<Lanes<T>> {
    vec![[T::default(); REGISTER_ROWS]; width.div_ceil(REGISTER_ROWS) * depth]
}

impl Size {
    /// Some rows of a matrix, as [rows / 64, depth, 64]; `convert` is given a row and a number in it.
    pub(super) fn pack<T: Copy, U: Copy + Default>(
        &self,
        matrix: &[T],
        rows: &Range<usize>,
        convert: impl Fn(usize, T) -> U,
    ) -> Vec<Lanes<U>> {
        let mut packed = room(rows.len(), self.inputs);
        for (index, target) in packed.chunks_mut(self.inputs).enumerate() {
            let first = rows.start + index * REGISTER_ROWS;
            let lanes = REGISTER_ROWS.min(rows.end - first);
            pack_lanes(&matrix[first * self.stride..], self.stride, lanes, target, |lane, value| {
                convert(first + lane, value)
            });
        }
        packed
    }

    /// Some rows of a matrix in blocks, in the same order.
    pub(super) fn pack_blocks(&self, matrix: Blocks<'_>, rows: &Range<usize>) -> Vec<Lanes<f32>> {
        let mut packed = room(rows.len(), self.inputs);
        self.decode_spans(matrix, rows, |group, at, numbers, count, lanes| {
            let target = &mut packed[group * self.inputs + at..][..count];
            pack_lanes(numbers, SPAN, lanes, target, |_, number| number);
        });
        packed
    }

    /// The same in pairs of bf16.
    pub(super) fn pack_blocks_in_pairs(&self, matrix: Blocks<'_>, rows: &Range<usize>) -> Vec<pairs::PairLane> {
        let depth = self.inputs / 2;
        let mut packed = room(rows.len(), depth);
        self.decode_spans(matrix, rows, |group, at, numbers, count, lanes| {
            let target = &mut packed[group * depth + at / 2..][..count / 2];
            let pair = |_, [low, high]: [f32; 2]| pairs::pair(bf16::from_f32(low), bf16::from_f32(high));
            pack_lanes(numbers.as_chunks::<2>().0, SPAN / 2, lanes, target, pair);
        });
        packed
    }

    /// Decodes rows of a matrix, 64 of them at a time and of each a span. `take` is given which 64 they are, where in the row the
    /// numbers begin, the numbers, [`SPAN`] apart from row to row, and how many they and the rows are.
    fn decode_spans(
        &self,
        (bytes, kind, first): Blocks<'_>,
        rows: &Range<usize>,
        mut take: impl FnMut(usize, usize, &[f32], usize, usize),
    ) {
        let (end, mut numbers) = (first + self.inputs, vec![0.0; REGISTER_ROWS * SPAN]);
        for (group, start) in rows.clone().step_by(REGISTER_ROWS).enumerate() {
            let lanes = REGISTER_ROWS.min(rows.end - start);
            for from in (first / kind.numbers() * kind.numbers()..end).step_by(SPAN) {
                let whole = SPAN.min((end - from).next_multiple_of(kind.numbers()));
                let blocks = kind.bytes_of(from)..kind.bytes_of(from + whole);
                for (lane, out) in numbers.chunks_mut(SPAN).take(lanes).enumerate() {
                    let row = &bytes[(start + lane) * self.stride..];
                    kind.decode(&row[blocks.clone()], &mut out[..whole]);
                }
                // Of the first block and of the last some numbers may not count.
                let (skipped, until) = (first.saturating_sub(from), whole.min(end - from));
                take(group, from + skipped - first, &numbers[skipped..], until - skipped, lanes);
            }
        }
    }
}

/// A matrix in blocks: its bytes, their kind, the first of the stored inputs that counts.
type Blocks<'a> = (&'a [u8], BlockType, usize);

/// The first rows of a matrix, `stride` apart, side by side.
fn pack_lanes<T: Copy, U: Copy>(
    matrix: &[T],
    stride: usize,
    lanes: usize,
    target: &mut [Lanes<U>],
    convert: impl Fn(usize, T) -> U,
) {
    for (block, target) in target.chunks_mut(PACK_DEPTH).enumerate() {
        for lane in 0..lanes {
            let row = &matrix[lane * stride + block * PACK_DEPTH..][..target.len()];
            // So many rows at once are more than a processor follows by itself.
            ask_for(row.as_ptr().wrapping_add(PACK_DEPTH));
            for (target, value) in target.iter_mut().zip(row) {
                target[lane] = convert(lane, *value);
            }
        }
    }
}
