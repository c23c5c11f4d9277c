//! A product in e4m3 is held against one in f32 before it is trusted with a picture.

use candle_core::{DType, Device, Tensor};

use super::{Activation, Array, Place, Products, kernel_check::distance, kernels::fp8, linear::product};
use crate::{
    base::{
        device::DeviceKind,
        progress::{Event, Observer},
    },
    error::{Error, Result},
    weights::Float8,
};

/// The most that a product may be from one of the same numbers in f32: a rounding of x to three bits, which is 2.6% of numbers of any
/// size, and one to the stream's type.
const MOST_ERROR: f64 = 0.05;
/// Rows, inputs and outputs of what is compared: no whole tiles.
const SIZE: [usize; 3] = [37, 208, 150];

/// Holds the kernels of a device that multiply in e4m3, where it has such, against products in f32, decides for this process whether
/// they are used, and tells what was found. Plans that are made later follow what is decided. One that does not run at all, as where
/// the driver is too old for it, is not used either.
pub fn settle_fp8(dtype: DType, device: &Device, observer: &dyn Observer) {
    if !fp8::is_on(DeviceKind::of(device)) {
        return;
    }
    let error = error_of(dtype, device);
    let is_used = error.as_ref().is_ok_and(|error| *error <= MOST_ERROR);
    if !is_used {
        fp8::refuse();
    }
    let found = error.map_or_else(|error| format!("fails ({error})"), |error| format!("is {error:.1e} from f32's"));
    observer.on(told(&found, is_used));
}

fn told(found: &str, is_used: bool) -> Event {
    let what = format!("a product in fp8 {found}");
    if is_used {
        return Event::Detail(what);
    }
    Event::Warning(format!("{what} on this card: --fp8-products changes nothing, products are computed as without it"))
}

/// ‖found - wanted‖ / ‖wanted‖.
fn error_of(dtype: DType, device: &Device) -> Result<f64> {
    let [rows, inputs, outputs] = SIZE;
    let place = Place::Real(device.clone());
    // Not random, but without any order that a kernel could profit from: the fractional parts of multiples.
    let numbers = |count: usize, step: f32| (0..count).map(move |i| 4.0 * ((i + 1) as f32 * step).fract() - 2.0);
    let x = place.floats(&[rows, inputs], || numbers(rows * inputs, 0.618_034).collect())?.to_dtype(dtype)?;
    // Every code that is a number.
    let codes: Vec<u8> = (0..outputs * inputs).map(|i| (i * 37 % 127) as u8 | ((i % 3 == 0) as u8) << 7).collect();
    let scales: Vec<f32> = numbers(outputs, 0.414_214).map(|x| (3.0 + x) * 1e-3).collect();
    let table = Float8::E4M3.numbers();
    let weight = (0..outputs * inputs).map(|i| table[usize::from(codes[i])] * scales[i / inputs]);
    let weight = place.floats(&[outputs, inputs], || weight.collect())?;
    let wanted = product(Products::Exact, &x.to_dtype(DType::F32)?, &weight, None, Activation::None)?.to_floats()?;
    let codes = Array::from(Tensor::from_vec(codes, (outputs, inputs), device)?);
    let scales = place.floats(&[outputs, 1], || scales)?;
    let found = fp8::product(&x, &codes, Float8::E4M3, &scales)?;
    let found = found.ok_or_else(|| Error::Tensor(candle_core::Error::msg("it does not take what it is made for")))?;
    Ok(distance(&found.to_floats()?, &wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_is_far_off_is_warned_of() {
        let Event::Warning(text) = told("is 5.0e-1 from f32's", false) else { panic!("a warning") };
        assert!(text.contains("5.0e-1") && text.contains("--fp8-products"), "{text}");
        assert!(matches!(told("is 2.6e-2 from f32's", true), Event::Detail(_)));
    }
}
