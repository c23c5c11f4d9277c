//! A picture's pixels, and its rows as an encoder takes them.

use crate::{
    base::geometry::ImageSize,
    error::{Error, Result},
};

/// Red, green, blue.
const CHANNELS: usize = 3;

/// A picture in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Its size.
    pub size: ImageSize,
    /// Red, green and blue of every pixel, row by row.
    pub rgb8: Vec<u8>,
}

impl Pixels {
    /// Fills rows [rows, width, 3] of the picture grown to a width of `width_px` at the right and to any height below by
    /// repeating its border, from row `first` on, with numbers from -1 to 1.
    ///
    /// Source: `VaeImageProcessor.normalize` of diffusers: 2 (p / 255) - 1, in f32.
    ///
    /// # Errors
    /// [`Error::Request`] for rows that are no rows of such a picture.
    pub fn fill(&self, width_px: usize, first: usize, rows: &mut [f32]) -> Result<()> {
        let (line, own_line) = (width_px * CHANNELS, self.size.width_px * CHANNELS);
        if line < own_line || !rows.len().is_multiple_of(line.max(1)) {
            let what = format!("{} numbers are no rows of {width_px} pixels of a picture {}", rows.len(), self.size);
            return Err(Error::request(what, "please report this"));
        }
        for (row, values) in rows.chunks_exact_mut(line).enumerate() {
            let row = (first + row).min(self.size.height_px - 1);
            let own = &self.rgb8[row * own_line..][..own_line];
            let border = own[own_line - CHANNELS..].iter().cycle();
            values.iter_mut().zip(own.iter().chain(border)).for_each(|(value, byte)| *value = normalized(*byte));
        }
        Ok(())
    }
}

fn normalized(byte: u8) -> f32 {
    2.0 * (f32::from(byte) / 255.0) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_is_repeated_beyond_the_picture() {
        let size = ImageSize { height_px: 2, width_px: 2 };
        let picture = Pixels { size, rgb8: vec![0, 0, 0, 255, 255, 255, 51, 102, 153, 204, 0, 255] };
        let mut rows = vec![9.0; 2 * 4 * CHANNELS];
        picture.fill(4, 1, &mut rows).expect("rows");
        let corner = [204, 0, 255].map(normalized);
        assert_eq!(rows[..3], [51, 102, 153].map(normalized));
        assert_eq!((normalized(0), normalized(255)), (-1.0, 1.0));
        for pixel in rows[3..12].chunks(3) {
            assert_eq!(pixel, corner);
        }
        assert_eq!(rows[12..], rows[..12], "the last row once more");
        assert!(picture.fill(1, 0, &mut rows).is_err() && picture.fill(7, 0, &mut rows).is_err());
    }
}
