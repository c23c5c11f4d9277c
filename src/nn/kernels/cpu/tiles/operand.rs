//! Matrices as tiles: numbers of f32 split into one bf16 or two, whose sum has 16 bits of mantissa.

use half::bf16;
use rayon::prelude::*;

use super::{
    room::Room,
    unit::{DEPTH, SIDE, Tile},
};
use crate::nn::kernels::cpu::{
    pairs,
    simd::{bf16_bits, multiversion},
};

/// How exactly a product is computed, in products of bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    /// Both sides rounded to bf16.
    One,
    /// The left side in two halves; the right side is bf16 as it is.
    Two,
    /// Both in two halves, but for the product of the two low ones.
    Three,
}

impl Terms {
    /// Which half of the left side meets which of the right; those that share one of the right follow each other.
    pub(super) const fn pairs(self) -> &'static [(usize, usize)] {
        match self {
            Self::One => &[(0, 0)],
            Self::Two => &[(0, 0), (1, 0)],
            Self::Three => &[(0, 0), (1, 0), (0, 1)],
        }
    }

    /// Halves of the left side.
    pub const fn left(self) -> usize {
        if matches!(self, Self::One) { 1 } else { 2 }
    }

    /// Halves of the right side.
    pub const fn right(self) -> usize {
        if matches!(self, Self::Three) { 2 } else { 1 }
    }
}

/// One side of a product as tiles [strips of 16, depth in 32s, halves]; what is missing of the last ones is zero. There are pairs of
/// strips, for products are of two by two.
pub struct Operand {
    room: Room,
    /// Of one strip, in tiles.
    depth: usize,
    halves: usize,
}

impl Operand {
    /// Tiles of so many rows (or columns) of so many numbers.
    pub fn tiles(rows: usize, numbers: usize, halves: usize) -> usize {
        rows.div_ceil(2 * SIDE) * 2 * numbers.div_ceil(DEPTH) * halves
    }

    /// Rows of x from `first` on, `numbers` of each, `stride` apart: the left side.
    pub fn left(x: &[f32], (rows, stride): (usize, usize), first: usize, numbers: usize, terms: Terms) -> Self {
        let (depth, halves) = (numbers.div_ceil(DEPTH), terms.left());
        let mut room = Room::new(Self::tiles(rows, numbers, halves));
        let strips = room.par_chunks_mut((depth * halves).max(1)).enumerate().take(rows.div_ceil(SIDE));
        strips.for_each(|(strip, tiles)| {
            let rows = strip * SIDE..rows.min((strip + 1) * SIDE);
            split_rows(rows.map(|row| &x[row * stride + first..][..numbers]), tiles, halves);
        });
        Self { room, depth, halves }
    }

    /// Rows of `numbers` each, one after another, made on this thread: the left side.
    pub fn left_here(x: &[f32], numbers: usize, terms: Terms) -> Self {
        Self::from_strips(x.len() / numbers, numbers, terms.left(), |strip, from, count, tiles| {
            let rows = x.chunks(numbers).skip(strip * SIDE).take(SIDE);
            split_rows(rows.map(|row| &row[from..from + count]), tiles, terms.left());
        })
    }

    /// The same of columns: x is rows of `columns` each, and its columns are the rows of the left side.
    pub fn left_transposed(x: &[f32], columns: usize, terms: Terms) -> Self {
        Self::from_strips(columns, x.len() / columns, terms.left(), |strip, from, count, tiles| {
            let lanes = SIDE.min(columns - strip * SIDE);
            for (at, tiles) in tiles.chunks_mut(terms.left()).enumerate() {
                let rows = from + at * DEPTH..(from + count).min(from + (at + 1) * DEPTH);
                let row = |row: usize| &x[row * columns + strip * SIDE..][..lanes];
                let mut own = [EMPTY; 2];
                interleave(rows.map(row), &mut own[..terms.left()]);
                for (tile, own) in tiles.iter_mut().zip(&own) {
                    transpose(own, tile);
                }
            }
        })
    }

    /// Columns as rows have them side by side: x is [numbers, columns].
    pub fn right_by_rows<const COLUMNS: usize>(x: &[[f32; COLUMNS]], halves: usize) -> Self {
        Self::from_strips(COLUMNS, x.len(), halves, |strip, from, count, tiles| {
            let lanes = strip * SIDE..COLUMNS.min((strip + 1) * SIDE);
            for (x, tiles) in x[from..from + count].chunks(DEPTH).zip(tiles.chunks_mut(halves)) {
                interleave(x.iter().map(|row| &row[lanes.clone()]), tiles);
            }
        })
    }

    /// Nothing.
    pub fn empty() -> Self {
        Self { room: Room::new(0), depth: 0, halves: 1 }
    }

    /// Columns that there is room for.
    pub fn columns(&self) -> usize {
        self.strips() * SIDE
    }

    /// Some columns of so many numbers, of which `numbers_of` writes those of one from a number on: the right side.
    pub fn right(
        columns: usize,
        numbers: usize,
        halves: usize,
        mut numbers_of: impl FnMut(usize, usize, &mut [f32]),
    ) -> Self {
        let mut rows = [[0.0; SPAN]; SIDE];
        Self::from_strips(columns, numbers, halves, |strip, from, count, tiles| {
            let lanes = SIDE.min(columns - strip * SIDE);
            for (lane, row) in rows[..lanes].iter_mut().enumerate() {
                numbers_of(strip * SIDE + lane, from, &mut row[..count]);
            }
            for (at, tiles) in tiles.chunks_mut(halves).enumerate() {
                let mut own = [EMPTY; 2];
                for (lane, row) in rows[..lanes].iter().enumerate() {
                    split(&row[at * DEPTH..count.min((at + 1) * DEPTH)], &mut own[..halves], lane);
                }
                for (tile, own) in tiles.iter_mut().zip(&own) {
                    transpose(own, tile);
                }
            }
        })
    }

    /// The same of columns that are bf16 as they are: `pairs_of` gives one, from a number on.
    pub fn right_as_it_is<'a>(
        columns: usize,
        numbers: usize,
        mut numbers_of: impl FnMut(usize, usize) -> &'a [bf16],
    ) -> Self {
        Self::from_strips(columns, numbers, 1, |strip, from, count, tiles| {
            for lane in 0..SIDE.min(columns - strip * SIDE) {
                let values = &numbers_of(strip * SIDE + lane, from)[..count];
                for (values, tile) in values.chunks(DEPTH).zip(tiles.iter_mut()) {
                    for (row, pair) in tile.0.iter_mut().zip(values.chunks(2)) {
                        row[lane] = pairs::pair(pair[0], pair.get(1).copied().unwrap_or_default());
                    }
                }
            }
        })
    }

    /// `fill` is given a strip, where in it a span begins, how many numbers it has, and its tiles.
    fn from_strips(
        rows: usize,
        numbers: usize,
        halves: usize,
        mut fill: impl FnMut(usize, usize, usize, &mut [Tile]),
    ) -> Self {
        let depth = numbers.div_ceil(DEPTH);
        let mut room = Room::new(Self::tiles(rows, numbers, halves));
        for (strip, tiles) in room.chunks_mut((depth * halves).max(1)).enumerate().take(rows.div_ceil(SIDE)) {
            for (span, tiles) in tiles.chunks_mut(SPAN / DEPTH * halves).enumerate() {
                let from = span * SPAN;
                fill(strip, from, SPAN.min(numbers - from), tiles);
            }
        }
        Self { room, depth, halves }
    }

    /// Strips of 16.
    pub(super) fn strips(&self) -> usize {
        self.room.len() / (self.depth * self.halves).max(1)
    }

    /// Tiles of a strip's depth.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// A half of a tile.
    #[inline(always)]
    pub(super) fn tile(&self, strip: usize, depth: usize, half: usize) -> *const u32 {
        self.room[(strip * self.depth + depth) * self.halves + half].0.as_ptr().cast()
    }
}

/// Numbers of a column that are made at a time: one large block of a quantised matrix, or several small ones.
const SPAN: usize = 256;

/// Splits up to 16 rows into tiles, `halves` for 32 numbers of each.
fn split_rows<'x>(rows: impl Iterator<Item = &'x [f32]>, tiles: &mut [Tile], halves: usize) {
    for (row, x) in rows.enumerate() {
        for (x, tiles) in x.chunks(DEPTH).zip(tiles.chunks_mut(halves)) {
            split(x, tiles, row);
        }
    }
}

const EMPTY: Tile = Tile([[0; SIDE]; SIDE]);

/// Rows of up to 16 numbers, two of which make a row of pairs.
fn interleave<'x>(rows: impl Iterator<Item = &'x [f32]>, tiles: &mut [Tile]) {
    for (index, row) in rows.enumerate() {
        let mut whole = [0.0; SIDE];
        whole[..row.len()].copy_from_slice(row);
        let high = whole.map(bf16_bits);
        put(&high, &mut tiles[0].0[index / 2], index);
        if let [_, tile] = tiles {
            put(&std::array::from_fn(|number| left(whole[number], high[number])), &mut tile.0[index / 2], index);
        }
    }
}

/// Puts upper halves into pairs, as the first or the second of each.
#[inline(always)]
fn put(numbers: &[u32; SIDE], pairs: &mut [u32; SIDE], index: usize) {
    for (pair, number) in pairs.iter_mut().zip(numbers) {
        *pair |= if index.is_multiple_of(2) { number >> 16 } else { *number };
    }
}

/// What the nearest bf16 leaves of a number, as the nearest bf16; nothing beyond the largest, where nothing is left that is a number.
#[inline(always)]
fn left(number: f32, high: u32) -> u32 {
    let left = number - f32::from_bits(high);
    if left.is_finite() { bf16_bits(left) } else { 0 }
}

/// Rows become columns.
fn transpose(from: &Tile, to: &mut Tile) {
    for (row, values) in to.0.iter_mut().enumerate() {
        *values = std::array::from_fn(|column| from.0[column][row]);
    }
}

/// Upper halves of two numbers at a time, the first one's low.
#[inline(always)]
fn in_pairs(numbers: &[u32; DEPTH]) -> [u32; SIDE] {
    std::array::from_fn(|pair| numbers[2 * pair] >> 16 | numbers[2 * pair + 1])
}

multiversion! {
    /// Writes up to 32 numbers to a row of a tile, or of two: one for the nearest bf16, one for what is left.
    pub fn split<FMA>(numbers: &[f32], tiles: &mut [Tile], row: usize) {
        let mut whole = [0.0; DEPTH];
        whole[..numbers.len()].copy_from_slice(numbers);
        let high = whole.map(bf16_bits);
        tiles[0].0[row] = in_pairs(&high);
        if let [_, tile] = tiles {
            tile.0[row] = in_pairs(&std::array::from_fn(|number| left(whole[number], high[number])));
        }
    }
}
