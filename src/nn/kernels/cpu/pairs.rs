//! Matrix products of bf16 numbers with f32 sums, on processors with AVX512-BF16: up to twice the rate of f32, on some less than it.
//!
//! One instruction multiplies 16 pairs of bf16 and adds both products to 16 f32 sums. So both operands are held as
//! pairs (2k, 2k + 1) in 32 bits, low half first: a row of bf16 in memory already is.

use std::{ops::Range, sync::OnceLock};

use half::bf16;
use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut, Strided, is_faster, product as wide_product,
    simd::{ask_for, bf16_bits, multiversion},
};
use crate::error::{Error, Result};

/// One pair of inputs of 64 output channels.
pub type PairLane = [u32; REGISTER_ROWS];

/// Pairs taken at once: 512 x 64 pairs of weights are 128 KB and stay in the second-level cache while the rows pass by. Fewer would stay
/// in the first, and sums go to memory and come back the oftener: 128 are 5% slower.
const PAIRS: usize = 512;
/// Pairs of one row that are one line of a cache.
const LINE: usize = 16;
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

/// Whether products of pairs are used: this processor has them, and they take less time than f32's, as a measurement of a few
/// milliseconds says. On some Xeons they take more.
pub fn pay() -> bool {
    static PAY: OnceLock<bool> = OnceLock::new();
    *PAY.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
        Ok("off") => false,
        Ok("on") => available(),
        _ => available() && Sample::new().pays(),
    })
}

/// The variable that chooses without a measurement: `on` where the processor has them, `off` for f32's.
const VARIABLE: &str = "DYPE_BF16_PAIRS";

/// That the variable is one of its words, where it is set.
///
/// # Errors
/// [`Error::Request`] where it is another.
pub fn check_variable() -> Result<()> {
    match std::env::var_os(VARIABLE) {
        Some(word) if !["", "on", "off"].iter().any(|known| word == *known) => Err(Error::request(
            format!("{VARIABLE} is {word:?}"),
            "unset it to multiply pairs of bf16 where the processor has them and they are faster; \"on\" and \"off\" choose without a \
             measurement",
        )),
        _ => Ok(()),
    }
}

/// A product that is measured both ways: [rows, inputs] by 64 output channels, on this thread.
struct Sample {
    x: Vec<f32>,
    weight: Vec<[f32; REGISTER_ROWS]>,
    paired: (Vec<u32>, Vec<PairLane>),
}

impl Sample {
    const ROWS: usize = 192;
    const INPUTS: usize = 1024;

    fn new() -> Self {
        let number = |at: usize| bf16::from_f32((at as f32 * 0.37).sin()).to_f32();
        let x: Vec<f32> = (0..Self::ROWS * Self::INPUTS).map(number).collect();
        let weight: Vec<[f32; REGISTER_ROWS]> =
            (0..Self::INPUTS).map(|row| std::array::from_fn(|lane| number(7 * row + 3 * lane))).collect();
        let mut x_pairs = vec![0; x.len() / 2];
        round_pairs(&x, &mut x_pairs);
        let both = |[low, high]: &[[f32; REGISTER_ROWS]; 2]| {
            std::array::from_fn(|lane| pair(bf16::from_f32(low[lane]), bf16::from_f32(high[lane])))
        };
        let weight_pairs = weight.as_chunks::<2>().0.iter().map(both).collect();
        Self { x, weight, paired: (x_pairs, weight_pairs) }
    }

    fn pays(&self) -> bool {
        let [mut paired, mut wide] = [(); 2].map(|()| vec![0.0; Self::ROWS * REGISTER_ROWS]);
        is_faster(|| self.multiply_pairs(&mut paired), || self.multiply(&mut wide))
    }

    fn multiply(&self, out: &mut [f32]) {
        let x = Strided { start: self.x.as_ptr(), rows: Self::INPUTS, columns: 1 };
        let weight = Strided { start: self.weight.as_ptr().cast::<f32>(), rows: REGISTER_ROWS, columns: 1 };
        let out = Strided { start: out.as_mut_ptr(), rows: REGISTER_ROWS, columns: 1 };
        // SAFETY: all three are as long as this asks.
        unsafe { wide_product((Self::ROWS, REGISTER_ROWS, Self::INPUTS), out, false, x, weight) };
    }

    fn multiply_pairs(&self, out: &mut [f32]) {
        let (x, weight) = &self.paired;
        let out = SharedMut::new(out);
        let x = Rounded { pairs: x, rows: Self::ROWS, row: Self::INPUTS / 2, step: 1 };
        // SAFETY: `pay` asked the processor; out is borrowed mutably.
        unsafe { product(x, weight, &out, (0, 0..REGISTER_ROWS), (REGISTER_ROWS, false)) };
    }
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
    /// Rounds two rows to bf16, the numbers of which make a pair.
    pub fn join_rows<FMA>(even: &[f32], odd: &[f32], pairs: &mut [u32]) {
        for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
            *pair = bf16_bits(*even) >> 16 | bf16_bits(*odd);
        }
    }
}

multiversion! {
    /// Rounds to the nearest bf16, ties to even; NaN stays NaN.
    pub fn round_pairs<FMA>(x: &[f32], pairs: &mut [u32]) {
        for (pair, x) in pairs.iter_mut().zip(x.as_chunks::<2>().0) {
            *pair = bf16_bits(x[0]) >> 16 | bf16_bits(x[1]);
        }
    }
}

/// Rows of pairs: pair k of row i is number `i·row + k·step`.
#[derive(Clone, Copy)]
pub struct Rounded<'a> {
    /// Where they are.
    pub pairs: &'a [u32],
    /// How many.
    pub rows: usize,
    /// From one row to the next.
    pub row: usize,
    /// From one pair to the next.
    pub step: usize,
}

/// `out[row.., columns] = (out, if it adds) + x [rows, pairs] · weight [pairs, 64]` for a matrix `out` of `outputs` columns; `corner`
/// is the first row and the columns, 64 at most.
///
/// # Safety
/// The processor has the instruction ([`available`]), and nobody else uses these columns of these rows.
pub(crate) unsafe fn product(
    x: Rounded<'_>,
    weight: &[PairLane],
    out: &SharedMut<'_>,
    corner: (usize, Range<usize>),
    (outputs, adds): (usize, bool),
) {
    let (width, (row, columns)) = (corner.1.len(), corner);
    assert!(width <= REGISTER_ROWS, "64 columns at most");
    for (block, weight) in weight.chunks(PAIRS).enumerate() {
        let first_pair = block * PAIRS * x.step;
        for first in (0..x.rows).step_by(ROWS) {
            let rows = ROWS.min(x.rows - first);
            let out = out.corner((row + first) * outputs + columns.start, rows, width, outputs);
            let next = match first + ROWS {
                next if next < x.rows => next * x.row + first_pair,
                _ => first_pair + PAIRS * x.step,
            };
            let pairs = &x.pairs[first * x.row + first_pair..];
            let (x, next) = (Rounded { pairs, rows, ..x }, x.pairs.as_ptr().wrapping_add(next));
            let tile = Tile { x, next, weight, out, outputs, width, adds: adds || block > 0 };
            // SAFETY: the caller's promise; the corner was checked.
            unsafe { tile.multiply(rows) };
        }
    }
}

/// One register tile: up to [`ROWS`] rows, 64 channels, up to [`PAIRS`] pairs.
struct Tile<'a> {
    x: Rounded<'a>,
    /// Where the rows of the next tile begin: asked for ahead, and so never read.
    next: *const u32,
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
    #[expect(clippy::needless_range_loop, reason = "vectors stay in registers")]
    unsafe fn rows<const N: usize>(&self) {
        use std::arch::x86_64::*;

        use super::simd::{read_row, write_row};
        let Rounded { pairs, row: next, step, .. } = self.x;
        assert!(pairs.len() > (N - 1) * next + (self.weight.len() - 1) * step);
        let mut sums = [[_mm512_setzero_ps(); 4]; N];
        for (line, weight) in self.weight.chunks(LINE).enumerate() {
            self.ask_ahead::<N>(line);
            for (k, lanes) in weight.iter().enumerate() {
                // SAFETY: they are 64 pairs, and any bits are bf16 numbers.
                let weight: [__m512bh; 4] = unsafe { std::mem::transmute(read_row(lanes.as_ptr())) };
                for row in 0..N {
                    // SAFETY: within x, by the assertion above; any bits are bf16 numbers.
                    let x: __m512bh = unsafe {
                        let pair = *pairs.get_unchecked(row * next + (line * LINE + k) * step);
                        std::mem::transmute(_mm512_set1_epi32(pair.cast_signed()))
                    };
                    for i in 0..4 {
                        sums[row][i] = _mm512_dpbf16_ps(sums[row][i], weight[i], x);
                    }
                }
            }
        }
        for row in 0..N {
            // SAFETY: the caller's promise.
            unsafe { write_row(&sums[row], self.out.add(row * self.outputs), self.width, self.adds) };
        }
    }

    /// Asks for a line of each of the next tile's rows, and at first for what the sums are added to.
    #[inline(always)]
    fn ask_ahead<const N: usize>(&self, line: usize) {
        for row in 0..N {
            if self.x.step == 1 {
                ask_for(self.next.wrapping_add(row * self.x.row + line * LINE));
            }
            if line == 0 && self.adds {
                (0..4).for_each(|i| ask_for(self.out.wrapping_add(row * self.outputs + i * LINE)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows and columns that are no whole register tiles, inputs beyond one block.
    #[test]
    fn products_of_pairs_are_those_of_f32() {
        if !available() {
            return;
        }
        let sample = Sample::new();
        let (x, weight) = &sample.paired;
        for (rows, width) in [(1, 64), (8, 33), (23, 16), (192, 5)] {
            let mut out = vec![7.0; rows * width + 1];
            let x = Rounded { pairs: x, rows, row: Sample::INPUTS / 2, step: 1 };
            // SAFETY: the processor was asked; out is borrowed mutably.
            unsafe { product(x, weight, &SharedMut::new(&mut out), (0, 0..width), (width, false)) };
            for (at, found) in out[..rows * width].iter().enumerate() {
                let row = &sample.x[at / width * Sample::INPUTS..][..Sample::INPUTS];
                let products = row.iter().zip(&sample.weight).map(|(x, w)| f64::from(*x) * f64::from(w[at % width]));
                let (sum, most) = products.fold((0.0, 0.0), |(sum, most), p: f64| (sum + p, most + p.abs()));
                assert!((f64::from(*found) - sum).abs() < 1e-6 * most, "{rows} x {width}, {at}: {found} for {sum}");
            }
            assert_eq!(out[rows * width], 7.0, "beyond what was asked");
        }
    }
}
