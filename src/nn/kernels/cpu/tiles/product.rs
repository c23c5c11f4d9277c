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
                let strips = ((rows.start + row) / SIDE, column / SIDE);
                let adds = adds || depth.start > 0;
                // SAFETY: the corner lies within out, which is the caller's to promise.
                unsafe {
                    match terms {
                        Terms::One => block::<U, 0>(unit, left, right, strips, depth.clone(), (corner, adds)),
                        Terms::Two => block::<U, 1>(unit, left, right, strips, depth.clone(), (corner, adds)),
                        Terms::Three => block::<U, 2>(unit, left, right, strips, depth.clone(), (corner, adds)),
                    }
                }
            }
        }
    }
}

const ALL_TERMS: [Terms; 3] = [Terms::One, Terms::Two, Terms::Three];

/// One block of 32 x 32 sums over some tiles of depth; `TERMS` counts in [`ALL_TERMS`].
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn block<U: MatrixUnit, const TERMS: usize>(
    unit: &mut U,
    left: &Operand,
    right: &Operand,
    (row, column): (usize, usize),
    depth: Range<usize>,
    (out, adds): (Target, bool),
) {
    let mut edge = [[0.0; BLOCK]; BLOCK];
    let is_whole = out.rows == BLOCK && out.columns == BLOCK;
    let (start, stride) = match is_whole {
        true => (out.start, out.stride),
        false => (edge.as_mut_ptr().cast::<f32>(), BLOCK),
    };
    // SAFETY: both are whole blocks, or the caller's rows and columns of out.
    unsafe {
        if adds && !is_whole {
            copy(out, (start, stride), |out, edge| *edge = *out);
        }
        sums::<U, TERMS>(unit, left, right, (row, column), depth, (start.cast(), stride * size_of::<f32>()), adds);
        if !is_whole {
            copy(out, (start, stride), |out, edge| *out = *edge);
        }
    }
}

/// # Safety
/// As [`product`], of a whole block whose rows are `stride` bytes apart.
#[inline(always)]
unsafe fn sums<U: MatrixUnit, const TERMS: usize>(
    unit: &mut U,
    left: &Operand,
    right: &Operand,
    (row, column): (usize, usize),
    depth: Range<usize>,
    (out, stride): (*mut u32, usize),
    adds: bool,
) {
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
        for k in depth {
            let mut held = usize::MAX;
            for &(of_left, of_right) in ALL_TERMS[TERMS].pairs() {
                unit.load::<4>(left.tile(row, k, of_left), ROW_BYTES);
                unit.load::<5>(left.tile(row + 1, k, of_left), ROW_BYTES);
                if of_right != held {
                    unit.load::<6>(right.tile(column, k, of_right), ROW_BYTES);
                    unit.load::<7>(right.tile(column + 1, k, of_right), ROW_BYTES);
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

/// Calls `each` with every number of a corner of out and its place in a block.
///
/// # Safety
/// Both are where they say.
unsafe fn copy(out: Target, (block, stride): (*mut f32, usize), each: impl Fn(&mut f32, &mut f32)) {
    for row in 0..out.rows {
        for column in 0..out.columns {
            // SAFETY: the caller's promise.
            unsafe { each(&mut *out.start.add(row * out.stride + column), &mut *block.add(row * stride + column)) };
        }
    }
}
