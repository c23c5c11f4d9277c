//! Numbers of a LoRA file that are not what they must be: finite, and for alpha one, which may be a whole one.

use candle_core::{DType, Device, Tensor};

use super::{super::TensorSource, fit::OTHER_MODEL};
use crate::error::{Error, Result};

/// The number in a tensor of one, of floats or of integers.
pub(super) fn number(source: &dyn TensorSource, name: &str) -> Result<f64> {
    if is_whole_number(source, name) {
        let mut bytes = Vec::new();
        source.sample(name, true, &mut |part| bytes.extend_from_slice(part))?;
        let whole = source.type_name(name).and_then(|kind| whole_number(&kind, &bytes));
        return whole.ok_or_else(|| not_finite(source, name));
    }
    let tensor = source.load(name, DType::F32, &Device::Cpu)?.flatten_all()?;
    check_finite(&tensor, source, name)?;
    Ok(tensor.to_vec1::<f32>()?.first().copied().map_or(0.0, f64::from))
}

/// Whether a tensor is one integer, as some trainers write alpha.
pub(super) fn is_whole_number(source: &dyn TensorSource, name: &str) -> bool {
    let count = source.shape(name).map_or(0, |shape| shape.iter().product::<usize>());
    let bits = source.type_name(name).and_then(|kind| bits_of(&kind));
    count == 1 && bits.is_some()
}

/// "I64", "U8": whether it has a sign, and its bits.
fn bits_of(type_name: &str) -> Option<(bool, usize)> {
    let (kind, bits) = type_name.split_at_checked(1)?;
    let bits = bits.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?;
    matches!(kind, "I" | "U").then_some((kind == "I", bits))
}

fn whole_number(type_name: &str, bytes: &[u8]) -> Option<f64> {
    let (is_signed, bits) = bits_of(type_name)?;
    let is_negative = is_signed && bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if is_negative { 0xff } else { 0 }; 8];
    wide.get_mut(..bits / 8).filter(|wide| wide.len() == bytes.len())?.copy_from_slice(bytes);
    Some(if is_signed { i64::from_le_bytes(wide) as f64 } else { u64::from_le_bytes(wide) as f64 })
}

/// Rows that are looked at together where numbers are widened for it.
const PANEL: usize = 512;

/// No number is infinite, or none.
pub(super) fn check_finite(tensor: &Tensor, source: &dyn TensorSource, name: &str) -> Result<()> {
    let rows = tensor.dims().first().copied().unwrap_or(0);
    for start in (0..rows).step_by(PANEL) {
        let panel = tensor.narrow(0, start, PANEL.min(rows - start))?.to_dtype(DType::F32)?;
        // What is finite times 0 is 0, and only that.
        let sum = (panel * 0.0)?.sum_all()?.to_scalar::<f32>()?;
        if sum != 0.0 {
            return Err(not_finite(source, name));
        }
    }
    Ok(())
}

fn not_finite(source: &dyn TensorSource, name: &str) -> Error {
    let what = format!("{}: tensor {name} holds numbers that are not finite", source.describe());
    Error::model(what, OTHER_MODEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_in_every_width() {
        for (kind, bytes, number) in [
            ("I64", &16_i64.to_le_bytes()[..], Some(16.0)),
            ("I64", &(-1_i64).to_le_bytes(), Some(-1.0)),
            ("I8", &[0x80], Some(-128.0)),
            ("U8", &[0x80], Some(128.0)),
            ("I32", &8_i32.to_le_bytes(), Some(8.0)),
            ("I32", &8_i64.to_le_bytes(), None),
            ("F32", &8_i32.to_le_bytes(), None),
            ("BOOL", &[1], None),
        ] {
            assert_eq!(whole_number(kind, bytes), number, "{kind} {bytes:?}");
        }
    }
}
