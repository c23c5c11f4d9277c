//! Numbers quantised in blocks, as GGUF files have them: a few bits for each, and scales that they share.
//!
//! A block is 32 numbers, or 256 that are 8 groups of 32; either way numbers are decoded 32 at a time, in f32. Source of all
//! layouts: ggml-org/llama.cpp, `ggml-common.h` and `dequantize_row_*` of `ggml-quants.c`.

use candle_core::quantized::GgmlDType;
use half::f16;

use crate::base::simd::multiversion;

/// Numbers that are decoded at a time.
pub(crate) const GROUP: usize = 32;

/// A kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockType {
    /// 4 bits, a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits, a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits, a scale.
    Q8_0,
    /// 2 bits; scales and minima of 4 bits for each 16.
    Q2K,
    /// 3 bits; scales of 6 bits for each 16.
    Q3K,
    /// 4 bits; scales and minima of 6 bits for each 32.
    Q4K,
    /// 5 bits; scales and minima of 6 bits for each 32.
    Q5K,
    /// 6 bits; scales of 8 bits for each 16.
    Q6K,
    /// 4 bits that number 16 values, a scale.
    Iq4Nl,
    /// 4 bits that number 16 values; scales of 6 bits for each 32.
    Iq4Xs,
}

/// The values that the codes of the IQ4 kinds stand for. Source: ggml-common.h, `kvalues_iq4nl`.
const IQ4_VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// 32 numbers.
type Group = [f32; GROUP];

impl BlockType {
    /// Every kind that is read.
    pub const ALL: [Self; 12] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
    ];

    /// What ggml calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Iq4Xs => "IQ4_XS",
        }
    }

    /// What candle calls it, if it knows it: it makes such blocks, and widens them on any device.
    pub const fn candle(self) -> Option<GgmlDType> {
        Some(match self {
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            Self::Iq4Nl | Self::Iq4Xs => return None,
        })
    }

    /// Numbers of a block.
    pub const fn numbers(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl => GROUP,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K | Self::Iq4Xs => 8 * GROUP,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Iq4Xs => 136,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of so many numbers in whole blocks.
    pub const fn bytes_of(self, numbers: usize) -> usize {
        numbers / self.numbers() * self.bytes()
    }

    /// The numbers of whole blocks.
    pub fn decode(self, blocks: &[u8], out: &mut [f32]) {
        decode(self, blocks, out);
    }

    /// The same, compiled anew for the instructions of whoever calls it.
    #[inline(always)]
    fn decode_inline(self, blocks: &[u8], out: &mut [f32]) {
        match self {
            Self::Q4_0 => each::<18, 1>(blocks, out, q4_0),
            Self::Q4_1 => each::<20, 1>(blocks, out, q4_1),
            Self::Q5_0 => each::<22, 1>(blocks, out, q5_0),
            Self::Q5_1 => each::<24, 1>(blocks, out, q5_1),
            Self::Q8_0 => each::<34, 1>(blocks, out, q8_0),
            Self::Q2K => each::<84, 8>(blocks, out, q2_k),
            Self::Q3K => each::<110, 8>(blocks, out, q3_k),
            Self::Q4K => each::<144, 8>(blocks, out, q4_k),
            Self::Q5K => each::<176, 8>(blocks, out, q5_k),
            Self::Q6K => each::<210, 8>(blocks, out, q6_k),
            Self::Iq4Nl => each::<18, 1>(blocks, out, iq4_nl),
            Self::Iq4Xs => each::<136, 8>(blocks, out, iq4_xs),
        }
    }
}

multiversion! {
    /// The numbers of whole blocks.
    pub fn decode<FMA>(kind: BlockType, blocks: &[u8], out: &mut [f32]) {
        // Multiplied and added one after the other everywhere, so that the numbers are the same on all processors.
        kind.decode_inline(blocks, out);
    }
}

/// Decodes blocks of `BYTES` bytes and `GROUPS` groups.
#[inline(always)]
fn each<const BYTES: usize, const GROUPS: usize>(
    blocks: &[u8],
    out: &mut [f32],
    group: impl Fn(&[u8; BYTES], usize, &mut Group),
) {
    let groups = out.as_chunks_mut::<GROUP>().0;
    for (block, groups) in blocks.as_chunks::<BYTES>().0.iter().zip(groups.chunks_exact_mut(GROUPS)) {
        for (index, out) in groups.iter_mut().enumerate() {
            group(block, index, out);
        }
    }
}

/// The f16 at a byte.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `N` bytes from one on.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    let (bytes, _) = block[at..].split_first_chunk::<N>().expect("a group lies within its block");
    bytes
}

/// The low halves of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(codes: &[u8; 16], out: &mut Group, number: impl Fn(usize, u8) -> f32) {
    for (i, code) in codes.iter().enumerate() {
        out[i] = number(i, code & 15);
        out[i + 16] = number(i + 16, code >> 4);
    }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], _: usize, out: &mut Group) {
    let scale = half_at(block, 0);
    nibbles(bytes(block, 2), out, |_, code| (i32::from(code) - 8) as f32 * scale);
}

#[inline(always)]
fn q4_1(block: &[u8; 20], _: usize, out: &mut Group) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    nibbles(bytes(block, 4), out, |_, code| f32::from(code) * scale + least);
}

/// The fifth bit of number `i`, in its place.
#[inline(always)]
fn fifth(bits: &[u8; 4], i: usize) -> u8 {
    ((u32::from_le_bytes(*bits) >> i & 1) << 4) as u8
}

#[inline(always)]
fn q5_0(block: &[u8; 22], _: usize, out: &mut Group) {
    let (scale, high) = (half_at(block, 0), bytes(block, 2));
    nibbles(bytes(block, 6), out, |i, code| (i32::from(code | fifth(high, i)) - 16) as f32 * scale);
}

#[inline(always)]
fn q5_1(block: &[u8; 24], _: usize, out: &mut Group) {
    let (scale, least, high) = (half_at(block, 0), half_at(block, 2), bytes(block, 4));
    nibbles(bytes(block, 8), out, |i, code| f32::from(code | fifth(high, i)) * scale + least);
}

#[inline(always)]
fn q8_0(block: &[u8; 34], _: usize, out: &mut Group) {
    let scale = half_at(block, 0);
    for (out, code) in out.iter_mut().zip(bytes::<32>(block, 2)) {
        *out = f32::from(*code as i8) * scale;
    }
}

/// Scales and minima of 4 bits for each 16, 2 bits a number, then both their scales.
#[inline(always)]
fn q2_k(block: &[u8; 84], group: usize, out: &mut Group) {
    let (scale, least) = (half_at(block, 80), half_at(block, 82));
    let (codes, shift) = (bytes::<32>(block, 16 + 32 * (group / 4)), 2 * (group % 4));
    for (half, (out, codes)) in out.chunks_exact_mut(16).zip(codes.chunks_exact(16)).enumerate() {
        let both = block[2 * group + half];
        let (scale, least) = (scale * f32::from(both & 15), least * f32::from(both >> 4));
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> shift & 3) - least;
        }
    }
}

/// The third bits of all, 2 bits a number, scales of 6 bits for each 16, then their scale.
#[inline(always)]
fn q3_k(block: &[u8; 110], group: usize, out: &mut Group) {
    let (scale, packed) = (half_at(block, 108), bytes::<12>(block, 96));
    let (third, codes) = (bytes::<32>(block, 0), bytes::<32>(block, 32 + 32 * (group / 4)));
    for half in 0..2 {
        let index = 2 * group + half;
        let low = packed[index % 8] >> (4 * (index / 8)) & 15;
        let high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
        let scale = scale * (i32::from(low | high << 4) - 32) as f32;
        for i in 16 * half..16 * half + 16 {
            let code = codes[i] >> (2 * (group % 4)) & 3 | (third[i] >> group & 1) << 2;
            out[i] = scale * (i32::from(code) - 4) as f32;
        }
    }
}

/// The scale and the minimum of a group, of 6 bits each, as Q4_K and Q5_K pack them.
#[inline(always)]
fn scale_and_least(packed: &[u8; 12], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let both = packed[group + 4];
        (both & 15 | packed[group - 4] >> 6 << 4, both >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(least))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], group: usize, out: &mut Group) {
    let (scale, least) = scale_and_least(bytes(block, 4), group);
    let (scale, least) = (half_at(block, 0) * scale, half_at(block, 2) * least);
    let (codes, shift) = (bytes::<32>(block, 16 + 32 * (group / 2)), 4 * (group % 2));
    for (out, code) in out.iter_mut().zip(codes) {
        *out = scale * f32::from(code >> shift & 15) - least;
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], group: usize, out: &mut Group) {
    let (scale, least) = scale_and_least(bytes(block, 4), group);
    let (scale, least) = (half_at(block, 0) * scale, half_at(block, 2) * least);
    let (codes, shift) = (bytes::<32>(block, 48 + 32 * (group / 2)), 4 * (group % 2));
    for ((out, code), high) in out.iter_mut().zip(codes).zip(bytes::<32>(block, 16)) {
        *out = scale * f32::from(code >> shift & 15 | (high >> group & 1) << 4) - least;
    }
}

/// The low 4 bits of all, their high 2 bits, scales of 8 bits for each 16, then their scale.
#[inline(always)]
fn q6_k(block: &[u8; 210], group: usize, out: &mut Group) {
    let (half, quarter) = (group / 4, group % 4);
    let low = bytes::<32>(block, 64 * half + 32 * (quarter % 2));
    let high = bytes::<32>(block, 128 + 32 * half);
    let scale = half_at(block, 208);
    for part in 0..2 {
        let scale = scale * f32::from(block[192 + 2 * group + part] as i8);
        for i in 16 * part..16 * part + 16 {
            let code = low[i] >> (4 * (quarter / 2)) & 15 | (high[i] >> (2 * quarter) & 3) << 4;
            out[i] = scale * (i32::from(code) - 32) as f32;
        }
    }
}

#[inline(always)]
fn iq4_nl(block: &[u8; 18], _: usize, out: &mut Group) {
    let scale = half_at(block, 0);
    nibbles(bytes(block, 2), out, |_, code| scale * IQ4_VALUES[usize::from(code)]);
}

#[inline(always)]
fn iq4_xs(block: &[u8; 136], group: usize, out: &mut Group) {
    let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
    let high = (u16::from_le_bytes([block[2], block[3]]) >> (2 * group) & 3) as u8;
    let scale = half_at(block, 0) * (i32::from(low | high << 4) - 32) as f32;
    nibbles(bytes(block, 8 + 16 * group), out, |_, code| scale * IQ4_VALUES[usize::from(code)]);
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::{
        Device,
        quantized::{QStorage, QTensor},
    };

    use super::*;

    /// Any bytes are blocks; halves with an exponent of all ones, which are no numbers, are cleared of it.
    fn random(kind: BlockType, blocks: usize) -> Vec<u8> {
        let mut state = 7_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut bytes: Vec<u8> = (0..blocks * kind.bytes()).map(|_| byte()).collect();
        let halves: &[usize] = match kind {
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[1, 3],
            BlockType::Q2K => &[81, 83],
            BlockType::Q3K => &[109],
            BlockType::Q6K => &[209],
            _ => &[1],
        };
        for block in bytes.chunks_mut(kind.bytes()) {
            halves.iter().for_each(|at| block[*at] &= !0x40);
        }
        bytes
    }

    #[test]
    fn every_kind_agrees_with_candle_s() {
        let known = [
            (BlockType::Q4_0, GgmlDType::Q4_0),
            (BlockType::Q4_1, GgmlDType::Q4_1),
            (BlockType::Q5_0, GgmlDType::Q5_0),
            (BlockType::Q5_1, GgmlDType::Q5_1),
            (BlockType::Q8_0, GgmlDType::Q8_0),
            (BlockType::Q2K, GgmlDType::Q2K),
            (BlockType::Q3K, GgmlDType::Q3K),
            (BlockType::Q4K, GgmlDType::Q4K),
            (BlockType::Q5K, GgmlDType::Q5K),
            (BlockType::Q6K, GgmlDType::Q6K),
        ];
        for (kind, theirs) in known {
            assert_eq!(kind.candle(), Some(theirs), "{kind:?}");
            assert_eq!((kind.bytes(), kind.numbers()), (theirs.type_size(), theirs.block_size()), "{kind:?}");
            let (rows, columns) = (3, 2 * kind.numbers());
            let bytes = random(kind, rows * 2);
            let mut ours = vec![0.0; rows * columns];
            kind.decode(&bytes, &mut ours);
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, theirs).expect("blocks");
            let theirs =
                QTensor::new(storage, (rows, columns)).and_then(|t| t.dequantize(&Device::Cpu)).expect("numbers");
            let theirs: Vec<f32> = theirs.flatten_all().and_then(|t| t.to_vec1()).expect("f32");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1e-30), "{kind:?}: {ours} {theirs}");
            }
        }
    }
}
