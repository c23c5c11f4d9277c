//! What is done to single numbers: norm, SiLU, and the sums a group norm is made of.
//!
//! The loops are plain; each is compiled for every instruction set and chosen at run time.

use rayon::prelude::*;

use super::{Rows, Window, pitch};
use crate::{
    nn::bands::{Before, Moments, Norm, Reach},
    nn::kernels::cpu::{
        rows::sum_of,
        simd::{multiversion, silu},
    },
    nn::numbers,
};

/// `before` of every pixel of `input`, into `output`.
pub(crate) fn apply(before: Before<'_>, input: &[f32], output: &mut [f32]) {
    match before {
        Before::Nothing => output.copy_from_slice(input),
        Before::Norm(Norm::Group(affine)) => norm(input, &affine.scale, &affine.shift, output),
        Before::NormSilu(Norm::Group(affine)) => norm_silu(input, &affine.scale, &affine.shift, output),
        Before::Norm(Norm::Rms(gamma)) => rms(input, gamma, output),
        Before::NormSilu(Norm::Rms(gamma)) => rms_silu(input, gamma, output),
    }
}

multiversion! {
    /// `x scale + shift` of every pixel.
    pub fn norm<FMA>(input: &[f32], scale: &[f32], shift: &[f32], output: &mut [f32]) {
        each_pixel(input, scale, shift, output, |y| y);
    }
}

multiversion! {
    /// SiLU of `x scale + shift` of every pixel.
    pub fn norm_silu<FMA>(input: &[f32], scale: &[f32], shift: &[f32], output: &mut [f32]) {
        each_pixel(input, scale, shift, output, silu::<FMA>);
    }
}

multiversion! {
    /// `x gamma / |x|` of every pixel.
    pub fn rms<FMA>(input: &[f32], gamma: &[f32], output: &mut [f32]) {
        each_length(input, gamma, output, |y| y);
    }
}

multiversion! {
    /// SiLU of `x gamma / |x|` of every pixel.
    pub fn rms_silu<FMA>(input: &[f32], gamma: &[f32], output: &mut [f32]) {
        each_length(input, gamma, output, silu::<FMA>);
    }
}

#[inline(always)]
fn each_length(input: &[f32], gamma: &[f32], output: &mut [f32], f: impl Fn(f32) -> f32) {
    let channels = gamma.len();
    for (x, y) in input.chunks_exact(channels).zip(output.chunks_exact_mut(channels)) {
        let inverse = 1.0 / sum_of(x, |x| x * x).sqrt().max(Norm::LEAST_LENGTH);
        for ((y, x), gamma) in y.iter_mut().zip(x).zip(gamma) {
            *y = f(x * inverse * gamma);
        }
    }
}

#[inline(always)]
fn each_pixel(input: &[f32], scale: &[f32], shift: &[f32], output: &mut [f32], f: impl Fn(f32) -> f32) {
    let channels = scale.len();
    for (x, y) in input.chunks_exact(channels).zip(output.chunks_exact_mut(channels)) {
        for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
            *y = f(x * scale + shift);
        }
    }
}

/// Sum and sum of squares of each channel.
pub(crate) type Sums = (usize, Vec<f64>, Vec<f64>);

/// The sums over some pixels.
pub(crate) fn sums(pixels: &[f32], channels: usize) -> Sums {
    let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
    add_sums(pixels, &mut sums, &mut squares);
    (pixels.len() / channels, sums, squares)
}

multiversion! {
    /// Adds every pixel, and its square, to those of its channel.
    pub fn add_sums<FMA>(pixels: &[f32], sums: &mut [f64], squares: &mut [f64]) {
        for pixel in pixels.chunks_exact(sums.len()) {
            for ((x, sum), square) in pixel.iter().zip(sums.iter_mut()).zip(squares.iter_mut()) {
                let x = f64::from(*x);
                *sum += x;
                *square += x * x;
            }
        }
    }
}

/// Merges in the order of the parts, so that the result does not depend on which thread was first.
pub(crate) fn merge_all(moments: &mut Moments, parts: Vec<Sums>) {
    for (count, sums, squares) in parts {
        moments.merge_sums(count, &sums, &squares);
    }
}

/// See [`Kernels::window`](crate::nn::bands::Kernels::window).
pub(crate) fn window(reach: Reach, above: Option<Window>, rows: Option<&Rows>, before: Before<'_>) -> Window {
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
            resized(above.data, len, kept * row)
        }
        None => numbers::zeros(len),
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

/// `len` numbers, the first `kept` as they were: in place where there is room. Those beyond the old length are zeros.
fn resized(mut data: Vec<f32>, len: usize, kept: usize) -> Vec<f32> {
    if len <= data.capacity() {
        data.resize(len, 0.0);
        return data;
    }
    let mut larger = numbers::zeros(len);
    larger[..kept].copy_from_slice(&data[..kept]);
    larger
}
