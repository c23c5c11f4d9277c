//! Matrix products of numbers of 8 bits with sums of 32, on processors with AVX512-VNNI: a weight in Q8_0 as its file has it, and x
//! rounded to the same blocks, 32 numbers with a scale.
//!
//! One instruction multiplies 16 groups of four bytes, of which one side is unsigned, and adds them to 16 sums. So weights are held 128
//! higher, and a block's sums begin with what that adds. Within a block sums are exact; blocks are added in f32, in one order, so that
//! processors without the instruction come to the same numbers.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut,
    linear::Size,
    simd::{mul_add, multiversion},
};
use crate::weights::BlockType;

/// Numbers of a block.
pub const BLOCK: usize = 32;
/// Groups of four numbers in a block.
const QUADS: usize = BLOCK / 4;
/// Bytes of a block in a file: a scale in f16 and the numbers.
const STORED: usize = BlockType::Q8_0.bytes();
/// Blocks of depth taken at once: of 64 outputs they are 28 KB and stay in the first-level cache while the rows pass by.
const BLOCKS: usize = 12;
/// Rows of one register tile: 3 rows x 64 outputs are 12 registers of f32 sums and 12 of whole ones, 4 hold weights, 1 the input.
const ROWS: usize = 3;

/// Blocks of x whose largest number is no larger are zeros: 127 over it would be beyond f32.
const LEAST: f32 = 1e-36;

/// A block of x.
#[derive(Debug, Clone, Copy, Default)]
pub struct Block {
    /// Four numbers each, the first lowest.
    quads: [u32; QUADS],
    /// What the sums begin with, for weights are 128 too high.
    offset: i32,
    scale: f32,
}

/// A block of 64 outputs.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockLane {
    /// Four numbers each, 128 higher than they are.
    quads: [[u32; REGISTER_ROWS]; QUADS],
    scales: [f32; REGISTER_ROWS],
}

/// Zeros.
const EMPTY: BlockLane = BlockLane { quads: [[0x8080_8080; REGISTER_ROWS]; QUADS], scales: [0.0; REGISTER_ROWS] };

/// Whether this processor has the instruction.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}

/// Whether a weight of these blocks, from this input on, is multiplied so.
pub fn takes(kind: BlockType, first: usize, inputs: usize) -> bool {
    kind == BlockType::Q8_0 && first.is_multiple_of(BLOCK) && inputs.is_multiple_of(BLOCK)
}

/// Bytes of x in blocks, and of a panel of each task at work.
pub fn bytes(size: &Size, width: usize, at_once: usize) -> u64 {
    let (blocks, lanes) = (size.inputs / BLOCK, width.div_ceil(REGISTER_ROWS));
    (blocks * (size.rows * size_of::<Block>() + at_once * lanes * size_of::<BlockLane>())) as u64
}

/// x [rows, in] in blocks: [rows, in / 32].
pub fn round(x: &[f32]) -> Vec<Block> {
    let mut blocks = vec![Block::default(); x.len() / BLOCK];
    blocks.par_chunks_mut(1 << 10).zip(x.par_chunks(BLOCK << 10)).for_each(|(blocks, x)| round_blocks(x, blocks));
    blocks
}

multiversion! {
    /// Each 32 numbers as whole ones from -127 to 127, the nearest, times a scale; what is no number leaves none in its block.
    pub fn round_blocks<FMA>(x: &[f32], blocks: &mut [Block]) {
        for (block, x) in blocks.iter_mut().zip(x.as_chunks::<BLOCK>().0) {
            let (mut most, mut nothing) = (0.0_f32, 0.0);
            for value in x {
                most = if value.abs() > most { value.abs() } else { most };
                nothing += value * 0.0;
            }
            let inverse = if most > LEAST { 127.0 / most } else { 0.0 };
            let whole: [i8; BLOCK] = std::array::from_fn(|i| nearest(x[i] * inverse));
            let sum: i32 = whole.iter().map(|value| i32::from(*value)).sum();
            for (quad, bytes) in block.quads.iter_mut().zip(whole.as_chunks::<4>().0) {
                *quad = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
            }
            (block.offset, block.scale) = (-128 * sum, most / 127.0 + nothing);
        }
    }
}

/// The nearest whole number, ties to even, of one within 127.
#[inline(always)]
fn nearest(value: f32) -> i8 {
    /// 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    ((value + ROUND).to_bits() as u8).cast_signed()
}

/// Some rows of a matrix in Q8_0 whose first stored input that counts is `first`, as [rows / 64, blocks].
pub fn pack(size: &Size, bytes: &[u8], first: usize, rows: &Range<usize>) -> Vec<BlockLane> {
    let blocks = size.inputs / BLOCK;
    let mut packed = vec![EMPTY; rows.len().div_ceil(REGISTER_ROWS) * blocks];
    for (lanes, start) in packed.chunks_mut(blocks).zip(rows.clone().step_by(REGISTER_ROWS)) {
        for lane in 0..REGISTER_ROWS.min(rows.end - start) {
            let row = &bytes[(start + lane) * size.stride + first / BLOCK * STORED..];
            for (stored, block) in row.as_chunks::<STORED>().0.iter().zip(lanes.iter_mut()) {
                let [low, high, numbers @ ..] = stored;
                block.scales[lane] = f16::from_le_bytes([*low, *high]).to_f32();
                for (quad, bytes) in block.quads.iter_mut().zip(numbers.as_chunks::<4>().0) {
                    quad[lane] = u32::from_le_bytes(*bytes) ^ 0x8080_8080;
                }
            }
        }
    }
    packed
}

/// `out[row.., columns] = x [rows, blocks] · weight [blocks, 64]` for a matrix `out` of `outputs` columns; `corner` is the first row
/// and the columns, 64 at most.
///
/// # Safety
/// Nobody else uses these columns of these rows.
pub(crate) unsafe fn product(
    x: &[Block],
    weight: &[BlockLane],
    out: &SharedMut<'_>,
    corner: (usize, Range<usize>),
    outputs: usize,
) {
    let (depth, width, (row, columns)) = (weight.len(), corner.1.len(), corner);
    assert!(x.len().is_multiple_of(depth) && width <= REGISTER_ROWS, "x is [rows, blocks]");
    let is_fast = available();
    for (part, weight) in weight.chunks(BLOCKS).enumerate() {
        for (tile, x) in x.chunks(ROWS * depth).enumerate() {
            let rows = x.len() / depth;
            let out = out.corner((row + tile * ROWS) * outputs + columns.start, rows, width, outputs);
            let tile = Tile { x: &x[part * BLOCKS..], depth, weight, out, outputs, width, adds: part > 0 };
            // SAFETY: the corner was checked, and the processor asked.
            unsafe { if is_fast { tile.fast(rows) } else { tile.plain(rows) } };
        }
    }
}

/// One register tile: up to [`ROWS`] rows, 64 outputs, up to [`BLOCKS`] blocks.
struct Tile<'a> {
    x: &'a [Block],
    /// From one row of x to the next.
    depth: usize,
    weight: &'a [BlockLane],
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
    /// `out` points to `rows` rows of `width` numbers.
    unsafe fn plain(&self, rows: usize) {
        for row in 0..rows {
            let mut sums = [0.0; REGISTER_ROWS];
            plain_row(&self.x[row * self.depth..][..self.weight.len()], self.weight, &mut sums);
            // SAFETY: the caller's promise.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(row * self.outputs), self.width) };
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out = if self.adds { *out + sum } else { *sum };
            }
        }
    }

    /// # Safety
    /// As [`Tile::plain`]; the processor has the instruction ([`available`]).
    unsafe fn fast(&self, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => self.rows::<1>(),
                2 => self.rows::<2>(),
                _ => self.rows::<ROWS>(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no product of 8 bits for {rows} rows on this processor");
    }

    /// # Safety
    /// As [`Tile::fast`], for N rows.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vnni")]
    #[expect(clippy::needless_range_loop, reason = "vectors stay in registers")]
    unsafe fn rows<const N: usize>(&self) {
        use std::arch::x86_64::*;

        use super::simd::{read_row, write_row};
        assert!(self.x.len() >= (N - 1) * self.depth + self.weight.len());
        let mut sums = [[_mm512_setzero_ps(); 4]; N];
        for (k, lanes) in self.weight.iter().enumerate() {
            // SAFETY: within x, by the assertion above.
            let x: [&Block; N] = std::array::from_fn(|row| unsafe { self.x.get_unchecked(row * self.depth + k) });
            let mut whole = [[_mm512_setzero_si512(); 4]; N];
            for row in 0..N {
                whole[row] = [_mm512_set1_epi32(x[row].offset); 4];
            }
            for (q, quads) in lanes.quads.iter().enumerate() {
                // SAFETY: they are 64 groups.
                let weight = unsafe { read_row(quads.as_ptr()) };
                for row in 0..N {
                    let x = _mm512_set1_epi32(x[row].quads[q].cast_signed());
                    for i in 0..4 {
                        whole[row][i] = _mm512_dpbusd_epi32(whole[row][i], weight[i], x);
                    }
                }
            }
            for i in 0..4 {
                // SAFETY: 64 scales are four vectors.
                let scale = unsafe { _mm512_loadu_ps(lanes.scales.as_ptr().add(16 * i)) };
                for row in 0..N {
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x[row].scale));
                    sums[row][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[row][i]), scale, sums[row][i]);
                }
            }
        }
        for row in 0..N {
            // SAFETY: the caller's promise.
            unsafe { write_row(&sums[row], self.out.add(row * self.outputs), self.width, self.adds) };
        }
    }
}

multiversion! {
    /// One row of a tile by plain operations: the same sums in the same order.
    pub fn plain_row<FMA>(x: &[Block], weight: &[BlockLane], sums: &mut [f32; REGISTER_ROWS]) {
        for (x, lanes) in x.iter().zip(weight) {
            let mut whole = [x.offset; REGISTER_ROWS];
            for (x, quads) in x.quads.iter().zip(&lanes.quads) {
                let x = x.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
                for (sum, quad) in whole.iter_mut().zip(quads) {
                    let at = |byte: u32| (quad >> (8 * byte) & 0xFF).cast_signed();
                    *sum += at(0) * x[0] + at(1) * x[1] + at(2) * x[2] + at(3) * x[3];
                }
            }
            for lane in 0..REGISTER_ROWS {
                sums[lane] = mul_add::<FMA>(whole[lane] as f32, lanes.scales[lane] * x.scale, sums[lane]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize, phase: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37 + phase).sin() * (1.2 + (i as f32 * 0.011).cos())).collect()
    }

    /// A matrix of whole numbers of 8 bits and scales of f16, both of all signs.
    fn stored(rows: usize, row: usize) -> Vec<u8> {
        let byte = |i: usize| match i % row % STORED {
            0 => (i * 7) as u8,
            1 => 0x24 | (u8::from((i / STORED).is_multiple_of(3))) << 7,
            _ => (i * 31 + i / row * 5) as u8,
        };
        (0..rows * row).map(byte).collect()
    }

    #[test]
    fn x_is_rounded_to_half_a_step_of_its_block() {
        let mut x = wave(3 * BLOCK, 0.2);
        x[BLOCK..2 * BLOCK].fill(0.0);
        let blocks = round(&x);
        for (block, x) in blocks.iter().zip(x.as_chunks::<BLOCK>().0) {
            let bytes: Vec<i8> = block.quads.iter().flat_map(|q| q.to_le_bytes()).map(u8::cast_signed).collect();
            assert_eq!(block.offset, -128 * bytes.iter().map(|v| i32::from(*v)).sum::<i32>());
            let most = x.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            for (value, byte) in x.iter().zip(&bytes) {
                assert!((value - f32::from(*byte) * block.scale).abs() <= 0.5001 * most / 127.0, "{value} as {byte}");
            }
        }
        assert_eq!((blocks[1].scale, blocks[1].quads), (0.0, [0; QUADS]), "nothing stays nothing");
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = wave(BLOCK, 0.2);
            x[7] = strange;
            assert!(round(&x)[0].scale.is_nan(), "{strange} must not become a number");
        }
    }

    /// By the instruction and without it, to the last bit; and by f64, of the blocks as they are.
    #[test]
    fn products_are_those_of_the_blocks() {
        // Rows and outputs that are no whole tiles, blocks beyond one part, the first of them not counted.
        let (rows, outputs, first, inputs) = (8, 70, BLOCK, (BLOCKS + 3) * BLOCK);
        let stride = BlockType::Q8_0.bytes_of(first + inputs);
        let bytes = stored(outputs, stride);
        let size = Size { rows, inputs, outputs, stride };
        let (x, weight) = (round(&wave(rows * inputs, 0.4)), pack(&size, &bytes, first, &(0..outputs)));
        let mut numbers = vec![0.0; first + inputs];
        let depth = inputs / BLOCK;
        for (group, lanes) in weight.chunks(depth).enumerate() {
            let (start, width) = (group * REGISTER_ROWS, REGISTER_ROWS.min(outputs - group * REGISTER_ROWS));
            let (mut plain, mut found) = (vec![7.0; rows * width], vec![7.0; rows * width + 1]);
            let tiles = lanes.chunks(BLOCKS).enumerate();
            for (part, weight) in tiles {
                let (x, out) = (&x[part * BLOCKS..], plain.as_mut_ptr());
                // SAFETY: so many rows are there.
                unsafe { Tile { x, depth, weight, out, outputs: width, width, adds: part > 0 }.plain(rows) };
            }
            // SAFETY: out is borrowed mutably.
            unsafe { product(&x, lanes, &SharedMut::new(&mut found), (0, 0..width), width) };
            assert_eq!(found.pop(), Some(7.0), "beyond what was asked");
            assert!(found.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits()), "{found:?} for {plain:?}");
            for (at, found) in found.iter().enumerate() {
                let row = &bytes[(start + at % width) * stride..][..stride];
                BlockType::Q8_0.decode(row, &mut numbers);
                let x = x[at / width * depth..][..depth].iter().flat_map(|block| {
                    let bytes = block.quads.map(u32::to_le_bytes).concat();
                    bytes.into_iter().map(|v| f64::from(v.cast_signed()) * f64::from(block.scale))
                });
                let products = x.zip(&numbers[first..]).map(|(x, w)| x * f64::from(*w));
                let (sum, most) = products.fold((0.0, 0.0), |(sum, most), p: f64| (sum + p, most + p.abs()));
                assert!((f64::from(*found) - sum).abs() < 1e-6 * most, "{at}: {found} for {sum}");
            }
        }
    }
}
