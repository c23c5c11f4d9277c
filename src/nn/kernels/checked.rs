//! Kernels of our own that are held against plain operations before they are trusted with a picture, each for itself in each number type.

use candle_core::DType;

use super::refused::Refused;
use crate::base::device::DeviceKind;

/// One of the kernels of a file.
pub trait Checked: Copy + PartialEq + 'static {
    /// All there are.
    const ALL: &'static [Self];

    /// What its file calls it.
    fn name(self) -> &'static str;

    /// What failed its check on this machine.
    fn refused() -> &'static Refused<(Self, DType)>;

    /// Says that it is not to be used for numbers of this type.
    fn refuse(self, dtype: DType) {
        Self::refused().add((self, dtype));
    }

    /// Whether it is sound, and takes numbers of this type on such a device.
    fn takes(self, kind: DeviceKind, dtype: DType) -> bool {
        matches!(kind, DeviceKind::Cuda { capability } if capability >= super::OWN_CAPABILITY)
            && word(dtype).is_some()
            && !Self::refused().has(&(self, dtype))
    }
}

/// What files of kernels call a number type they have kernels for.
pub fn word(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::BF16 => Some("bf16"),
        DType::F16 => Some("f16"),
        _ => None,
    }
}
