//! Matrices that a warp holds in its registers. Source of the fragments' layout: PTX ISA, "Matrix Fragments for mma.m16n8k16 with
//! floating point type", "for mma.m16n8k32", `ldmatrix`.

use super::{
    Fault, FaultKind,
    block::Block,
    warp::{FULL, Warp},
};
use crate::ptx::code::{Address, LANES, Lanes, MATRIX_ROW_BYTES, Product, Slot};

/// Rows of a, and of c.
const M: usize = 16;
/// Columns of b, and of c.
const N: usize = 8;
/// Columns of a, rows of b, at most.
const K: usize = 32;
/// Rows of a matrix of `ldmatrix`, and numbers of a row.
const SIDE: usize = 8;

/// One of the numbers, so many, that share a register.
fn unpacked(bits: u64, packed: usize, index: usize) -> u64 {
    let width = 32 / packed;
    bits >> (width * index) & ((1 << width) - 1)
}

fn by_all(lanes: u32, what: &str) -> Result<(), Fault> {
    match lanes {
        FULL => Ok(()),
        _ => Err(Fault::new(FaultKind::Deadlock, format!("{what} without all lanes of the warp"))),
    }
}

impl Block<'_> {
    /// `mma.sync`. Products of two numbers are exact in f32, and are added to c in the order of k, each sum rounded to nearest: the
    /// ISA leaves order and rounding open, and promises single precision at least. Of e4m3 it promises no more than that for the
    /// products; cards have been found to keep fewer bits of the sum (`product.cu`).
    pub(super) fn product(&mut self, warp: &mut Warp, lanes: u32, what: &Product) -> Result<(), Fault> {
        by_all(lanes, "a product of matrices")?;
        let (packed, widen) = (what.packed, what.widen);
        let k = 8 * packed;
        let (mut a, mut b, mut c) = ([[0f32; K]; M], [[0f32; N]; K], [[0f32; N]; M]);
        for lane in 0..LANES {
            let (group, first, pair) = (lane / 4, lane % 4 * packed, lane % 4 * 2);
            for (i, slot) in what.a.iter().enumerate() {
                let bits = warp.lanes(*slot)[lane];
                let (row, column) = (group + 8 * (i & 1), first + k / 2 * (i >> 1));
                for at in 0..packed {
                    a[row][column + at] = widen(unpacked(bits, packed, at));
                }
            }
            for (i, slot) in what.b.iter().enumerate() {
                let bits = warp.lanes(*slot)[lane];
                for at in 0..packed {
                    b[first + k / 2 * i + at][group] = widen(unpacked(bits, packed, at));
                }
            }
            for (i, slot) in what.c.iter().enumerate() {
                c[group + 8 * (i >> 1)][pair + (i & 1)] = f32::from_bits(warp.lanes(*slot)[lane] as u32);
            }
        }
        for (a, c) in a.iter().zip(&mut c) {
            for (a, b) in a.iter().zip(&b[..k]) {
                c.iter_mut().zip(b).for_each(|(c, b)| *c += a * b);
            }
        }
        for (i, slot) in what.d.iter().enumerate() {
            let value = |lane: usize| c[lane / 4 + 8 * (i >> 1)][lane % 4 * 2 + (i & 1)];
            let bits = |value: f32| if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() };
            warp.write(*slot, lanes, &std::array::from_fn(|lane| bits(value(lane))));
        }
        let counted = if packed == 4 { &mut self.counts.float8_flops } else { &mut self.counts.product_flops };
        *counted += (2 * M * N * k) as u64;
        Ok(())
    }

    /// `ldmatrix`: lane 8m + r names row r of matrix m; each lane gets two neighbours of every matrix, along its rows or, transposed,
    /// along its columns.
    pub(super) fn load_matrices(
        &mut self,
        warp: &mut Warp,
        lanes: u32,
        to: &[Slot],
        at: &Address,
        transposed: bool,
    ) -> Result<(), Fault> {
        by_all(lanes, "a load of matrices")?;
        let naming = FULL >> (LANES - SIDE * to.len());
        let (_, addresses) = self.addresses(warp, naming, at, 1)?;
        for (matrix, slot) in to.iter().enumerate() {
            let mut rows = [[0u64; SIDE]; SIDE];
            for (row, numbers) in rows.iter_mut().enumerate() {
                let address = addresses[SIDE * matrix + row];
                let (low, high) =
                    (self.shared.read(address, 8)?, self.shared.read(address + MATRIX_ROW_BYTES as u64 / 2, 8)?);
                *numbers = std::array::from_fn(|i| (if i < 4 { low } else { high }) >> (16 * (i % 4)) & 0xffff);
            }
            let values: Lanes = std::array::from_fn(|lane| {
                let (group, pair) = (lane / 4, lane % 4 * 2);
                let [low, high] =
                    [0, 1].map(|i| if transposed { rows[pair + i][group] } else { rows[group][pair + i] });
                low | high << 16
            });
            warp.write(*slot, lanes, &values);
        }
        Ok(())
    }
}
