//! What comes between products is held against the plain operations before a kernel of our own is trusted with it.

use candle_core::{DType, Device};

use super::{
    Activation, Array, NORM_EPS, Place, Rotation,
    kernels::{
        Checked,
        fused::{self, Kernel},
        tensors,
    },
};
use crate::{
    base::{
        device::DeviceKind,
        progress::{Event, Observer},
    },
    error::Result,
};

/// Rows, heads and channels of each head of what is compared: one whose numbers travel 16 bytes at once, one whose do not.
const SIZES: [[usize; 3]; 2] = [[9, 5, 32], [11, 3, 6]];

/// Holds the kernels that would compute in `dtype`, and in f32, against the plain operations in f32, decides for this process which
/// of them are used, and tells what was found. Plans that are made later follow what is decided. One that does not run at all, as
/// where the driver is too old for it, is not used either.
pub fn settle_kernels(dtype: DType, device: &Device, observer: &dyn Observer) {
    for &dtype in with_f32(&dtype) {
        let error = |kernel| largest_error(kernel, dtype, device);
        settle::<Kernel>("what comes between products", dtype, DeviceKind::of(device), observer, error);
    }
}

/// The number type, and f32, in which some of what is there is held beside it.
pub(super) fn with_f32(dtype: &DType) -> &[DType] {
    match dtype {
        DType::BF16 => &[DType::BF16, DType::F32],
        DType::F16 => &[DType::F16, DType::F32],
        other => std::slice::from_ref(other),
    }
}

/// The same of the kernels of a file, by their errors, for numbers of one type; `what` they do is told.
pub(super) fn settle<K: Checked>(
    what: &str,
    dtype: DType,
    kind: DeviceKind,
    observer: &dyn Observer,
    error_of: impl Fn(K) -> Result<f64>,
) {
    let mut largest: f64 = 0.0;
    let taken = || K::ALL.iter().copied().filter(|kernel| kernel.takes(kind, dtype));
    for kernel in taken() {
        match error_of(kernel) {
            Ok(error) if error <= most_error(dtype) => largest = largest.max(error),
            error => {
                kernel.refuse(dtype);
                observer.on(warning(kernel.name(), dtype, &error));
            }
        }
    }
    if taken().next().is_some() {
        let name = dtype.as_str();
        observer
            .on(Event::Detail(format!("{what} by dype's own kernels ({name}) is {largest:.1e} from the plain one")));
    }
}

/// The most that a kernel's numbers may be from the plain ones: a rounding of each to their type, and what sums in another order
/// differ by.
pub(super) fn most_error(dtype: DType) -> f64 {
    let rounding = match dtype {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 0.0,
    };
    rounding + 1e-5
}

/// What is told of a kernel of this name that is not used.
fn warning(name: &str, dtype: DType, error: &Result<f64>) -> Event {
    let (found, dtype) = (found(error), dtype.as_str());
    Event::Warning(format!(
        "{name} by dype's own kernel ({dtype}) {found} on this card: the plain one, which is slower and takes more memory, is used \
         instead"
    ))
}

/// What a check found of a kernel, in words.
pub(super) fn found(error: &Result<f64>) -> String {
    match error {
        Ok(error) => format!("is {error:.1e} from the plain one"),
        Err(error) => format!("fails ({error})"),
    }
}

/// The larger of two errors; one that is NaN stays.
pub(super) fn worse(most: f64, error: f64) -> f64 {
    if error > most || error.is_nan() { error } else { most }
}

/// The largest of a kernel's errors over all sizes; NaN where one is.
fn largest_error(kernel: Kernel, dtype: DType, device: &Device) -> Result<f64> {
    let mut most: f64 = 0.0;
    for size in SIZES {
        for [found, plain] in Inputs::new(size, dtype, device)?.run(kernel)? {
            let error = distance(&found.to_floats()?, &plain.to_floats()?);
            most = worse(most, error);
        }
    }
    Ok(most)
}

/// ‖a - b‖ / ‖b‖. Where all numbers are zeros, as on a device that is asked about sizes alone, they are alike.
pub(super) fn distance(found: &[f32], plain: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let off = squares(&mut found.iter().zip(plain).map(|(found, plain)| f64::from(*found) - f64::from(*plain)));
    if off == 0.0 { 0.0 } else { (off / squares(&mut plain.iter().map(|x| f64::from(*x)))).sqrt() }
}

/// So many numbers from -2 to 2: not random, but without any order that a kernel could profit from, the fractional parts of multiples.
pub(super) fn numbers(count: usize, step: f32) -> Vec<f32> {
    (1..=count).map(|i| 4.0 * (i as f32 * step).fract() - 2.0).collect()
}

/// Nobody to tell anything to.
#[cfg(test)]
pub(super) struct Untold;

#[cfg(test)]
impl Observer for Untold {
    fn on(&self, event: Event) {
        panic!("{event:?}");
    }
}

/// An array in a number type, and the same numbers in f32.
struct Pair(Array, Array);

/// What a kernel is given.
struct Inputs {
    heads: usize,
    x: Pair,
    y: Pair,
    scale: Pair,
    shift: Pair,
    weight: Array,
    head_weight: Array,
    cos: Array,
    sin: Array,
}

impl Inputs {
    fn new([rows, heads, dim]: [usize; 3], dtype: DType, device: &Device) -> Result<Self> {
        let place = Place::Real(device.clone());
        let floats = |shape: &[usize], step: f32| place.floats(shape, || numbers(shape.iter().product(), step));
        let pair = |shape: &[usize], step: f32| -> Result<Pair> {
            let numbers = floats(shape, step)?.to_dtype(dtype)?;
            let wide = numbers.to_dtype(DType::F32)?;
            Ok(Pair(numbers, wide))
        };
        let columns = heads * dim;
        Ok(Self {
            heads,
            x: pair(&[rows, columns], 0.618_034)?,
            y: pair(&[rows, columns], 0.414_214)?,
            scale: pair(&[columns], 0.732_051)?,
            shift: pair(&[columns], 0.236_068)?,
            weight: floats(&[columns], 0.302_776)?,
            head_weight: floats(&[dim], 0.645_751)?,
            cos: floats(&[rows, dim / 2], 0.316_625)?,
            sin: floats(&[rows, dim / 2], 0.162_278)?,
        })
    }

    /// What a kernel gives, and the plain operations in f32: those first, since numbers in f32 are one array with the same in f32, and
    /// some kernels write over what they are given.
    fn run(self, kernel: Kernel) -> Result<Vec<[Array; 2]>> {
        let Self { x, y, scale, shift, weight, .. } = &self;
        let none = || super::mismatch(format!("{} does not take what it is made for", kernel.name()));
        let took = |took: bool| if took { Ok(()) } else { Err(none()) };
        match kernel {
            Kernel::LayerNorm => {
                let found = fused::norm_modulate(&x.0, &shift.0, &scale.0, NORM_EPS)?.ok_or_else(none)?;
                Ok(vec![[found, tensors::norm_modulate(&x.1, &shift.1, &scale.1)?]])
            }
            Kernel::RmsNorm => {
                let plain = tensors::rms_norm(&x.1, weight, NORM_EPS)?;
                let found = fused::rms_norm(&x.0, weight, NORM_EPS)?.ok_or_else(none)?;
                let (sum, plain_sum) = (y.0.clone(), y.1.add(&plain.mul(&scale.1)?)?);
                took(fused::add_gated_norm(&sum, &scale.0, &x.0, weight, NORM_EPS)?)?;
                Ok(vec![[found, plain], [sum, plain_sum]])
            }
            Kernel::AddGated => {
                let plain = x.1.add(&y.1.add(&shift.1)?.mul(&scale.1)?)?;
                took(fused::add_gated(&x.0, &scale.0, &y.0, Some(&shift.0))?)?;
                Ok(vec![[x.0.clone(), plain]])
            }
            Kernel::AddBias | Kernel::AddBiasGelu => {
                let activation = if kernel == Kernel::AddBias { Activation::None } else { Activation::Gelu };
                let plain = tensors::after_product(x.1.clone(), Some(&shift.1), activation)?;
                took(fused::add_bias(&x.0, Some(&shift.0), activation == Activation::Gelu)?)?;
                Ok(vec![[x.0.clone(), plain]])
            }
            Kernel::SiluGated => {
                let plain = x.1.silu()?.mul(&y.1)?;
                took(fused::silu_gated(&x.0, &y.0)?)?;
                Ok(vec![[x.0.clone(), plain]])
            }
            Kernel::SplitHeads => self.heads(None).map(|pair| vec![pair]),
            Kernel::RotateHeads => {
                let rotation = Rotation { weight: &self.head_weight, eps: NORM_EPS, cos: &self.cos, sin: &self.sin };
                self.heads(Some(rotation)).map(|pair| vec![pair])
            }
        }
    }

    fn heads(&self, rotation: Option<Rotation<'_>>) -> Result<[Array; 2]> {
        let (rows, columns) = self.x.0.dims2()?;
        let found = fused::heads_of((&self.x.0, Some(&self.shift.0)), rotation, self.heads)?;
        let plain = self.x.1.place().zeros(&[self.heads, rows, columns / self.heads], DType::F32)?;
        tensors::split_heads(&self.x.1.add(&self.shift.1)?, rotation, &plain, 0)?;
        Ok([found.ok_or_else(|| super::mismatch("heads were not taken"))?, plain])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_far_off_is_warned_of_and_says_what_it_is() {
        let Event::Warning(text) = warning(Kernel::SiluGated.name(), DType::BF16, &Ok(0.5)) else {
            panic!("a warning")
        };
        assert!(text.contains("silu_gated") && text.contains("bf16") && text.contains("5.0e-1"), "{text}");
        assert!(most_error(DType::BF16) < 0.005 && most_error(DType::F32) < 1e-4);
    }

    #[test]
    fn numbers_are_as_far_apart_as_their_norm_says() {
        assert_eq!(distance(&[0.0; 3], &[0.0; 3]), 0.0);
        assert_eq!(distance(&[3.0, 4.5], &[3.0, 4.0]), 0.1);
        assert!(distance(&[f32::NAN], &[1.0]).is_nan());
    }

    #[test]
    fn a_processor_has_nothing_to_settle() {
        settle_kernels(DType::F32, &Device::Cpu, &Untold);
    }
}
