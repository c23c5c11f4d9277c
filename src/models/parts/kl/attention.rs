//! Attention of one head over very many pixels, on the CPU: never more scores in memory than one block's.
//!
//! softmax(q k^T / sqrt(C)) v is gathered block of keys by block of keys with a running maximum and a running sum
//! (Milakov and Gimelshein 2018, arXiv 1805.02867): when the maximum rises, what was gathered is scaled down.

use std::sync::Arc;

use pulp::Arch;
use rayon::prelude::*;

use super::cpu::{Buffer, Pool, View, elementwise::exp, multiply, transpose};

/// Queries of one task.
const QUERIES: usize = 256;
/// Keys of one block: with 256 queries its scores are 512 KiB, half of a common second-level cache.
const KEYS: usize = 512;
/// Numbers a loop handles side by side.
const LANES: usize = 16;

/// Keys and values of all pixels.
#[derive(Default)]
pub(super) struct Keys {
    blocks: Vec<Block>,
    count: usize,
}

struct Block {
    count: usize,
    keys: Buffer,   // [C, count]
    values: Buffer, // [count, C]
}

impl Keys {
    /// Adds keys [n, C] and values [n, C].
    pub fn push(&mut self, channels: usize, keys: &[f32], values: Buffer, pool: &Arc<Pool>) {
        let count = keys.len() / channels;
        self.count += count;
        let mut transposed = pool.take(keys.len());
        transpose(keys, channels, &mut transposed);
        self.blocks.push(Block { count, keys: transposed, values });
    }

    /// Number of keys.
    pub fn count(&self) -> usize {
        self.count
    }

    /// softmax(q k^T / sqrt(C)) v of queries [n, C] into `output` [n, C].
    pub fn attend(&self, channels: usize, queries: &[f32], output: &mut [f32]) {
        let tasks = queries.par_chunks(QUERIES * channels).zip(output.par_chunks_mut(QUERIES * channels));
        tasks.for_each_init(
            || vec![0.0; QUERIES * KEYS],
            |scores, (queries, output)| {
                let mut state = vec![Running::default(); queries.len() / channels];
                output.fill(0.0);
                for block in &self.blocks {
                    for first in (0..block.count).step_by(KEYS) {
                        block.attend(first, channels, queries, &mut state, scores, output);
                    }
                }
                for (row, state) in output.chunks_exact_mut(channels).zip(&state) {
                    row.iter_mut().for_each(|x| *x /= state.sum);
                }
            },
        );
    }
}

/// The softmax of one query so far.
#[derive(Clone)]
struct Running {
    maximum: f32,
    sum: f32,
}

impl Default for Running {
    fn default() -> Self {
        Self { maximum: f32::NEG_INFINITY, sum: 0.0 }
    }
}

impl Block {
    fn attend(
        &self,
        first: usize,
        channels: usize,
        queries: &[f32],
        state: &mut [Running],
        scores: &mut [f32],
        output: &mut [f32],
    ) {
        let (n, count) = (state.len(), KEYS.min(self.count - first));
        let q = View { data: queries, stride: channels };
        let k = View { data: &self.keys[first..], stride: self.count };
        multiply([n, channels, count], q, k, scores, count, false); // [n, count]
        let scale = 1.0 / (channels as f32).sqrt();
        let rows = scores.chunks_exact_mut(count).zip(output.chunks_exact_mut(channels));
        for ((scores, output), state) in rows.zip(state) {
            Arch::new().dispatch(
                #[inline(always)]
                || state.take(scores, scale, output),
            );
        }
        let p = View { data: scores, stride: count };
        let v = View { data: &self.values[first * channels..], stride: channels };
        multiply([n, count, channels], p, v, output, channels, true);
    }
}

impl Running {
    /// Turns scores into weights relative to the running maximum, and `output` with them.
    #[inline(always)]
    fn take(&mut self, scores: &mut [f32], scale: f32, output: &mut [f32]) {
        let maximum = self.maximum.max(fold(scores, f32::NEG_INFINITY, f32::max) * scale);
        if maximum > self.maximum {
            let shrink = exp(self.maximum.max(maximum - 80.0) - maximum);
            self.sum *= shrink;
            output.iter_mut().for_each(|x| *x *= shrink);
            self.maximum = maximum;
        }
        for score in &mut *scores {
            *score = exp(*score * scale - maximum);
        }
        self.sum += fold(scores, 0.0, |a, b| a + b);
    }
}

/// Folds in 16 lanes, which vectorises, then across them.
#[inline(always)]
fn fold(values: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(start, &f);
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *value);
        }
    }
    lanes.into_iter().fold(rest, f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, phase: f32, size: f32) -> Vec<f32> {
        (0..n).map(|i| size * (i as f32 * 0.37 + phase).sin() * (i as f32 * 0.011).cos()).collect()
    }

    #[test]
    fn blocks_give_the_softmax_of_the_whole() {
        let (channels, queries, keys) = (24, 300, 1500);
        // Large scores, so that the running maximum rises many times.
        let (q, k) = (wave(queries * channels, 0.1, 4.0), wave(keys * channels, 1.3, 4.0));
        let v = wave(keys * channels, 2.2, 1.0);
        let (mut all, pool) = (Keys::default(), Arc::new(Pool::default()));
        for (from, to) in [(0, 700), (700, 733), (733, keys)] {
            let part = from * channels..to * channels;
            all.push(channels, &k[part.clone()], pool.copy(&v[part]), &pool);
        }
        let mut output = vec![f32::NAN; queries * channels];
        all.attend(channels, &q, &mut output);
        for (query, output) in q.chunks(channels).zip(output.chunks(channels)) {
            let score = |key: &[f32]| -> f64 {
                let dot: f64 = query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                dot / (channels as f64).sqrt()
            };
            let scores: Vec<f64> = k.chunks(channels).map(score).collect();
            let maximum = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - maximum).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in 0..channels {
                let exact: f64 =
                    weights.iter().zip(v.chunks(channels)).map(|(w, v)| w * f64::from(v[c])).sum::<f64>() / total;
                assert!((exact - f64::from(output[c])).abs() < 1e-5, "{exact} {}", output[c]);
            }
        }
    }
}
