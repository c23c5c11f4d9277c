//! Decoded floats become 8-bit pixels.

use rayon::prelude::*;

use crate::{
    base::geometry::ImageSize,
    error::{Error, Result},
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

    /// Sets the rows from `first` on to decoded rows [rows, width, 3] with values in [-1, 1].
    ///
    /// Each value x becomes `round(255 · clamp(x/2 + 0.5, 0, 1))`, in f32 with halves to even: diffusers'
    /// `VaeImageProcessor` (`denormalize`, then numpy's `round` in `numpy_to_pil`).
    ///
    /// # Errors
    /// [`Error::Numeric`] naming the first pixel that is not finite; [`Error::Request`] when the rows do not fit the picture.
    pub fn set_rows(&mut self, first: usize, rows: &[f32]) -> Result<()> {
        let line = self.width * CHANNELS;
        let start = first * line;
        if !rows.len().is_multiple_of(line) || start + rows.len() > self.rgb8.len() {
            let what = format!(
                "{} values from row {first} on do not fit a picture of {} x {}",
                rows.len(),
                self.height,
                self.width
            );
            return Err(Error::request(what, ""));
        }
        if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(first + at / line, at % line / CHANNELS));
        }
        let target = &mut self.rgb8[start..start + rows.len()];
        target.par_iter_mut().zip(rows).with_min_len(line).for_each(|(byte, value)| *byte = to_byte(*value));
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

fn not_finite(row: usize, column: usize) -> Error {
    let what = format!("the decoder gave a pixel that is not finite, at row {row}, column {column}");
    let hint = "run again with --dtype f32; if it stays, the autoencoder's weights are damaged";
    Error::Numeric { what, hint: hint.into() }
}
