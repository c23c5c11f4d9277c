//! `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)`.
//!
//! Source: `normal_fill` and `normal_kernel` in PyTorch's `aten/src/ATen/native/cpu/DistributionTemplates.h`, and
//! `normal_distribution` in `aten/src/ATen/core/DistributionsHelper.h`.
//!
//! Every operation is rounded to f32 where PyTorch rounds it; logarithm, sine and cosine are taken in f64 and rounded once, so
//! that they are the same on every platform (PyTorch's own vary by an ulp with the processor).

use std::f64::consts::TAU;

use rayon::prelude::*;

use super::mt19937::Mt19937;

/// Values that one Box-Muller block makes; below this number PyTorch takes the scalar path.
const BLOCK: usize = 16;
/// Values per parallel task: large enough to outweigh the scheduling, small enough to share out.
const TASK: usize = BLOCK * 2048;

/// `count` standard normal values.
pub fn randn(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = Mt19937::new(seed);
    if count < BLOCK {
        return scalar(&mut stream, count);
    }
    let mut values: Vec<f32> = (0..count).map(|_| uniform(&mut stream)).collect();
    let whole = count - count % BLOCK;
    values[..whole].par_chunks_mut(TASK).for_each(|task| task.chunks_exact_mut(BLOCK).for_each(box_muller));
    if whole < count {
        // The last block is drawn anew, over values that are done already.
        let tail = &mut values[count - BLOCK..];
        tail.iter_mut().for_each(|value| *value = uniform(&mut stream));
        box_muller(tail);
    }
    values
}

/// A uniform value in [0, 1) from the lower 24 bits of a word.
fn uniform(stream: &mut Mt19937) -> f32 {
    const DIGITS: u32 = 24; // of an f32's significand
    (stream.next_u32() & ((1 << DIGITS) - 1)) as f32 / (1u32 << DIGITS) as f32
}

/// A uniform value in [0, 1) from the lower 53 bits of two words.
fn uniform_f64(stream: &mut Mt19937) -> f64 {
    const DIGITS: u32 = 53; // of an f64's significand
    (stream.next_u64() & ((1 << DIGITS) - 1)) as f64 / (1u64 << DIGITS) as f64
}

/// Box-Muller over a block of 16: value j gives the radius and value j + 8 the angle of a pair.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let log = f64::from(1.0 - *a).ln() as f32; // 1 - u is in (0, 1]
        let radius = (-2.0 * log).sqrt();
        let theta = TAU as f32 * *b;
        let (sin, cos) = f64::from(theta).sin_cos();
        *a = radius * cos as f32;
        *b = radius * sin as f32;
    }
}

/// The path of fewer than 16 values: pairs in f64, the second of a pair kept for the next value.
fn scalar(stream: &mut Mt19937, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (angle, radius) = (uniform_f64(stream), uniform_f64(stream));
        let radius = (-2.0 * (-radius).ln_1p()).sqrt();
        let (sin, cos) = (TAU * angle).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}
