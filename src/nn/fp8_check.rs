//! A product in e4m3 is held against one of the same codes in f32 before it is trusted with a picture.

use candle_core::{DType, Device, Tensor};

use super::{
    Activation, Array, Place, Products,
    kernel_check::{distance, found, most_error, numbers},
    kernels::fp8,
    linear::product,
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    weights::{Float8, LARGEST_E4M3, nearest_e4m3},
};

/// The most that sums of a card that keeps 14 bits of them may be off, beside a rounding to the stream's type: 64 products are
/// added up so, a unit of 2^-13 of the largest for each of two instructions. Source: arXiv 2412.19437, 3.3.2.
const SUMS_ERROR: f64 = 1e-3;
/// Rows, inputs and outputs of what is compared: no whole tiles.
const SIZE: [usize; 3] = [37, 208, 150];

/// Holds the kernels of a device that multiply in e4m3 against the codes' products in f32.
///
/// # Errors
/// [`Error::Request`] where they are further off than sums of fewer bits are, or do not run at all, as where the driver is too old.
pub fn settle_fp8(dtype: DType, device: &Device, observer: &dyn Observer) -> Result<()> {
    let event = told(error_of(dtype, device), most_error(dtype) + SUMS_ERROR)?;
    observer.on(event);
    Ok(())
}

fn told(error: Result<f64>, most: f64) -> Result<Event> {
    let what = format!("a product in fp8 {}", found(&error));
    if error.is_ok_and(|error| error <= most) {
        return Ok(Event::Detail(what));
    }
    Err(Error::request(format!("{what} on this card"), "leave --fp8-products out, or try a newer driver"))
}

/// A row as codes of e4m3, and what they are to be multiplied by: its largest number becomes the largest code. What `to_e4m3` of
/// `product.cu` does.
fn in_codes(row: &[f32]) -> (Vec<u8>, f32) {
    /// A row without a larger number is taken to have one.
    const LEAST: f32 = 1e-30;
    let most = row.iter().fold(LEAST, |most, x| most.max(x.abs()));
    let factor = LARGEST_E4M3 / most;
    (row.iter().map(|x| nearest_e4m3(x * factor)).collect(), most / LARGEST_E4M3)
}

/// The numbers that a row's codes stand for.
fn rounded(row: &[f32]) -> Vec<f32> {
    let (codes, scale) = in_codes(row);
    codes.iter().map(|code| Float8::E4M3.numbers()[usize::from(*code)] * scale).collect()
}

/// ‖found - wanted‖ / ‖wanted‖.
fn error_of(dtype: DType, device: &Device) -> Result<f64> {
    let [rows, inputs, outputs] = SIZE;
    let place = Place::Real(device.clone());
    let x = place.floats(&[rows, inputs], || numbers(rows * inputs, 0.618_034))?.to_dtype(dtype)?;
    let of_codes = x.to_floats()?.chunks(inputs).flat_map(rounded).collect();
    let of_codes = place.floats(&[rows, inputs], || of_codes)?;
    // Every code that is a number.
    let codes: Vec<u8> = (0..outputs * inputs).map(|i| (i * 37 % 127) as u8 | u8::from(i % 3 == 0) << 7).collect();
    let scales: Vec<f32> = numbers(outputs, 0.414_214).iter().map(|x| (3.0 + x) * 1e-3).collect();
    let table = Float8::E4M3.numbers();
    let weight = (0..outputs * inputs).map(|i| table[usize::from(codes[i])] * scales[i / inputs]);
    let weight = place.floats(&[outputs, inputs], || weight.collect())?;
    let wanted = product(Products::Exact, &of_codes, &weight, None, Activation::None)?.to_floats()?;
    let codes = Array::from(Tensor::from_vec(codes, (outputs, inputs), device)?);
    let scales = place.floats(&[outputs, 1], || scales)?;
    let found = fp8::product(&x, &codes, Float8::E4M3, &scales)?;
    let found = found.ok_or_else(|| super::mismatch("a product in e4m3 does not take what it is made for"))?;
    Ok(distance(&found.to_floats()?, &wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_is_far_off_is_refused() {
        let most = most_error(DType::BF16) + SUMS_ERROR;
        for error in [Ok(0.026), Ok(f64::NAN), Err(super::super::mismatch("no such kernel"))] {
            let refused = told(error, most).expect_err("far off");
            assert!(refused.to_string().contains("fp8") && refused.hint().expect("advice").contains("--fp8-products"));
        }
        assert!(matches!(told(Ok(2e-3), most), Ok(Event::Detail(_))));
    }

    /// PyTorch 2.15: `(x * (448 / x.abs().amax(1))).to(torch.float8_e4m3fn)`.
    #[test]
    fn rows_become_the_codes_that_pytorch_makes_of_them() {
        let wide = [1000., -3., 0.4, 70., -555.5, 2.5e-3, 19., -1.1, 300., -128., 64., 0.9];
        let small = [0.001, -0.0021, 0.00333, 0.0, -0.0009, 1e-6, -3e-7, 0.00457, 0.0051, -0.00612, 0.0007, 0.0019];
        let wide_codes = [0x7e, 0xbb, 0x23, 0x60, 0xf8, 0x01, 0x51, 0xb0, 0x70, 0xe6, 0x5e, 0x2d];
        let small_codes = [0x69, 0xf2, 0x77, 0x00, 0xe8, 0x19, 0x8b, 0x7a, 0x7c, 0xfe, 0x65, 0x71];
        assert_eq!(in_codes(&wide), (wide_codes.to_vec(), 2.232_143));
        assert_eq!(in_codes(&small), (small_codes.to_vec(), 1.366_071_4e-5));
        assert_eq!(in_codes(&[0.0, -0.0]).0, [0x00, 0x80], "a row of zeros stays zeros");
        let numbers = rounded(&wide);
        assert_eq!((numbers[0], numbers[1]), (1000.0, -1.375 * 2.232_143));
    }
}
