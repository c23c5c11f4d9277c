//! candle-flash-attn's kernels where they are built in.
//!
//! The crate does not say when a launch failed, and its output is then whatever lay there.

use candle_core::Tensor;

use crate::{
    error::Result,
    nn::{Array, Attention, Bias},
};

/// Channels of a head that the kernels take at most. Source: candle-flash-attn 0.11, `flash_fwd_hdim512_*`.
const MOST_CHANNELS: usize = 512;

/// Whether the kernels are part of this program.
pub const BUILT_IN: bool = cfg!(feature = "flash-attn");

/// Whether there are kernels for heads of so many channels.
pub fn has_width(channels: usize) -> bool {
    BUILT_IN && channels.is_multiple_of(8) && channels <= MOST_CHANNELS
}

/// Attention of q [H, C, D], k and v [K, N, D] as [C, H·D]; `None` where a bias is to be added: the crate has no room for one.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Option<Array>> {
    if !matches!(how.bias, Bias::None) {
        return Ok(None);
    }
    let (heads, rows, channels) = q.dims3()?;
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
