//! A kernel's attention is held against the plain one before it is trusted with a picture.

use candle_core::{DType, Device};

use super::{
    Array, Attention, Bias, KeyBias,
    attention::error_of,
    kernel_check::{found, worse},
    kernels::flash::Flash,
};
use crate::{
    base::{
        device::DeviceKind,
        progress::{Event, Observer},
    },
    error::Result,
};

/// The most that a kernel's attention may be from the plain one: some roundings to bf16, which are 0.4% each.
const MOST_ERROR: f64 = 0.02;

/// Holds the kernels of CUDA's that would compute the attention of `heads` heads of `dim` channels in `dtype` against the plain
/// attention, decides for this process which of them are used, and tells what was found. Plans that are made later follow what is
/// decided. One that does not run at all, as where the driver is too old for it, is not used either.
pub fn settle_attention(heads: usize, dim: usize, dtype: DType, device: &Device, observer: &dyn Observer) {
    let kind = DeviceKind::of(device);
    for flash in Flash::ALL.into_iter().filter(|flash| flash.takes(kind, dtype, dim)) {
        let error = largest_error(flash, (heads, dim), dtype, device);
        let is_used = error.as_ref().is_ok_and(|error| is_sound(*error));
        if !is_used {
            flash.refuse(dtype, dim);
        }
        observer.on(told(flash, dim, &found(&error), is_used));
    }
}

/// The largest error of a kernel, with each of the biases that it takes.
fn largest_error(flash: Flash, heads: (usize, usize), dtype: DType, device: &Device) -> Result<f64> {
    let keys = KeyBias { runs: vec![(100, 0.5)] };
    let biases = [Bias::None, Bias::Keys(&keys), Bias::Causal { keys: 90 }];
    let run = |q: &Array, k: &Array, v: &Array, how: &Attention<'_>| flash.attention(q, k, v, how);
    let mut errors = biases.into_iter().filter_map(|bias| error_of(run, heads, bias, dtype, device).transpose());
    errors.try_fold(0.0, |most, error| error.map(|error| worse(most, error)))
}

/// NaN too is more than it may be.
fn is_sound(error: f64) -> bool {
    error <= MOST_ERROR
}

/// What is told of a kernel's attention over heads of `dim` channels.
fn told(flash: Flash, dim: usize, found: &str, is_used: bool) -> Event {
    let found = format!("attention by {} ({dim} channels) {found}", flash.name());
    if is_used {
        return Event::Detail(found);
    }
    Event::Warning(format!(
        "{found} on this card: the plain one, which is slower and takes more memory, may be used instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_that_is_far_off_is_warned_of() {
        assert!(matches!(told(Flash::Own, 128, "is 4e-3 from the plain one", true), Event::Detail(_)));
        let Event::Warning(text) = told(Flash::Library, 512, "fails (no such kernel)", false) else {
            panic!("a warning")
        };
        assert!(text.contains("flash-attn (512 channels) fails") && text.contains("used instead"), "{text}");
        assert!(is_sound(0.02) && ![0.021, f64::NAN, f64::INFINITY].into_iter().any(is_sound));
    }
}
