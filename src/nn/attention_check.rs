//! A kernel's attention is held against the plain one before it is trusted with a picture.

use candle_core::{DType, Device};

use super::{attention_error, kernels::flash};
use crate::{
    base::{
        device::DeviceKind,
        progress::{Event, Observer},
    },
    error::Result,
};

/// The most that a kernel's attention may be from the plain one: some roundings to bf16, which are 0.4% each.
const MOST_ERROR: f64 = 0.02;

/// Holds FlashAttention against the plain attention for `heads` heads of `dim` channels in `dtype`, where it would be used,
/// decides for this process whether it is, and tells what was found. Plans that are made later follow what is decided.
///
/// # Errors
/// When the device fails.
pub fn settle_attention(
    heads: usize,
    dim: usize,
    dtype: DType,
    device: &Device,
    observer: &dyn Observer,
) -> Result<()> {
    if device.is_cpu() || !flash::takes(DeviceKind::of(device), dtype, dim) {
        return Ok(());
    }
    let error = attention_error(heads, dim, dtype, device)?;
    if !is_sound(error) {
        flash::refuse(dtype, dim);
    }
    observer.on(told(dim, error));
    Ok(())
}

/// NaN too is more than it may be.
fn is_sound(error: f64) -> bool {
    error <= MOST_ERROR
}

/// What is told of a kernel's attention over heads of `dim` channels that is so far from the plain one.
fn told(dim: usize, error: f64) -> Event {
    let found = format!("attention by flash-attn ({dim} channels) is {error:.1e} from the plain one");
    if is_sound(error) {
        return Event::Detail(found);
    }
    Event::Warning(format!(
        "{found} on this card, more than rounding: the plain one, which is slower and takes more memory, is used instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_that_is_far_off_is_warned_of() {
        assert!(matches!(told(128, 4e-3), Event::Detail(_)));
        for error in [0.1, f64::NAN, f64::INFINITY] {
            let Event::Warning(text) = told(512, error) else { panic!("{error}") };
            assert!(text.contains("is used instead"), "{text}");
        }
    }
}
