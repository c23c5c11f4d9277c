//! Exact attention on the CPU: tiles of scores that stay in the second-level cache, softmax as the tiles go by.
//!
//! Scores are held with the queries side by side and one key after another, so that every softmax step is a plain
//! vector operation over queries, and so that a panel of 64 queries is what the matrix product wants unpacked.

use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut, Strided, product,
    simd::{exp2, multiversion},
    use_unpacked_operands,
};

/// Queries side by side.
pub const PANEL: usize = REGISTER_ROWS;
/// Keys of one tile: 64 x 512 scores and 512 rows of K and V of 128 channels take 0.6 MB, within 1 MB of cache.
pub const KEYS: usize = 512;

/// One vector of a panel, a number for each of its queries.
type Lane = [f32; PANEL];

/// Sizes of one attention: `queries` rows of q against `keys` rows of k and v, `heads` of `dim` channels.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// H
    pub heads: usize,
    /// D
    pub dim: usize,
    /// Rows of q.
    pub queries: usize,
    /// Rows of k and v.
    pub keys: usize,
}

/// `softmax(q·kᵀ/√D)·v` for q [H, C, D], k and v [H, N, D] into out [C, H·D]; each task takes `query_rows` queries of one head.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], shape: Shape, query_rows: usize, out: &mut [f32]) {
    let Shape { heads, dim, queries, keys } = shape;
    assert_eq!(q.len(), heads * queries * dim, "q is [H, C, D]");
    assert_eq!((k.len(), v.len()), (heads * keys * dim, heads * keys * dim), "k and v are [H, N, D]");
    assert_eq!(out.len(), heads * queries * dim, "out is [C, H·D]");
    use_unpacked_operands();
    let block = query_rows.max(1).next_multiple_of(PANEL);
    let out = SharedMut::new(out);
    (0..heads * queries.div_ceil(block)).into_par_iter().with_max_len(1).for_each(|task| {
        let (head, first) = (task / queries.div_ceil(block), task % queries.div_ceil(block) * block);
        let rows = block.min(queries - first);
        let of_head = |x: &'_ [f32]| -> *const f32 { x[head * keys * dim..].as_ptr() };
        let q = &q[(head * queries + first) * dim..][..rows * dim];
        let mut panels = Panels::new(q, dim);
        for start in (0..keys).step_by(KEYS) {
            let count = KEYS.min(keys - start);
            // SAFETY: rows start..start+count of this head lie within k and v, whose lengths were checked.
            unsafe { panels.meet(of_head(k).add(start * dim), of_head(v).add(start * dim), count) };
        }
        for row in 0..rows {
            // SAFETY: each (head, query) is written by one task, within [C, H·D].
            let target = unsafe { out.slice((first + row) * heads * dim + head * dim, dim) };
            panels.write(row, target);
        }
    });
}

/// A block of queries of one head on its way through the keys.
struct Panels {
    dim: usize,
    /// Queries times log2(e)/√D, transposed: [panels, D, 64].
    q: Vec<Lane>,
    /// Unnormalised outputs, transposed: [panels, D, 64].
    out: Vec<Lane>,
    /// Running maximum and sum of each query's scores: [panels, 64].
    max: Vec<Lane>,
    sum: Vec<Lane>,
    /// One tile of scores: [keys, 64].
    scores: Vec<Lane>,
}

impl Panels {
    fn new(q: &[f32], dim: usize) -> Self {
        let panels = (q.len() / dim).div_ceil(PANEL);
        let scale = std::f32::consts::LOG2_E / (dim as f32).sqrt();
        let mut transposed = vec![[0.0; PANEL]; panels * dim];
        for (row, values) in q.chunks_exact(dim).enumerate() {
            for (channel, value) in values.iter().enumerate() {
                transposed[row / PANEL * dim + channel][row % PANEL] = value * scale;
            }
        }
        Self {
            dim,
            q: transposed,
            out: vec![[0.0; PANEL]; panels * dim],
            max: vec![[f32::NEG_INFINITY; PANEL]; panels],
            sum: vec![[0.0; PANEL]; panels],
            scores: vec![[0.0; PANEL]; KEYS],
        }
    }

    /// Takes `count` more keys and values into account.
    ///
    /// # Safety
    /// `k` and `v` point to `count` rows of `dim` numbers each.
    unsafe fn meet(&mut self, k: *const f32, v: *const f32, count: usize) {
        let dim = self.dim;
        for panel in 0..self.max.len() {
            let q = Strided { start: self.q[panel * dim..].as_ptr().cast::<f32>(), rows: 1, columns: PANEL };
            let out = &mut self.out[panel * dim..][..dim];
            let scores = &mut self.scores[..count];
            let tile = Strided { start: scores.as_mut_ptr().cast::<f32>(), rows: 1, columns: PANEL };
            let keys = Strided { start: k, rows: 1, columns: dim };
            // SAFETY: q, scores and the rows of k are as long as this asks.
            unsafe { product((PANEL, count, dim), tile, false, q, keys) }; // [64, count]
            softmax_tile(scores, &mut self.max[panel], &mut self.sum[panel], out);
            let weights = Strided { start: scores.as_ptr().cast::<f32>(), rows: 1, columns: PANEL };
            let sums = Strided { start: out.as_mut_ptr().cast::<f32>(), rows: 1, columns: PANEL };
            let values = Strided { start: v, rows: dim, columns: 1 };
            // SAFETY: scores, out and the rows of v are as long as this asks.
            unsafe { product((PANEL, dim, count), sums, true, weights, values) }; // [64, D]
        }
    }

    /// The finished output of one query.
    fn write(&self, row: usize, target: &mut [f32]) {
        let (panel, lane) = (row / PANEL, row % PANEL);
        let scale = 1.0 / self.sum[panel][lane];
        for (value, channel) in target.iter_mut().zip(&self.out[panel * self.dim..]) {
            *value = channel[lane] * scale;
        }
    }
}

multiversion! {
    /// One tile of an online softmax in base 2: scores become their weights against the new maximum, and what was
    /// summed against the old one is scaled to it. Source: Milakov and Gimelshein, arXiv 1805.02867.
    pub fn softmax_tile<FMA>(scores: &mut [Lane], max: &mut Lane, sum: &mut Lane, out: &mut [Lane]) {
        let mut new_max = *max;
        for key in scores.iter() {
            for (m, s) in new_max.iter_mut().zip(key) {
                *m = if *s > *m { *s } else { *m };
            }
        }
        let mut factor = [0.0; PANEL];
        let mut changed = false;
        for lane in 0..PANEL {
            factor[lane] = exp2::<FMA>(max[lane] - new_max[lane]);
            changed |= max[lane] != new_max[lane];
        }
        let mut total = [0.0; PANEL];
        for key in scores.iter_mut() {
            for lane in 0..PANEL {
                let weight = exp2::<FMA>(key[lane] - new_max[lane]);
                key[lane] = weight;
                total[lane] += weight;
            }
        }
        for lane in 0..PANEL {
            sum[lane] = sum[lane] * factor[lane] + total[lane];
        }
        if changed {
            for channel in out.iter_mut() {
                for (o, f) in channel.iter_mut().zip(&factor) {
                    *o *= f;
                }
            }
        }
        *max = new_max;
    }
}
