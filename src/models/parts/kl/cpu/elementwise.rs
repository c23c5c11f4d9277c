//! What is done to single numbers: norm, SiLU, and the sums a group norm is made of.
//!
//! The loops are plain; `pulp` compiles each for AVX-512, AVX2 and the baseline, and picks at run time.

use std::sync::Arc;

use pulp::Arch;
use rayon::prelude::*;

use super::{Rows, Window, buffer::Pool, pitch};
use crate::models::parts::kl::kernels::{Before, Moments, Reach};

/// e^x for finite x, to 2 units in the last place; 0 below -87, 2^126 or so above 87.
///
/// The reduction x = n ln 2 + r and the polynomial are those of Cephes' `expf`.
#[inline(always)]
pub(in crate::models::parts::kl) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    // The high part has few bits, so that n times it is exact; both together are ln 2.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let fraction = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    fraction * power
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `before` of every pixel of `input`, into `output`.
pub(in crate::models::parts::kl) fn apply(before: Before<'_>, input: &[f32], output: &mut [f32]) {
    match before {
        Before::Nothing => output.copy_from_slice(input),
        Before::Norm(affine) => Arch::new().dispatch(
            #[inline(always)]
            || each_pixel(input, output, &affine.scale, &affine.shift, |y| y),
        ),
        Before::NormSilu(affine) => Arch::new().dispatch(
            #[inline(always)]
            || each_pixel(input, output, &affine.scale, &affine.shift, silu),
        ),
    }
}

#[inline(always)]
fn each_pixel(input: &[f32], output: &mut [f32], scale: &[f32], shift: &[f32], f: impl Fn(f32) -> f32) {
    let channels = scale.len();
    for (x, y) in input.chunks_exact(channels).zip(output.chunks_exact_mut(channels)) {
        for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
            *y = f(x * scale + shift);
        }
    }
}

/// Sum and sum of squares of each channel.
pub(in crate::models::parts::kl) type Sums = (usize, Vec<f64>, Vec<f64>);

/// The sums over some pixels.
pub(in crate::models::parts::kl) fn sums(pixels: &[f32], channels: usize) -> Sums {
    let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for pixel in pixels.chunks_exact(channels) {
                for ((x, sum), square) in pixel.iter().zip(&mut sums).zip(&mut squares) {
                    let x = f64::from(*x);
                    *sum += x;
                    *square += x * x;
                }
            }
        },
    );
    (pixels.len() / channels, sums, squares)
}

/// Merges in the order of the parts, so that the result does not depend on which thread was first.
pub(in crate::models::parts::kl) fn merge_all(moments: &mut Moments, parts: Vec<Sums>) {
    for (count, sums, squares) in parts {
        moments.merge_sums(count, &sums, &squares);
    }
}

/// See [`Kernels::window`](crate::models::parts::kl::kernels::Kernels::window).
pub(in crate::models::parts::kl) fn window(
    reach: Reach,
    above: Option<Window>,
    rows: Option<&Rows>,
    before: Before<'_>,
    pool: &Arc<Pool>,
) -> Window {
    let (width, channels) = match (rows, &above) {
        (Some(rows), _) => (rows.width, rows.channels),
        (None, Some(above)) => (above.width, above.channels),
        (None, None) => (0, 0),
    };
    let row = pitch(width) * channels;
    let kept = above.as_ref().map_or(reach.border(), |above| reach.kept(above.height));
    let height = kept + rows.map_or(1, |rows| rows.height);
    let len = (height + 1) * row;
    let mut data = match above {
        // The buffer is used again: its last rows move to the top, its zero columns stay where they are.
        Some(mut above) => {
            let first = (above.height - kept) * row;
            above.data.copy_within(first..first + kept * row, 0);
            above.data.resize(len, kept * row);
            above.data
        }
        None => {
            let mut data = pool.take(len);
            data.fill(0.0);
            data
        }
    };
    let written = kept + rows.map_or(0, |rows| rows.height);
    data[written * row..].fill(0.0);
    if let Some(rows) = rows {
        let fresh = data[kept * row..height * row].par_chunks_exact_mut(row);
        fresh.zip(rows.data.par_chunks_exact(rows.row_len())).for_each(|(to, from)| {
            apply(before, from, &mut to[channels..][..from.len()]);
        });
    }
    Window { height, width, channels, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_good_to_two_units_in_the_last_place() {
        for i in -86_000..86_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): {error}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn silu_keeps_what_is_not_finite() {
        assert!(silu(f32::NAN).is_nan());
        assert_eq!(silu(f32::INFINITY), f32::INFINITY);
        assert_eq!(silu(-200.0) as i32, 0);
    }
}
