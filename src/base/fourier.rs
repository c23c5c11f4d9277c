//! The Fourier transform of real numbers, row by row and column by column.

use rustfft::{
    FftNum, FftPlanner,
    num_complex::{Complex, Complex32},
};

/// [rows, width] as [width, rows].
pub fn transposed<T: Copy>(values: &[T], width: usize) -> Vec<T> {
    let rows = values.len() / width.max(1);
    (0..width).flat_map(|x| (0..rows).map(move |y| values[y * width + x])).collect()
}

/// The unnormalised forward transform of [rows, width]; the result is transposed, [width, rows].
fn transform<T: FftNum>(mut values: Vec<Complex<T>>, width: usize) -> Vec<Complex<T>> {
    let rows = values.len() / width.max(1);
    let mut planner = FftPlanner::new();
    planner.plan_fft_forward(width).process(&mut values);
    let mut values = transposed(&values, width); // [width, rows]
    planner.plan_fft_forward(rows).process(&mut values);
    values
}

fn complex<T: FftNum>(values: &[T]) -> Vec<Complex<T>> {
    values.iter().map(|x| Complex::new(*x, T::zero())).collect()
}

/// The power of every frequency of real numbers [rows, width], transposed: entry [x, y] is |F|^2 at x cycles over the width
/// and y cycles over the rows.
pub fn power<T: FftNum>(values: &[T], width: usize) -> Vec<T> {
    transform(complex(values), width).into_iter().map(|f| f.norm_sqr()).collect()
}

/// The power of every frequency of each row of real numbers [rows, width]: entry [y, x] is |F|^2 of row y at x cycles.
pub fn power_of_rows<T: FftNum>(values: &[T], width: usize) -> Vec<T> {
    let mut values = complex(values);
    FftPlanner::new().plan_fft_forward(width).process(&mut values);
    values.into_iter().map(|f| f.norm_sqr()).collect()
}

/// Real numbers [rows, width] with every frequency multiplied by its gain; gains are [width, rows], as [`power`] lays frequencies
/// out, and the same for a frequency and its mirror.
pub fn filtered(values: &[f64], width: usize, gains: &[f64]) -> Vec<f64> {
    let rows = values.len() / width.max(1);
    let count = values.len() as f64;
    // The inverse transform is the forward one of the conjugate, conjugated, over n.
    let kept = transform(complex(values), width).into_iter().zip(gains).map(|(f, gain)| f.conj() * gain).collect();
    transform(kept, rows).into_iter().map(|c: Complex<f64>| c.re / count).collect()
}

/// The circular autocorrelation of real numbers [rows, width]: entry [dy, dx] is the sum of f(y, x) · f(y + dy, x + dx).
///
/// By the Wiener-Khinchin theorem it is the inverse transform of the power, which is even, so that forward and inverse agree
/// up to the factor 1/n.
pub fn autocorrelation(values: &[f32], width: usize) -> Vec<f32> {
    let count = values.len() as f32;
    let rows = values.len() / width.max(1);
    let power = power(values, width).into_iter().map(|p| Complex32::new(p / count, 0.0)).collect();
    transform(power, rows).into_iter().map(|c| c.re).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_one_frequency_and_its_mirror() {
        let wave = |i: usize| (2.0 * std::f32::consts::PI * 3.0 * (i % 16) as f32 / 16.0).cos();
        let values: Vec<f32> = (0..16 * 8).map(wave).collect();
        for row in power_of_rows(&values, 16).chunks(16) {
            for (cycles, power) in row.iter().enumerate() {
                let expected = if cycles == 3 || cycles == 13 { 8.0 * 8.0 } else { 0.0 };
                assert!((power - expected).abs() < 1e-3, "{cycles}: {power}");
            }
        }
        let power = power(&values, 16); // [16, 8]
        for (index, power) in power.iter().enumerate() {
            let expected = if index == 3 * 8 || index == 13 * 8 { 64.0 * 64.0 } else { 0.0 };
            assert!((power - expected).abs() < 1e-2, "{index}: {power}");
        }
    }

    #[test]
    fn autocorrelation_is_the_sum_it_stands_for() {
        let (width, rows) = (6, 4);
        let values: Vec<f32> = (0..width * rows).map(|i| ((i * 7919) % 13) as f32 - 6.0).collect();
        let found = autocorrelation(&values, width);
        for dy in 0..rows {
            for dx in 0..width {
                let at = |y: usize, x: usize| values[(y % rows) * width + x % width];
                let pairs = (0..rows).flat_map(|y| (0..width).map(move |x| (y, x)));
                let expected: f32 = pairs.map(|(y, x)| at(y, x) * at(y + dy, x + dx)).sum();
                assert!((found[dy * width + dx] - expected).abs() < 1e-3, "{dy} {dx}");
            }
        }
    }
}
