//! FlashAttention-2 (Dao 2023, arXiv 2307.08691) on CUDA: attention whose scores never leave the chip.
//!
//! A kernel of our own does it in every program that computes on CUDA ([`own`]); candle-flash-attn's, where they are built in, go
//! first for what they take ([`library`]). Each (kernel, number type, width) is held against the plain attention once, before a
//! model is loaded ([`crate::nn::settle_attention`]); one that fails is not used.

#[cfg(feature = "cuda")]
mod launch;
pub mod library;
pub mod own;

use candle_core::DType;

use super::refused::Refused;
use crate::{
    base::device::DeviceKind,
    error::Result,
    nn::{Array, Attention},
};

/// Whose kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flash {
    /// candle-flash-attn's.
    Library,
    /// Our own.
    Own,
}

/// What failed its check on this machine.
static REFUSED: Refused<(Flash, DType, usize)> = Refused::new();

impl Flash {
    /// All there are, in the order they are asked.
    pub const ALL: [Self; 2] = [Self::Library, Self::Own];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Library => "flash-attn",
            Self::Own => "dype's own kernel",
        }
    }

    /// Says that it is not to be used for heads of `channels` channels in this number type.
    pub(in crate::nn) fn refuse(self, dtype: DType, channels: usize) {
        REFUSED.add((self, dtype, channels));
    }

    /// Whether it is there and sound, and takes heads of `channels` channels in this number type on such a device.
    pub fn takes(self, kind: DeviceKind, dtype: DType, channels: usize) -> bool {
        let has_width = match self {
            Self::Library => library::has_width(channels),
            Self::Own => own::has_width(channels),
        };
        has_width
            // candle-flash-attn's are for the same cards (Dao-AILab/flash-attention, "Ampere, Ada, or Hopper GPUs").
            && matches!(kind, DeviceKind::Cuda { capability } if capability >= super::OWN_CAPABILITY)
            && matches!(dtype, DType::BF16 | DType::F16)
            && !REFUSED.has(&(self, dtype, channels))
    }

    /// Attention of q [H, C, D], k and v [K, N, D] as [C, H·D]; `None` where it does not take such arrays or such a bias.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn attention(self, q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Option<Array>> {
        if q.is_cpu() || !self.takes(q.place().kind(), q.dtype(), q.dims3()?.2) {
            return Ok(None);
        }
        match self {
            Self::Library => library::attention(q, k, v, how),
            Self::Own => own::attention(q, k, v, how),
        }
    }
}

/// Attention by the first that takes it; `None` where none does.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Option<Array>> {
    for flash in Flash::ALL {
        if let Some(out) = flash.attention(q, k, v, how)? {
            return Ok(Some(out));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::nn::AttentionTiles;

    const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 6) };

    #[test]
    fn only_half_precision_heads_on_new_cards_are_taken() {
        for flash in Flash::ALL {
            let there = flash == Flash::Own || library::BUILT_IN;
            assert_eq!(flash.takes(CARD, DType::BF16, 128), there);
            assert_eq!(flash.takes(DeviceKind::Cuda { capability: (9, 0) }, DType::F16, 64), there);
            assert!(!flash.takes(CARD, DType::F32, 128));
            assert!(!flash.takes(DeviceKind::Cuda { capability: (7, 5) }, DType::F16, 128));
            assert!(!flash.takes(DeviceKind::Metal, DType::F16, 128));
            assert!(!flash.takes(CARD, DType::BF16, 20));
        }
        assert_eq!(Flash::Library.takes(CARD, DType::F16, 512), library::BUILT_IN);
        assert!(!Flash::Own.takes(CARD, DType::F16, 512));
    }

    #[test]
    fn what_failed_its_check_is_not_used_again() {
        Flash::Own.refuse(DType::F16, 32);
        assert!(!Flash::Own.takes(CARD, DType::F16, 32));
        assert!(Flash::Own.takes(CARD, DType::BF16, 32));
        Flash::Library.refuse(DType::F16, 72);
        assert!(!Flash::Library.takes(CARD, DType::F16, 72));
        assert_eq!(Flash::Library.takes(CARD, DType::BF16, 72), library::BUILT_IN);
    }

    #[test]
    fn the_cpu_never_takes_it() {
        let x = Array::from(Tensor::zeros((1, 2, 64), DType::BF16, &Device::Cpu).expect("zeros"));
        let tiles = AttentionTiles { query_rows: 64, heads: 1 };
        let how = Attention::plain(tiles);
        assert!(attention(&x, &x, &x, &how).expect("no kernel").is_none());
    }
}
