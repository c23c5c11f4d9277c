//! How the power of a picture falls from coarse to fine.

use image::RgbImage;

use super::plane::Plane;
use crate::base::fourier;

/// The largest side that is transformed: 2048 x 2048 complex numbers are 32 MB.
const MAX_SIDE: usize = 2048;
/// The smallest side that has enough octaves for a line.
const MIN_SIDE: usize = 32;
/// Rings per octave.
const RINGS_PER_OCTAVE: f64 = 4.0;
/// The lowest frequency of the fit, in cycles per side. The window smears what lies within 2 cycles, and a ring below 4 has so
/// few frequencies that chance decides its mean.
const LOWEST_CYCLES: f64 = 4.0;
/// Power relative to the strongest ring below which a ring holds only the rounding of f32.
const NOISE_FLOOR: f64 = 1e-11;

/// The slope of the least-squares line through log power over log frequency of the picture's luma.
///
/// The middle square of the largest power of two that fits (at most 2048 px) is weighed with a Hann window, its mean
/// removed; power is averaged over rings of equal log width, from 4 cycles a side to the Nyquist frequency. A ring of n
/// frequencies weighs sqrt(n): alike, chance in the few coarse ones would decide; by n, the finest ring alone. White noise of
/// 256 x 256 px then has a standard deviation of 0.03 around 0.
/// White noise has slope 0, photographs about -2 (Field, 1987, doi:10.1364/JOSAA.4.002379); a steeper one means blur, a
/// flatter one noise or grain. `None` for a picture that is flat, or smaller than 32 px.
pub fn spectrum_slope(picture: &RgbImage) -> Option<f64> {
    let shorter = picture.width().min(picture.height()) as usize;
    if shorter < MIN_SIDE {
        return None;
    }
    let side = (1usize << shorter.ilog2()).min(MAX_SIDE);
    let mut square = Plane::luma(picture).center(side, side);
    window(&mut square);
    slope(&rings(&fourier::power(&square.values, side), side))
}

/// Removes the weighted mean and weighs with the Hann window, so that the edges of the square meet without a step.
fn window(square: &mut Plane) {
    let side = square.width;
    let hann: Vec<f64> =
        (0..side).map(|i| (std::f64::consts::PI * (i as f64 + 0.5) / side as f64).sin().powi(2)).collect();
    let weight = |i: usize| hann[i / side] * hann[i % side];
    let total: f64 = (0..side * side).map(weight).sum();
    let mean = square.values.iter().enumerate().map(|(i, x)| weight(i) * f64::from(*x)).sum::<f64>() / total;
    for (i, x) in square.values.iter_mut().enumerate() {
        *x = (weight(i) * (f64::from(*x) - mean)) as f32;
    }
}

/// A ring of frequencies as a point of the fit.
#[derive(Debug, Clone, Copy)]
struct Ring {
    /// Mean log frequency.
    x: f64,
    /// Log of the mean power.
    y: f64,
    weight: f64,
}

/// The rings that have any power.
fn rings(power: &[f32], side: usize) -> Vec<Ring> {
    let count = (RINGS_PER_OCTAVE * (side as f64 / 2.0).log2()) as usize + 1;
    let mut sums = vec![(0.0, 0.0, 0usize); count]; // log frequency, power, frequencies
    let cycles = |i: usize| i.min(side - i) as f64;
    for (i, power) in power.iter().enumerate() {
        let radius = cycles(i / side).hypot(cycles(i % side));
        // Without the Nyquist frequency itself, which would be a ring of two frequencies.
        if (LOWEST_CYCLES..side as f64 / 2.0).contains(&radius) {
            let (logs, powers, frequencies) = &mut sums[(RINGS_PER_OCTAVE * radius.log2()) as usize];
            *logs += radius.ln();
            *powers += f64::from(*power);
            *frequencies += 1;
        }
    }
    sums.retain(|ring| ring.2 > 0);
    let strongest = sums.iter().map(|ring| ring.1 / ring.2 as f64).fold(0.0, f64::max);
    // Of a flat picture the transform leaves some rounding: 1e-3 of a grey level in every pixel.
    let floor = (NOISE_FLOOR * strongest).max(1e-6 * power.len() as f64);
    let rings = sums.into_iter().map(|(logs, powers, count)| (logs, powers, count as f64));
    let loud = rings.filter(|(_, powers, count)| powers / count > floor);
    loud.map(|(logs, powers, count)| Ring { x: logs / count, y: (powers / count).ln(), weight: count.sqrt() }).collect()
}

/// The slope of the weighted least-squares line through the rings; `None` for fewer than three.
fn slope(rings: &[Ring]) -> Option<f64> {
    let mean = |value: fn(&Ring) -> f64| {
        let total: f64 = rings.iter().map(|ring| ring.weight).sum();
        rings.iter().map(|ring| ring.weight * value(ring)).sum::<f64>() / total
    };
    let (x_mean, y_mean) = (mean(|ring| ring.x), mean(|ring| ring.y));
    let spread: f64 = rings.iter().map(|ring| ring.weight * (ring.x - x_mean).powi(2)).sum();
    let joint: f64 = rings.iter().map(|ring| ring.weight * (ring.x - x_mean) * (ring.y - y_mean)).sum();
    (rings.len() > 2 && spread > 0.0).then(|| joint / spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::measures::synthetic::{blurred, noise, one_over_f, plain};

    #[test]
    fn white_noise_is_flat_and_one_over_f_falls_with_the_square() {
        for seed in 1..6 {
            let white = spectrum_slope(&noise(256, 256, seed)).expect("a slope");
            assert!(white.abs() < 0.1, "{seed}: {white}");
        }
        for exponent in [1f32, 1.5] {
            // Amplitude f^-a is power f^-2a.
            let found = spectrum_slope(&one_over_f(256, exponent, 2)).expect("a slope");
            assert!((found + 2.0 * f64::from(exponent)).abs() < 0.2, "{exponent}: {found}");
        }
    }

    #[test]
    fn blur_makes_it_steeper() {
        let sharp = noise(128, 160, 3);
        assert!(spectrum_slope(&blurred(&sharp, 1.5)) < Some(-2.0));
    }

    #[test]
    fn a_flat_or_tiny_picture_has_no_slope() {
        assert_eq!(spectrum_slope(&plain(64, 64, 200)), None);
        assert_eq!(spectrum_slope(&noise(31, 200, 1)), None);
        assert!(spectrum_slope(&noise(32, 32, 1)).is_some());
    }

    #[test]
    fn the_line_through_points_on_a_line_is_that_line() {
        let ring = |x: f64, y: f64| Ring { x, y, weight: 1.0 + x };
        let line: Vec<Ring> = (0..9).map(f64::from).map(|x| ring(x, 3.0 - 1.25 * x)).collect();
        assert!((slope(&line).expect("a line") + 1.25).abs() < 1e-12);
        assert_eq!(slope(&line[..2]), None);
        assert_eq!(slope(&[ring(1.0, 1.0), ring(1.0, 2.0), ring(1.0, 3.0)]), None);
    }

    #[test]
    fn heavier_rings_pull_more() {
        // Through (0, 0), (1, 0), (2, 6) of weights 1, 1, 2: means 5/4 and 3, joint 9, spread 11/4.
        let ring = |x: f64, y: f64, weight: f64| Ring { x, y, weight };
        let found = slope(&[ring(0.0, 0.0, 1.0), ring(1.0, 0.0, 1.0), ring(2.0, 6.0, 2.0)]).expect("a line");
        assert!((found - 9.0 / 2.75).abs() < 1e-12, "{found}");
    }
}
