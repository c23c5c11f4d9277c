//! Decoded floats become 8-bit pixels.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{
    error::{Error, Result},
    geometry::ImageSize,
};

/// Red, green, blue.
const CHANNELS: usize = 3;

/// A picture in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Red, green and blue of every pixel, row by row: `3 · width · height` bytes.
    pub rgb8: Vec<u8>,
}

impl Picture {
    /// A black picture, to be filled band by band.
    pub fn blank(size: ImageSize) -> Self {
        let (height, width) = (size.height_px, size.width_px);
        Self { height, width, rgb8: vec![0; height * width * CHANNELS] }
    }

    /// The picture of a decoded image [1, 3, rows, columns] with values in [-1, 1].
    ///
    /// # Errors
    /// As [`Picture::set_rows`].
    pub fn from_tensor(image: &Tensor) -> Result<Self> {
        let (height_px, width_px) = match *image.dims() {
            [1, CHANNELS, height, width] => (height, width),
            ref found => return Err(wrong_shape(found, "[1, 3, rows, columns]".into())),
        };
        let mut picture = Self::blank(ImageSize { height_px, width_px });
        picture.set_rows(0, image)?;
        Ok(picture)
    }

    /// Sets the rows from `first` on to a decoded band [1, 3, rows, width] with values in [-1, 1].
    ///
    /// Each value x becomes `round(255 · clamp(x/2 + 0.5, 0, 1))`, in f32 with halves to even: diffusers'
    /// `VaeImageProcessor` (`denormalize`, then numpy's `round` in `numpy_to_pil`).
    ///
    /// # Errors
    /// [`Error::Numeric`] naming the first pixel that is not finite; [`Error::Request`] when the band does not fit the picture;
    /// [`Error::Tensor`] when the device fails.
    pub fn set_rows(&mut self, first: usize, band: &Tensor) -> Result<()> {
        let rows = match *band.dims() {
            [1, CHANNELS, rows, width] if width == self.width && first + rows <= self.height => rows,
            ref found => {
                let last = first + found.get(2).copied().unwrap_or(0);
                let fits = format!("[1, 3, rows, {}] for rows {first}..{last} of {}", self.width, self.height);
                return Err(wrong_shape(found, fits));
            }
        };
        let band = band.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let values: Vec<f32> = band.flatten_all()?.to_vec1()?; // [3 · rows · width]
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(first + at / self.width % rows, at % self.width));
        }
        let (width, plane) = (self.width, rows * self.width);
        let target = &mut self.rgb8[first * width * CHANNELS..][..plane * CHANNELS];
        target.par_chunks_mut(width * CHANNELS).enumerate().for_each(|(row, line)| {
            for (column, pixel) in line.chunks_exact_mut(CHANNELS).enumerate() {
                for (channel, byte) in pixel.iter_mut().enumerate() {
                    *byte = to_byte(values[channel * plane + row * width + column]);
                }
            }
        });
        Ok(())
    }

    /// The picture cut to a size, rows dropped at the bottom and columns at the right.
    ///
    /// The model's positions count from the top-left corner, so that corner is the same whether or not the picture was
    /// computed at a larger size; what is dropped (under 16 px a side) is what rounding up to whole tokens had added.
    pub fn crop(mut self, size: ImageSize) -> Self {
        let (height, width) = (self.height.min(size.height_px), self.width.min(size.width_px));
        if width < self.width {
            for row in 0..height {
                let from = row * self.width * CHANNELS;
                self.rgb8.copy_within(from..from + width * CHANNELS, row * width * CHANNELS);
            }
        }
        self.rgb8.truncate(height * width * CHANNELS);
        Self { height, width, rgb8: self.rgb8 }
    }
}

/// A value of [-1, 1] as a byte.
fn to_byte(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

fn wrong_shape(found: &[usize], expected: String) -> Error {
    Error::request(format!("the decoded image has shape {found:?}, expected {expected}"), "")
}

fn not_finite(row: usize, column: usize) -> Error {
    let what = format!("the decoder gave a pixel that is not finite, at row {row}, column {column}");
    let hint = "run again with --dtype f32; if it stays, the autoencoder's weights are damaged";
    Error::Numeric { what, hint: hint.into() }
}
