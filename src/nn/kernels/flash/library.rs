//! FlashAttention-2 (Dao 2023, arXiv 2307.08691) where it is built in: attention whose scores never leave the chip.
//!
//! Its crate does not say when a launch failed, and its output is then whatever lay there. So each (number type, width) is
//! held against the plain attention once, before it is used ([`crate::nn::settle_attention`]); one that fails is not used.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Tensor};

use crate::{
    base::device::DeviceKind,
    error::Result,
    nn::{Array, Attention, Bias},
};

/// Channels of a head that the kernels take at most. Source: candle-flash-attn 0.11, `flash_fwd_hdim512_*`.
const MOST_CHANNELS: usize = 512;
/// The least compute capability the kernels are made for. Source: Dao-AILab/flash-attention, "Ampere, Ada, or Hopper GPUs".
const CAPABILITY: (u32, u32) = (8, 0);

/// Whether the kernels are part of this program.
pub const BUILT_IN: bool = cfg!(feature = "flash-attn");

/// What failed its check on this machine: number types and widths.
static REFUSED: Mutex<Vec<(DType, usize)>> = Mutex::new(Vec::new());

fn refused() -> MutexGuard<'static, Vec<(DType, usize)>> {
    REFUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that the kernels are not to be used for heads of `channels` channels in this number type.
pub(in crate::nn) fn refuse(dtype: DType, channels: usize) {
    refused().push((dtype, channels));
}

/// Whether the kernels, where built in and sound, take heads of `channels` channels in this number type on such a device.
pub fn takes(kind: DeviceKind, dtype: DType, channels: usize) -> bool {
    BUILT_IN
        && matches!(kind, DeviceKind::Cuda { capability } if capability >= CAPABILITY)
        && matches!(dtype, DType::BF16 | DType::F16)
        && channels.is_multiple_of(8)
        && channels <= MOST_CHANNELS
        && !refused().contains(&(dtype, channels))
}

/// Attention of q [H, C, D], k and v [H, N, D] as [C, H·D]; `None` where the kernels do not take such arrays, or a bias is
/// to be added: their crate has no room for one.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Option<Array>> {
    let (heads, rows, channels) = q.dims3()?;
    if q.is_cpu() || !matches!(how.bias, Bias::None) || !takes(q.place().kind(), q.dtype(), channels) {
        return Ok(None);
    }
    match (q, k, v) {
        (Array::Real(q), Array::Real(k), Array::Real(v)) => {
            Ok(kernel(q, k, v, how.scale.factor(channels) as f32)?.map(Array::from)) // [C, H·D]
        }
        _ => {
            let out = q.place().zeros(&[rows, heads * channels], q.dtype())?;
            q.note(|ledger| {
                // The logarithm of each query's sum, which the kernel writes beside its output.
                ledger.pass((size_of::<f32>() * heads * rows) as u64);
                ledger.work(4 * (heads * rows * channels) as u64 * k.dim(1) as u64);
                ledger.launch_over_buffers();
            });
            Ok(Some(out))
        }
    }
}

#[cfg(feature = "flash-attn")]
fn kernel(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32) -> Result<Option<Tensor>> {
    let (heads, rows, channels) = q.dims3()?;
    // The kernels take any strides as long as the channels of a head lie side by side: nothing is copied.
    let tokens_first = |x: &Tensor| x.transpose(0, 1)?.unsqueeze(0); // [1, N, H, D]
    let out = candle_flash_attn::flash_attn(&tokens_first(q)?, &tokens_first(k)?, &tokens_first(v)?, scale, false)?;
    Ok(Some(out.reshape((rows, heads * channels))?)) // [C, H·D]
}

#[cfg(not(feature = "flash-attn"))]
fn kernel(_q: &Tensor, _k: &Tensor, _v: &Tensor, _scale: f32) -> Result<Option<Tensor>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::{AttentionTiles, Scale};

    #[test]
    fn only_half_precision_heads_of_whole_eights_on_new_cards_are_taken() {
        let card = DeviceKind::Cuda { capability: (8, 6) };
        assert_eq!(takes(card, DType::BF16, 128), BUILT_IN);
        assert_eq!(takes(card, DType::F16, 512), BUILT_IN);
        for (dtype, channels) in [(DType::F32, 128), (DType::BF16, 20), (DType::BF16, 520)] {
            assert!(!takes(card, dtype, channels));
        }
        assert!(!takes(DeviceKind::Cuda { capability: (7, 5) }, DType::F16, 128));
        assert!(!takes(DeviceKind::Metal, DType::F16, 128));
    }

    #[test]
    fn what_failed_its_check_is_not_used_again() {
        let card = DeviceKind::Cuda { capability: (9, 0) };
        refuse(DType::F16, 72);
        assert!(!takes(card, DType::F16, 72));
        assert_eq!(takes(card, DType::BF16, 72), BUILT_IN);
    }

    #[test]
    fn the_cpu_never_takes_it() {
        let x = Array::from(Tensor::zeros((1, 2, 8), DType::BF16, &Device::Cpu).expect("zeros"));
        let tiles = AttentionTiles { query_rows: 64, heads: 1 };
        let how = Attention { scale: Scale::InverseRoot, bias: Bias::None, tiles };
        assert!(attention(&x, &x, &x, &how).expect("no kernel").is_none());
    }
}
