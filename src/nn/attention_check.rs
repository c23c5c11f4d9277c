//! How far a kernel's attention is from the plain one, told before it is trusted with a picture.

use candle_core::{DType, Device};

use super::{attention_error, kernels::flash};
use crate::{
    base::progress::{Event, Observer},
    error::Result,
};

/// The most that a kernel's attention may be from the plain one: some roundings to bf16, which are 0.4% each.
const MOST_ATTENTION_ERROR: f64 = 0.02;

/// Tells how far a kernel's attention of `heads` heads of `dim` channels is from the plain one, where a kernel takes it; the
/// CPU's is held against it in the tests.
///
/// # Errors
/// When the device fails.
pub fn tell_attention_error(
    heads: usize,
    dim: usize,
    dtype: DType,
    device: &Device,
    observer: &dyn Observer,
) -> Result<()> {
    if !device.is_cpu() && flash::takes(dtype, dim) {
        observer.on(attention_event(attention_error(heads, dim, dtype, device)?));
    }
    Ok(())
}

/// What is told of a kernel's attention that is so far from the plain one.
fn attention_event(error: f64) -> Event {
    let found = format!("attention by flash-attn is {error:.1e} from the plain one");
    // NaN too is more than it may be.
    if error <= MOST_ATTENTION_ERROR {
        return Event::Detail(found);
    }
    Event::Warning(format!("{found} on this card, more than rounding: pictures may be wrong; build without flash-attn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_that_is_far_off_is_warned_of() {
        assert!(matches!(attention_event(4e-3), Event::Detail(_)));
        for error in [0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(attention_event(error), Event::Warning(_)), "{error}");
        }
    }
}
