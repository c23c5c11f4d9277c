//! FlashAttention-2 (Dao 2023, arXiv 2307.08691) where it is built in: attention whose scores never leave the chip.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Channels of a head that the kernels take at most. Source: candle-flash-attn 0.11, `flash_fwd_hdim512_*`.
const MOST_CHANNELS: usize = 512;

/// Whether the kernels are part of this program.
pub const BUILT_IN: bool = cfg!(feature = "flash-attn");

/// Whether the kernels, where built in, take heads of `channels` channels in this number type.
pub fn takes(dtype: DType, channels: usize) -> bool {
    BUILT_IN && matches!(dtype, DType::BF16 | DType::F16) && channels.is_multiple_of(8) && channels <= MOST_CHANNELS
}

/// `softmax(q·kᵀ/√D)·v` for q [H, C, D], k and v [H, N, D] on a CUDA device, as [C, H·D]; `None` where the kernels are
/// not built in or do not take such tensors.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>> {
    if !q.device().is_cuda() || !takes(q.dtype(), q.dim(2)?) {
        return Ok(None);
    }
    kernel(q, k, v)
}

#[cfg(feature = "flash-attn")]
fn kernel(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>> {
    let (heads, rows, channels) = q.dims3()?;
    // The kernels take any strides as long as the channels of a head lie side by side: nothing is copied.
    let tokens_first = |x: &Tensor| x.transpose(0, 1)?.unsqueeze(0); // [1, N, H, D]
    let scale = 1.0 / (channels as f32).sqrt();
    let out = candle_flash_attn::flash_attn(&tokens_first(q)?, &tokens_first(k)?, &tokens_first(v)?, scale, false)?;
    Ok(Some(out.reshape((rows, heads * channels))?)) // [C, H·D]
}

#[cfg(not(feature = "flash-attn"))]
fn kernel(_q: &Tensor, _k: &Tensor, _v: &Tensor) -> Result<Option<Tensor>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn only_half_precision_heads_of_whole_eights_are_taken() {
        assert_eq!(takes(DType::BF16, 128), BUILT_IN);
        assert_eq!(takes(DType::F16, 512), BUILT_IN);
        assert!(!takes(DType::F32, 128) && !takes(DType::BF16, 20) && !takes(DType::BF16, 520));
    }

    #[test]
    fn the_cpu_never_takes_it() {
        let x = Tensor::zeros((1, 2, 8), DType::BF16, &Device::Cpu).expect("zeros");
        assert!(attention(&x, &x, &x).expect("no kernel").is_none());
    }
}
