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

/// `count` standard normal values, after draws of so many values each.
pub fn randn(seed: u64, before: &[usize], count: usize) -> Vec<f32> {
    let mut generator = Generator { stream: Mt19937::new(seed), kept: None };
    before.iter().for_each(|count| generator.skip(*count));
    generator.draw(count)
}

/// A generator between two draws.
struct Generator {
    stream: Mt19937,
    /// The second of a pair, made and not yet given: draws of fewer than 16 values leave it for the next such one.
    kept: Option<f64>,
}

impl Generator {
    fn draw(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.scalar() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| uniform(&mut self.stream)).collect();
        let whole = count - count % BLOCK;
        values[..whole].par_chunks_mut(TASK).for_each(|task| task.chunks_exact_mut(BLOCK).for_each(box_muller));
        if whole < count {
            // The last block is drawn anew, over values that are done already.
            let tail = &mut values[count - BLOCK..];
            tail.iter_mut().for_each(|value| *value = uniform(&mut self.stream));
            box_muller(tail);
        }
        values
    }

    /// Draws without making the values: [`Generator::draw`] takes a word for each, and for a last block that is not whole
    /// those of a block more.
    fn skip(&mut self, count: usize) {
        if count < BLOCK {
            for _ in 0..count {
                self.scalar();
            }
            return;
        }
        let words = if count.is_multiple_of(BLOCK) { count } else { count + BLOCK };
        for _ in 0..words {
            self.stream.next_u32();
        }
    }

    /// A value of a draw of fewer than 16: pairs in f64.
    fn scalar(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let (angle, radius) = (uniform_f64(&mut self.stream), uniform_f64(&mut self.stream));
        let radius = (-2.0 * (-radius).ln_1p()).sqrt();
        let (sin, cos) = (TAU * angle).sin_cos();
        self.kept = Some(radius * sin);
        radius * cos
    }
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
