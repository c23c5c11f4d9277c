//! Products of tiles, blocked so that what one side uses again lies in the first cache and the other side in the second.

use std::ops::Range;

use super::{
    operand::{Operand, Terms},
    unit::{MatrixUnit, SIDE},
};

/// Tiles of depth that are multiplied before others: two strips of the right side are 32 KB.
const DEPTH_TILES: usize = 16;
/// Rows and columns of one block of sums.
const BLOCK: usize = 2 * SIDE;
/// Bytes of a tile's row.
const ROW_BYTES: usize = SIDE * size_of::<f32>();

/// Where a product goes: rows of `columns` numbers, `stride` apart.
#[derive(Clone, Copy)]
pub struct Target {
    pub start: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
}

/// `out = (out, if it adds) + left[rows] · right`, for rows of the left side that begin with a pair of strips.
///
/// # Safety
/// `out` may be written, and nobody else uses it meanwhile.
pub unsafe fn product<U: MatrixUnit>(
    unit: &mut U,
    (left, rows): (&Operand, Range<usize>),
    right: &Operand,
    terms: Terms,
    (out, adds): (Target, bool),
) {
    assert!(rows.start.is_multiple_of(BLOCK) && left.depth() == right.depth(), "strips in pairs, of one depth");
    assert!(rows.end <= left.strips() * SIDE && out.columns <= right.strips() * SIDE && out.rows == rows.len());
    for depth in (0..left.depth()).step_by(DEPTH_TILES) {
        let depth = depth..left.depth().min(depth + DEPTH_TILES);
        for column in (0..out.columns).step_by(BLOCK) {
            for row in (0..out.rows).step_by(BLOCK) {
                let corner = Target {
                    // SAFETY: within out.
                    start: unsafe { out.start.add(row * out.stride + column) },
                    rows: BLOCK.min(out.rows - row),
                    columns: BLOCK.min(out.columns - column),
                    stride: out.stride,
                };
                let at =
                    Block { left, right, row: (rows.start + row) / SIDE, column: column / SIDE, depth: depth.clone() };
                // SAFETY: the corner lies within out, which is the caller's to promise.
                unsafe { at.product(unit, terms, corner, adds || depth.start > 0) };
            }
        }
    }
}

/// One block of 32 x 32 sums over some tiles of depth.
struct Block<'a> {
    left: &'a Operand,
    right: &'a Operand,
    /// The first of two strips of the left side, and of the right.
    row: usize,
    column: usize,
    /// In tiles.
    depth: Range<usize>,
}

impl Block<'_> {
    /// # Safety
    /// As [`product()`].
    unsafe fn product<U: MatrixUnit>(&self, unit: &mut U, terms: Terms, out: Target, adds: bool) {
        // SAFETY: a whole block of out is the caller's; of one at its edge so many rows and columns are, and the copy is whole.
        unsafe {
            if out.rows == BLOCK && out.columns == BLOCK {
                return self.sums(unit, terms, (out.start.cast(), out.stride * size_of::<f32>()), adds);
            }
            let mut edge = [[0.0; BLOCK]; BLOCK];
            let start = edge.as_mut_ptr().cast::<f32>();
            if adds {
                copy(out, start, |out, edge| *edge = *out);
            }
            self.sums(unit, terms, (start.cast(), BLOCK * size_of::<f32>()), adds);
            copy(out, start, |out, edge| *out = *edge);
        }
    }

    /// # Safety
    /// As [`product()`], of a whole block whose rows are `stride` bytes apart.
    unsafe fn sums<U: MatrixUnit>(&self, unit: &mut U, terms: Terms, (out, stride): (*mut u32, usize), adds: bool) {
        // SAFETY: the four tiles are the caller's block; operands' tiles are where they say.
        unsafe {
            let [second, below] = [out.byte_add(ROW_BYTES), out.byte_add(SIDE * stride)];
            let last = below.byte_add(ROW_BYTES);
            if adds {
                unit.load::<0>(out, stride);
                unit.load::<1>(second, stride);
                unit.load::<2>(below, stride);
                unit.load::<3>(last, stride);
            } else {
                unit.zero::<0>();
                unit.zero::<1>();
                unit.zero::<2>();
                unit.zero::<3>();
            }
            for k in self.depth.clone() {
                let mut held = usize::MAX;
                for &(of_left, of_right) in terms.pairs() {
                    unit.load::<4>(self.left.tile(self.row, k, of_left), ROW_BYTES);
                    unit.load::<5>(self.left.tile(self.row + 1, k, of_left), ROW_BYTES);
                    if of_right != held {
                        unit.load::<6>(self.right.tile(self.column, k, of_right), ROW_BYTES);
                        unit.load::<7>(self.right.tile(self.column + 1, k, of_right), ROW_BYTES);
                        held = of_right;
                    }
                    unit.multiply::<0, 4, 6>();
                    unit.multiply::<1, 4, 7>();
                    unit.multiply::<2, 5, 6>();
                    unit.multiply::<3, 5, 7>();
                }
            }
            unit.store::<0>(out, stride);
            unit.store::<1>(second, stride);
            unit.store::<2>(below, stride);
            unit.store::<3>(last, stride);
        }
    }
}

/// Calls `each` with every number of a corner of out and its place in a block of its own.
///
/// # Safety
/// Both are where they say.
unsafe fn copy(out: Target, block: *mut f32, each: impl Fn(&mut f32, &mut f32)) {
    for row in 0..out.rows {
        for column in 0..out.columns {
            // SAFETY: the caller's promise.
            unsafe { each(&mut *out.start.add(row * out.stride + column), &mut *block.add(row * BLOCK + column)) };
        }
    }
}
