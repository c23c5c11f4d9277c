//! What is done to feature maps in one pass is held against operations of tensors before it is trusted with a picture.

use candle_core::{DType, Device};

use super::{Affine, Before, Norm, Reach, passes};
use crate::{
    base::{device::DeviceKind, progress::Observer},
    error::Result,
    nn::{
        Array, Place,
        kernel_check::{distance, numbers, settle, worse},
        kernels::maps::Kernel,
    },
};

/// Rows, columns and channels of what is compared: one whose numbers travel 16 bytes at once, one whose do not.
const SIZES: [[usize; 3]; 2] = [[11, 61, 32], [6, 5, 3]];

/// Holds the kernels that would go over maps in `dtype` against operations of tensors in f32, decides for this process which of them are
/// used, and tells what was found. Plans that are made later follow what is decided.
pub fn settle_maps(dtype: DType, device: &Device, observer: &dyn Observer) {
    let error = |kernel| largest_error(kernel, dtype, device);
    settle::<Kernel>("what is done to maps", dtype, DeviceKind::of(device), observer, error);
}

fn largest_error(kernel: Kernel, dtype: DType, device: &Device) -> Result<f64> {
    let mut most: f64 = 0.0;
    for size in SIZES {
        for [found, plain] in compared(kernel, size, dtype, device)? {
            most = worse(most, distance(&found, &plain));
        }
    }
    Ok(most)
}

/// What a kernel gives, and operations of tensors in f32 by their side.
fn compared(
    kernel: Kernel,
    [rows, columns, channels]: [usize; 3],
    dtype: DType,
    device: &Device,
) -> Result<Vec<[Vec<f32>; 2]>> {
    let place = Place::Real(device.clone());
    let map = |shape: &[usize], step| place.floats(shape, || numbers(shape.iter().product(), step))?.to_dtype(dtype);
    let wide = |array: &Array| array.to_dtype(DType::F32);
    let x = map(&[rows, columns, channels], 0.618_034)?;
    match kernel {
        Kernel::Window => {
            let above = map(&[2, columns + 2, channels], 0.414_214)?;
            let affine = Affine { scale: numbers(channels, 0.732_051), shift: numbers(channels, 0.236_068) };
            let norm = Norm::Group(affine);
            let shape = [rows + 2, columns + 2, channels];
            let ways = [Before::Nothing, Before::Norm(&norm), Before::NormSilu(&norm)];
            let pair = |way: Before<'_>| {
                let found = passes::window((Reach::Same, shape), Some(above.clone()), Some(&x), way)?;
                let plain = passes::plain_window(Reach::Same, Some(wide(&above)?), Some(&wide(&x)?), way)?;
                Ok([found.to_floats()?, plain.to_floats()?])
            };
            ways.into_iter().map(pair).collect()
        }
        Kernel::Taps => {
            let pair = |reach: Reach| {
                Ok([passes::taps(&x, reach)?.to_floats()?, passes::plain_taps(&wide(&x)?, reach)?.to_floats()?])
            };
            [Reach::Same, Reach::Doubled, Reach::Halved].into_iter().map(pair).collect()
        }
        Kernel::Moments => {
            let (mut all, pixels) = (Vec::new(), x.reshape(&[rows * columns, 1, channels])?);
            let ((parts, each), wide) = (passes::moments(&x)?, wide(&pixels)?);
            for (at, part) in parts.to_floats()?.chunks(2 * channels).enumerate() {
                let count = each.min(rows * columns - at * each);
                let (plain, _) = passes::plain_moments(&wide.narrow(0, at * each, count)?)?;
                all.push([part.to_vec(), plain.to_floats()?]);
            }
            Ok(all)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{kernel_check::Untold, kernels::Checked};

    #[test]
    fn a_processor_has_nothing_to_settle() {
        settle_maps(DType::F32, &Device::Cpu, &Untold);
    }

    /// Where there are no kernels both sides are the same operations: shapes fit, and parts cover the map.
    #[test]
    fn what_is_compared_is_alike() {
        for &kernel in Kernel::ALL {
            let error = largest_error(kernel, DType::F32, &Device::Cpu).expect("computed");
            assert!(error < 1e-6, "{kernel:?}: {error}");
        }
    }
}
