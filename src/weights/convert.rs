//! From the bytes of a file to numbers of the wanted type: one allocation, no copy between.

use candle_core::{DType, Device, Tensor};
use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
    vec::HalfBitsVecExt,
};
use rayon::prelude::*;
use safetensors::Dtype;

use super::{BlockType, Float8, number::NumberType};
use crate::error::{Error, Result};

/// Numbers one thread converts at a time: small enough for its second-level cache, large enough to be worth a task.
const TASK: usize = 1 << 16;
/// Numbers that pass through the f32 buffer on the stack at a time: whole blocks, of any kind.
const PIECE: usize = 512;

/// The dtype candle knows under another name, if it knows it.
pub(super) fn candle_dtype(dtype: Dtype) -> Option<DType> {
    DType::try_from(dtype).ok()
}

/// Whether numbers of this type can be weights.
pub(super) fn is_weight(dtype: Dtype) -> bool {
    plain_decoder(dtype).is_some()
}

/// The numbers in `bytes`, times `scale`, as a tensor of `shape` in `to` on `device`.
///
/// # Errors
/// [`Error::Model`] when `from` is no float type or `to` no type to compute in, [`Error::Tensor`] from the device.
pub(super) fn tensor(
    bytes: &[u8],
    from: NumberType,
    scale: Option<f32>,
    shape: &[usize],
    to: DType,
    device: &Device,
) -> Result<Tensor> {
    let decode = decoder(from).ok_or_else(|| {
        let hint = "give a file in F32, BF16, F16 or F8_E4M3, or a GGUF file in Q8_0 or Q4_K";
        Error::model(format!("numbers of type {from} cannot be weights"), hint)
    })?;
    let same = scale.is_none() && matches!(from, NumberType::Plain(from) if candle_dtype(from) == Some(to));
    // Of two roundings in a row the first must leave what the second decides by.
    let is_rounded_twice = scale.is_none() && matches!(to, DType::BF16 | DType::F16);
    let decode = match from {
        NumberType::Plain(Dtype::F64) if is_rounded_twice => Decode::Plain(|bytes, out| each(bytes, out, to_odd), 8),
        _ => decode,
    };
    let cx = Conversion { bytes, decode, scale };
    let tensor = match to {
        DType::F32 if same => Tensor::from_vec(copy(bytes, f32::from_le_bytes), shape, device),
        DType::BF16 if same => {
            Tensor::from_vec(copy(bytes, u16::from_le_bytes).reinterpret_into::<bf16>(), shape, device)
        }
        DType::F16 if same => {
            Tensor::from_vec(copy(bytes, u16::from_le_bytes).reinterpret_into::<f16>(), shape, device)
        }
        DType::F64 if same => Tensor::from_vec(copy(bytes, f64::from_le_bytes), shape, device),
        // Codes, which stand for numbers once they are looked up and multiplied by their scale.
        DType::U8 if matches!(from, NumberType::Plain(Dtype::F8_E4M3 | Dtype::F8_E5M2)) => {
            Tensor::from_raw_buffer(bytes, to, shape, device)
        }
        DType::F32 => Tensor::from_vec(cx.widen(), shape, device),
        DType::BF16 => Tensor::from_vec(cx.map(to_bf16_bits).reinterpret_into::<bf16>(), shape, device),
        DType::F16 => Tensor::from_vec(cx.map(to_f16_bits).reinterpret_into::<f16>(), shape, device),
        DType::F64 => Tensor::from_vec(cx.map(to_f64), shape, device),
        other => {
            let what = format!("weights cannot be loaded as {}", other.as_str());
            return Err(Error::model(what, "choose f32, bf16 or f16"));
        }
    };
    Ok(tensor?)
}

/// Little-endian numbers of `W` bytes, unchanged.
fn copy<const W: usize, T: Copy + Default + Send + Sync>(bytes: &[u8], read: fn([u8; W]) -> T) -> Vec<T> {
    let mut out = vec![T::default(); bytes.len() / W];
    out.par_chunks_mut(TASK).zip(bytes.par_chunks(TASK * W)).for_each(|(out, bytes)| {
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<W>().0) {
            *out = read(*bytes);
        }
    });
    out
}

/// Widens little-endian numbers to f32.
type Widen = fn(&[u8], &mut [f32]);

/// How numbers are widened to f32.
#[derive(Clone, Copy)]
enum Decode {
    /// One by one, of so many bytes each.
    Plain(Widen, usize),
    Blocks(BlockType),
}

impl Decode {
    /// Bytes of so many numbers, in whole blocks.
    fn bytes_of(self, numbers: usize) -> usize {
        match self {
            Self::Plain(_, width) => numbers * width,
            Self::Blocks(kind) => kind.bytes_of(numbers),
        }
    }

    /// Numbers in so many bytes.
    fn numbers_in(self, bytes: usize) -> usize {
        match self {
            Self::Plain(_, width) => bytes / width,
            Self::Blocks(kind) => bytes / kind.bytes() * kind.numbers(),
        }
    }
}

/// A run of numbers on its way from one type to another.
struct Conversion<'a> {
    bytes: &'a [u8],
    decode: Decode,
    scale: Option<f32>,
}

impl Conversion<'_> {
    /// As f32.
    fn widen(&self) -> Vec<f32> {
        let mut out = vec![0_f32; self.decode.numbers_in(self.bytes.len())];
        out.par_chunks_mut(TASK)
            .zip(self.bytes.par_chunks(self.decode.bytes_of(TASK)))
            .for_each(|(out, bytes)| self.decode_scaled(bytes, out));
        out
    }

    /// As another type, through f32.
    fn map<T: Copy + Default + Send + Sync>(&self, encode: fn(&[f32], &mut [T])) -> Vec<T> {
        let mut out = vec![T::default(); self.decode.numbers_in(self.bytes.len())];
        let bytes_of = |numbers| self.decode.bytes_of(numbers);
        out.par_chunks_mut(TASK).zip(self.bytes.par_chunks(bytes_of(TASK))).for_each(|(out, bytes)| {
            let mut buffer = [0_f32; PIECE];
            for (out, bytes) in out.chunks_mut(PIECE).zip(bytes.chunks(bytes_of(PIECE))) {
                let piece = &mut buffer[..out.len()];
                self.decode_scaled(bytes, piece);
                encode(piece, out);
            }
        });
        out
    }

    fn decode_scaled(&self, bytes: &[u8], out: &mut [f32]) {
        match self.decode {
            Decode::Plain(widen, _) => widen(bytes, out),
            Decode::Blocks(kind) => kind.decode(bytes, out),
        }
        if let Some(scale) = self.scale {
            out.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// How to widen numbers to f32; `None` for types that cannot be weights.
fn decoder(numbers: NumberType) -> Option<Decode> {
    match numbers {
        NumberType::Plain(dtype) => Some(Decode::Plain(plain_decoder(dtype)?, dtype.bitsize() / 8)),
        NumberType::Blocks(kind) => Some(Decode::Blocks(kind)),
        NumberType::Unread(_) => None,
    }
}

/// How to widen a float type to f32; `None` for types that cannot be weights.
fn plain_decoder(dtype: Dtype) -> Option<Widen> {
    Some(match dtype {
        Dtype::F32 => |bytes, out| each(bytes, out, f32::from_le_bytes),
        Dtype::F64 => |bytes, out| each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        // A bf16 is the upper half of an f32.
        Dtype::BF16 => |bytes, out| each(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F16 => decode_f16,
        Dtype::F8_E4M3 => |bytes, out| each(bytes, out, |[b]| Float8::E4M3.numbers()[usize::from(b)]),
        Dtype::F8_E5M2 => |bytes, out| each(bytes, out, |[b]| Float8::E5M2.numbers()[usize::from(b)]),
        _ => return None,
    })
}

/// An f64 as an f32 that another rounding may follow: cut, with the last bit set where it is not exact (rounding to odd).
fn to_odd(bytes: [u8; 8]) -> f32 {
    let exact = f64::from_le_bytes(bytes);
    let nearest = exact as f32;
    if f64::from(nearest) == exact || !nearest.is_finite() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > exact.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

fn each<const W: usize>(bytes: &[u8], out: &mut [f32], widen: impl Fn([u8; W]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<W>().0) {
        *out = widen(*bytes);
    }
}

/// Through half's slice conversion, which uses the processor's own instruction where it has one.
fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    let mut raw = [0_u16; PIECE];
    for (out, bytes) in out.chunks_mut(PIECE).zip(bytes.chunks(2 * PIECE)) {
        let raw = &mut raw[..out.len()];
        for (raw, bytes) in raw.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *raw = u16::from_le_bytes(*bytes);
        }
        raw.reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

fn to_bf16_bits(from: &[f32], to: &mut [u16]) {
    to.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(from);
}

fn to_f16_bits(from: &[f32], to: &mut [u16]) {
    to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(from);
}

fn to_f64(from: &[f32], to: &mut [f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f64::from(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(bytes: &[u8], from: Dtype, scale: Option<f32>) -> Vec<f32> {
        let n = bytes.len() * 8 / from.bitsize();
        let t = tensor(bytes, NumberType::Plain(from), scale, &[n], DType::F32, &Device::Cpu).expect("converts");
        t.to_vec1().expect("f32")
    }

    #[test]
    fn f8_e4m3_has_the_published_extremes() {
        // arXiv 2209.05433, table 1.
        let values = f32s(&[0x00, 0x01, 0x07, 0x08, 0x38, 0x7e, 0xfe, 0x80], Dtype::F8_E4M3, None);
        let expected = [0.0, 2f32.powi(-9), 0.875 * 2f32.powi(-6), 2f32.powi(-6), 1.0, 448.0, -448.0, -0.0];
        assert_eq!(values, expected);
        assert!(f32s(&[0x7f], Dtype::F8_E4M3, None)[0].is_nan());
    }

    #[test]
    fn f8_e5m2_has_the_published_extremes() {
        // arXiv 2209.05433, table 1: max 57344, smallest 2^-16, with infinities.
        assert_eq!(
            f32s(&[0x7b, 0x01, 0x3c, 0x7c], Dtype::F8_E5M2, None),
            [57344.0, 2f32.powi(-16), 1.0, f32::INFINITY]
        );
    }

    #[test]
    fn a_scale_multiplies() {
        assert_eq!(f32s(&[0x38, 0x7e], Dtype::F8_E4M3, Some(0.5)), [0.5, 224.0]);
    }

    /// More numbers than a task, so that the seams between tasks and pieces are crossed.
    fn numbers() -> Vec<f32> {
        (0..2 * TASK + 3 * PIECE + 5).map(|i| (i as f32 * 0.37).sin() * (i % 977) as f32).collect()
    }

    #[test]
    fn every_pair_agrees_with_candle_s_own_casts() {
        let numbers = numbers();
        let n = numbers.len();
        let source = Tensor::from_vec(numbers, n, &Device::Cpu).expect("tensor");
        let kinds = [DType::F32, DType::BF16, DType::F16, DType::F64];
        for from in kinds {
            let held = source.to_dtype(from).expect("cast");
            let bytes = safetensors::serialize([("x", &held)], None).expect("bytes");
            let file = safetensors::SafeTensors::deserialize(&bytes).expect("file");
            let view = file.tensor("x").expect("x");
            for to in kinds {
                let ours =
                    tensor(view.data(), NumberType::Plain(view.dtype()), None, &[n], to, &Device::Cpu).expect("ours");
                // half 2.7's f64 -> bf16 drops the lower 32 bits before it rounds (168.50009 becomes 168, not 169), so
                // candle goes through f32 here. The numbers were f32, so that step is exact.
                let through = if from == DType::F64 && to != DType::F64 { DType::F32 } else { from };
                let theirs = held.to_dtype(through).and_then(|t| t.to_dtype(to)).expect("theirs");
                assert_eq!(ours.dtype(), to);
                let wide = |t: &Tensor| t.to_dtype(DType::F64).and_then(|t| t.to_vec1::<f64>()).expect("f64");
                let (ours, theirs) = (wide(&ours), wide(&theirs));
                let first = (0..n).find(|&i| ours[i] != theirs[i]).map(|i| (i, wide(&held)[i], ours[i], theirs[i]));
                assert_eq!(first, None, "{from:?} -> {to:?}: index, stored, ours, candle's");
            }
        }
    }

    /// Through f32 alone these would become ties first: 1 + 2^-8 is as near to 1 as to 1 + 2^-7.
    #[test]
    fn eight_bytes_become_two_by_one_rounding() {
        let near = [
            1.0 + 2f64.powi(-8) + 2f64.powi(-40),
            -1.0 - 2f64.powi(-8) - 2f64.powi(-40),
            1.0 + 2f64.powi(-8) - 2f64.powi(-40),
        ];
        let bytes: Vec<u8> = near.iter().flat_map(|x| x.to_le_bytes()).collect();
        let t = tensor(&bytes, NumberType::Plain(Dtype::F64), None, &[3], DType::BF16, &Device::Cpu).expect("converts");
        let rounded: Vec<f32> = t.to_dtype(DType::F32).and_then(|t| t.to_vec1()).expect("f32");
        assert_eq!(rounded, [1.0 + 2f32.powi(-7), -1.0 - 2f32.powi(-7), 1.0]);
        assert_eq!(to_odd(f64::INFINITY.to_le_bytes()), f32::INFINITY);
        assert_eq!(to_odd(1e-320f64.to_le_bytes()), f32::from_bits(1));
    }

    /// bf16 has steps of 1 between 128 and 256: to the nearest, and a tie to the even neighbour.
    #[test]
    fn halves_are_rounded_to_the_nearest() {
        let bytes: Vec<u8> = [168.500_091_552_734_38_f64, 168.5, 169.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        let t = tensor(&bytes, NumberType::Plain(Dtype::F64), None, &[3], DType::BF16, &Device::Cpu).expect("converts");
        let rounded: Vec<f32> = t.to_dtype(DType::F32).and_then(|t| t.to_vec1()).expect("f32");
        assert_eq!(rounded, [169.0, 168.0, 170.0]);
    }

    #[test]
    fn integers_are_no_weights() {
        assert!(!is_weight(Dtype::I64) && !is_weight(Dtype::U8) && is_weight(Dtype::F8_E4M3));
        let plain = NumberType::Plain;
        assert!(tensor(&[0; 8], plain(Dtype::I64), None, &[1], DType::F32, &Device::Cpu).is_err());
        assert!(tensor(&[0; 4], plain(Dtype::F32), None, &[1], DType::U8, &Device::Cpu).is_err());
    }
}
