//! How many elements a device can count: in one place, for plans and for the checks while something runs.
//!
//! On CUDA two limits hold. What a kernel is launched over (softmax, norms, rotation, casts, anything elementwise) stays
//! below 2^31 elements: candle's kernels index rows with a signed int. Buffers that are only cleared, copied in slices and
//! multiplied stay below 2^32: launches count in 32 unsigned bits. A CPU counts in 64 bits and has neither limit; Metal's
//! kernels count in 32 bits like CUDA's, and are held to the same.

use super::device::DeviceKind;
use crate::error::{Error, Result};

/// Elements that a kernel on an accelerator may be launched over: fewer than these.
pub const LAUNCH_ELEMENTS: u64 = 1 << 31;
/// Elements of any buffer on an accelerator: fewer than these.
pub const BUFFER_ELEMENTS: u64 = 1 << 32;

/// Whether a device of this kind counts a launch over at most `launched` elements and buffers of at most `held`.
pub fn are_countable(kind: DeviceKind, launched: u64, held: u64) -> bool {
    kind.is_cpu() || (launched < LAUNCH_ELEMENTS && held < BUFFER_ELEMENTS)
}

/// Refuses a buffer of more elements than a device of this kind counts.
///
/// # Errors
/// [`Error::Memory`] for such a shape.
pub fn check_buffer(kind: DeviceKind, shape: &[usize]) -> Result<()> {
    check(kind, shape, BUFFER_ELEMENTS, "a buffer holds")
}

/// Refuses a launch over more elements than a device of this kind counts.
///
/// # Errors
/// [`Error::Memory`] for such a shape.
pub fn check_launch(kind: DeviceKind, shape: &[usize]) -> Result<()> {
    check(kind, shape, LAUNCH_ELEMENTS, "a kernel is launched over")
}

fn check(kind: DeviceKind, shape: &[usize], limit: u64, what: &str) -> Result<()> {
    let elements = shape.iter().fold(1_u128, |product, n| product.saturating_mul(*n as u128));
    if kind.is_cpu() || elements < u128::from(limit) {
        return Ok(());
    }
    Err(Error::Memory {
        what: format!("{what} at most {limit} elements on {}, and shape {shape:?} has {elements}", kind.name()),
        hint: "ask for a smaller picture".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: DeviceKind = DeviceKind::Cuda { capability: (9, 0) };

    #[test]
    fn a_card_counts_launches_in_31_bits_and_buffers_in_32() {
        assert!(are_countable(CARD, (1 << 31) - 1, (1 << 32) - 1));
        assert!(!are_countable(CARD, 1 << 31, 0) && !are_countable(CARD, 0, 1 << 32));
        check_launch(CARD, &[65_536, 32_767]).expect("2^31 - 2^16 elements");
        check_buffer(CARD, &[65_535, 65_537]).expect("2^32 - 1 elements");
        let error = check_buffer(CARD, &[256, 4096, 4096]).expect_err("2^32 elements");
        assert!(error.to_string().contains("4294967296"), "{error}");
        assert!(check_launch(CARD, &[65_536, 32_768]).is_err());
        assert!(check_buffer(CARD, &[usize::MAX, usize::MAX, usize::MAX]).is_err());
    }

    #[test]
    fn a_processor_counts_further_than_its_memory() {
        assert!(are_countable(DeviceKind::Cpu, u64::MAX, u64::MAX));
        check_launch(DeviceKind::Cpu, &[1 << 20, 1 << 20]).expect("no limit");
        check_buffer(DeviceKind::Cpu, &[1 << 20, 1 << 20]).expect("no limit");
    }
}
