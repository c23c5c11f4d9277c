//! One channel of a picture as numbers.

use image::{ImageBuffer, Luma, RgbImage, imageops};

use crate::base::fourier::transposed;

/// Luma of white.
const WHITE: f32 = 255.0;

/// A picture of one channel, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plane {
    pub width: usize,
    pub height: usize,
    /// [height, width]
    pub values: Vec<f32>,
}

impl Plane {
    /// Luma from 0 to 255: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as OpenCV and Pillow make grey of RGB).
    pub fn luma(picture: &RgbImage) -> Self {
        let luma = |[r, g, b]: [u8; 3]| 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
        let values = picture.pixels().map(|pixel| luma(pixel.0)).collect();
        Self { width: picture.width() as usize, height: picture.height() as usize, values }
    }

    /// The middle `width` x `height` pixels; both at most this plane's.
    pub fn center(&self, width: usize, height: usize) -> Self {
        let (left, top) = ((self.width - width) / 2, (self.height - height) / 2);
        let rows = self.values.chunks_exact(self.width).skip(top).take(height);
        let values = rows.flat_map(|row| &row[left..left + width]).copied().collect();
        Self { width, height, values }
    }

    /// The same picture with both sides scaled by one factor so that the longer is at most `side`; never enlarged.
    pub fn at_most(self, side: usize) -> Self {
        let longer = self.width.max(self.height);
        if longer <= side {
            return self;
        }
        let scaled = |length: usize| (length * side).div_ceil(longer).max(1);
        let (width, height) = (scaled(self.width), scaled(self.height));
        // The image crate cuts floats to 0 to 1.
        let parts = self.values.into_iter().map(|luma| luma / WHITE).collect();
        let Some(buffer) = GreyBuffer::from_raw(self.width as u32, self.height as u32, parts) else {
            return Self { width: 0, height: 0, values: Vec::new() };
        };
        let scaled = imageops::resize(&buffer, width as u32, height as u32, imageops::Lanczos3);
        Self { width, height, values: scaled.into_raw().into_iter().map(|part| part * WHITE).collect() }
    }

    /// Gaussian blur with this standard deviation in pixels.
    pub fn blurred(&self, sigma: f32) -> Self {
        let kernel = gaussian(sigma);
        let rows = convolve_rows(&self.values, self.width, &kernel);
        let columns = convolve_rows(&transposed(&rows, self.width), self.height, &kernel);
        Self { values: transposed(&columns, self.height), ..*self }
    }
}

/// One channel of floats, as the image crate holds it.
type GreyBuffer = ImageBuffer<Luma<f32>, Vec<f32>>;

/// Weights from -3 sigma to 3 sigma, which sum to 1.
fn gaussian(sigma: f32) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil() as i32;
    let weight = |x: i32| (-0.5 * (x as f32 / sigma.max(f32::MIN_POSITIVE)).powi(2)).exp();
    let weights: Vec<f32> = (-radius..=radius).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Each row convolved; beyond its ends a row goes on as its last value.
fn convolve_rows(values: &[f32], width: usize, kernel: &[f32]) -> Vec<f32> {
    let radius = kernel.len() / 2;
    let mut padded = Vec::with_capacity(width + 2 * radius);
    let mut convolved = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width.max(1)) {
        padded.clear();
        padded.resize(radius, row[0]);
        padded.extend_from_slice(row);
        padded.resize(width + 2 * radius, row[width - 1]);
        convolved
            .extend(padded.windows(kernel.len()).map(|near| near.iter().zip(kernel).map(|(x, k)| x * k).sum::<f32>()));
    }
    convolved
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn numbered(width: usize, height: usize) -> Plane {
        Plane { width, height, values: (0..width * height).map(|i| i as f32).collect() }
    }

    #[test]
    fn luma_weighs_green_most() {
        let luma = |color| Plane::luma(&RgbImage::from_pixel(1, 1, Rgb(color))).values[0];
        assert_eq!([[255, 0, 0], [0, 255, 0], [0, 0, 255]].map(luma).map(f32::round), [76.0, 150.0, 29.0]);
        assert!((luma([255; 3]) - 255.0).abs() < 1e-3);
    }

    #[test]
    fn the_center_is_in_the_middle() {
        assert_eq!(numbered(4, 4).center(2, 2).values, [5.0, 6.0, 9.0, 10.0]);
        assert_eq!(numbered(5, 3).center(2, 1).values, [6.0, 7.0]);
    }

    #[test]
    fn scaling_keeps_the_shape_and_never_enlarges() {
        let scaled = numbered(40, 10).at_most(20);
        assert_eq!((scaled.width, scaled.height, scaled.values.len()), (20, 5, 100));
        assert_eq!(numbered(4, 3).at_most(20), numbered(4, 3));
    }

    #[test]
    fn scaling_keeps_the_levels() {
        // A ramp in x from 0 to 234 in steps of 6: halved, its inner pixels are the means of pairs.
        let ramp = Plane { width: 40, height: 8, values: (0..320).map(|i| 6.0 * (i % 40) as f32).collect() };
        let halved = ramp.at_most(20);
        for x in 4..16 {
            let expected = 12.0 * x as f32 + 3.0;
            assert!((halved.values[2 * 20 + x] - expected).abs() < 0.5, "{x}: {}", halved.values[2 * 20 + x]);
        }
    }

    #[test]
    fn a_blur_spreads_a_point_evenly_and_keeps_a_plain() {
        let mut point = Plane { width: 9, height: 11, values: vec![0.0; 99] };
        point.values[5 * 9 + 4] = 1.0;
        let blurred = point.blurred(1.0);
        assert!((blurred.values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        // The product of two normal densities of sigma 1, discretised: (1 / 2.5066)^2 at the centre.
        assert!((blurred.values[5 * 9 + 4] - 0.1592).abs() < 1e-3);
        assert!((blurred.values[5 * 9 + 5] - blurred.values[6 * 9 + 4]).abs() < 1e-6);
        let plain = Plane { width: 5, height: 2, values: vec![7.0; 10] };
        assert!(plain.blurred(2.0).values.iter().all(|x| (x - 7.0).abs() < 1e-5));
    }
}
