//! Matrix products of bf16 numbers with f32 sums, on processors with AVX512-BF16: twice the rate of f32.
//!
//! One instruction multiplies 16 pairs of bf16 and adds both products to 16 f32 sums. So both operands are held as
//! pairs (2k, 2k + 1) in 32 bits, low half first: a row of bf16 in memory already is.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut,
    simd::{bf16_bits, multiversion},
};

/// One pair of inputs of 64 output channels.
pub type PairLane = [u32; REGISTER_ROWS];

/// Pairs taken at once: 128 x 64 pairs of weights are 32 KB and stay in the first-level cache while the rows pass by.
const PAIRS: usize = 128;
/// Rows of one register tile: 6 rows x 64 channels are 24 registers of sums, 4 hold weights, 1 the input.
const ROWS: usize = 6;

/// Whether this processor has the instruction.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}

/// x [rows, in] rounded to bf16, in pairs: [rows, in / 2].
pub fn round(x: &[f32]) -> Vec<u32> {
    let mut pairs = vec![0; x.len() / 2];
    pairs.par_chunks_mut(1 << 14).zip(x.par_chunks(1 << 15)).for_each(|(pairs, x)| round_pairs(x, pairs));
    pairs
}

/// Two numbers as one pair.
pub fn pair(low: bf16, high: bf16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

multiversion! {
    /// Rounds to the nearest bf16, ties to even; NaN stays NaN.
    pub fn round_pairs<FMA>(x: &[f32], pairs: &mut [u32]) {
        for (pair, x) in pairs.iter_mut().zip(x.as_chunks::<2>().0) {
            *pair = bf16_bits(x[0]) >> 16 | bf16_bits(x[1]);
        }
    }
}

/// `out[row.., columns] = x [rows, pairs] · weight [pairs, 64]` for a matrix `out` of `outputs` columns; `corner` is
/// the first row and the columns, 64 at most.
///
/// # Safety
/// The processor has the instruction ([`available`]), and nobody else uses these columns of these rows.
pub(crate) unsafe fn product(
    x: &[u32],
    weight: &[PairLane],
    out: &SharedMut<'_>,
    corner: (usize, Range<usize>),
    outputs: usize,
) {
    let (pairs, width, (row, columns)) = (weight.len(), corner.1.len(), corner);
    assert!(x.len().is_multiple_of(pairs) && width <= REGISTER_ROWS, "x is [rows, pairs]");
    for (block, weight) in weight.chunks(PAIRS).enumerate() {
        for (tile, x) in x.chunks(ROWS * pairs).enumerate() {
            let rows = x.len() / pairs;
            let out = out.corner((row + tile * ROWS) * outputs + columns.start, rows, width, outputs);
            let tile = Tile { x: &x[block * PAIRS..], pairs, weight, out, outputs, width, adds: block > 0 };
            // SAFETY: the caller's promise; the corner was checked.
            unsafe { tile.multiply(rows) };
        }
    }
}

/// One register tile: up to [`ROWS`] rows, 64 channels, up to [`PAIRS`] pairs.
struct Tile<'a> {
    x: &'a [u32],
    /// From one row of x to the next.
    pairs: usize,
    weight: &'a [PairLane],
    out: *mut f32,
    /// From one row of out to the next.
    outputs: usize,
    /// Columns of out to write.
    width: usize,
    /// Whether to add to what out holds.
    adds: bool,
}

impl Tile<'_> {
    /// # Safety
    /// As [`product`]; `out` points to `rows` rows of `width` numbers.
    unsafe fn multiply(&self, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => self.rows::<1>(),
                2 => self.rows::<2>(),
                3 => self.rows::<3>(),
                4 => self.rows::<4>(),
                5 => self.rows::<5>(),
                _ => self.rows::<ROWS>(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no bf16 product for {rows} rows on this processor");
    }

    /// # Safety
    /// As [`Tile::multiply`], for N rows.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn rows<const N: usize>(&self) {
        use std::arch::x86_64::*;
        assert!(self.x.len() >= (N - 1) * self.pairs + self.weight.len());
        let mut sums = [[_mm512_setzero_ps(); 4]; N];
        for (k, lanes) in self.weight.iter().enumerate() {
            // SAFETY: 64 pairs are four vectors, and any bits are bf16 numbers.
            let weight: [__m512bh; 4] = unsafe {
                std::array::from_fn(|i| std::mem::transmute(_mm512_loadu_si512(lanes.as_ptr().add(16 * i).cast())))
            };
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: within x, by the assertion above; any bits are bf16 numbers.
                let x: __m512bh = unsafe {
                    let pair = *self.x.get_unchecked(row * self.pairs + k);
                    std::mem::transmute(_mm512_set1_epi32(pair.cast_signed()))
                };
                for (sum, weight) in sums.iter_mut().zip(weight) {
                    *sum = _mm512_dpbf16_ps(*sum, weight, x);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (i, sum) in sums.iter().enumerate().take(self.width.div_ceil(16)) {
                let mask = (((1u32 << (self.width - 16 * i).min(16)) - 1) & 0xFFFF) as __mmask16;
                // SAFETY: the mask leaves out what lies beyond `width`; the rest is the caller's promise.
                unsafe {
                    let target = self.out.add(row * self.outputs + 16 * i);
                    let sum = match self.adds {
                        true => _mm512_add_ps(*sum, _mm512_maskz_loadu_ps(mask, target)),
                        false => *sum,
                    };
                    _mm512_mask_storeu_ps(target, mask, sum);
                }
            }
        }
    }
}
