//! The two products of an attention's tile in pairs of bf16: queries and keys pair their channels, weights and values their keys.

use super::{
    SharedMut,
    attention::{Lane, PANEL, tile_keys},
    attention_products::{Products, Rows},
    pairs::{self, Rounded},
    simd::{exp2, multiversion},
};

/// In pairs of bf16.
pub struct Paired {
    dim: usize,
    /// Queries, transposed: [panels, D / 2, 64].
    q: Vec<pairs::PairLane>,
    /// Keys [keys, D / 2].
    k: Vec<u32>,
    /// Values [keys / 2, D].
    v: Vec<u32>,
    /// The weights of one panel [keys / 2, 64].
    weights: Vec<pairs::PairLane>,
}

impl Paired {
    /// For heads of `dim` channels.
    pub fn new(dim: usize) -> Self {
        Self { dim, q: Vec::new(), k: Vec::new(), v: Vec::new(), weights: Vec::new() }
    }

    /// Bytes for so many queries.
    pub fn bytes(rows: usize, dim: usize) -> u64 {
        let (keys, pairs) = (tile_keys(dim), tile_keys(dim).div_ceil(2));
        (size_of::<u32>() * (rows * dim / 2 + keys * dim / 2 + pairs * (dim + PANEL))) as u64
    }
}

impl Products for Paired {
    fn begin(&mut self, q: &[f32], scale: f32) {
        let depth = self.dim / 2;
        self.q = vec![[0; PANEL]; (q.len() / self.dim).div_ceil(PANEL) * depth];
        let (mut scaled, mut row_pairs) = (vec![0.0; self.dim], vec![0; depth]);
        for (row, values) in q.chunks_exact(self.dim).enumerate() {
            for (scaled, value) in scaled.iter_mut().zip(values) {
                *scaled = value * scale;
            }
            pairs::round_pairs(&scaled, &mut row_pairs);
            for (pair, target) in row_pairs.iter().zip(&mut self.q[row / PANEL * depth..]) {
                target[row % PANEL] = *pair;
            }
        }
    }

    unsafe fn meet(&mut self, Rows { k, v, count }: Rows) {
        // SAFETY: the caller's promise.
        let (k, v) = unsafe {
            (std::slice::from_raw_parts(k, count * self.dim), std::slice::from_raw_parts(v, count * self.dim))
        };
        let depth = count.div_ceil(2);
        self.k.resize(k.len() / 2, 0);
        self.v.resize(depth * self.dim, 0);
        self.weights.resize(depth, [0; PANEL]);
        pairs::round_pairs(k, &mut self.k);
        for (target, rows) in self.v.chunks_mut(self.dim).zip(v.chunks(2 * self.dim)) {
            let (even, odd) = rows.split_at(self.dim);
            match odd {
                [] => pairs::join_rows(even, &vec![0.0; self.dim], target),
                odd => pairs::join_rows(even, odd, target),
            }
        }
    }

    fn scores(&mut self, panel: usize, scores: &mut [Lane]) {
        let depth = self.dim / 2;
        let keys = Rounded { pairs: &self.k, rows: scores.len(), row: depth, step: 1 };
        let q = &self.q[panel * depth..][..depth];
        // SAFETY: `By::of` asked the processor; scores are borrowed mutably.
        unsafe { pairs::product(keys, q, &SharedMut::new(scores.as_flattened_mut()), (0, 0..PANEL), (PANEL, false)) };
    }

    fn weigh(&mut self, scores: &mut [Lane], max: &Lane, sum: &mut Lane) {
        weights_in_pairs(scores, max, &mut self.weights, sum);
    }

    fn add(&mut self, _weights: &[Lane], out: &mut [Lane]) {
        let values = Rounded { pairs: &self.v, rows: self.dim, row: 1, step: self.dim };
        let out = SharedMut::new(out.as_flattened_mut());
        // SAFETY: `By::of` asked the processor; out is borrowed mutably.
        unsafe { pairs::product(values, &self.weights, &out, (0, 0..PANEL), (PANEL, true)) };
    }
}

multiversion! {
    /// Weights of scores against a maximum, of each two keys a pair of bf16; what is summed are those before rounding.
    pub fn weights_in_pairs<FMA>(scores: &[Lane], max: &Lane, weights: &mut [pairs::PairLane], sum: &mut Lane) {
        /// Half of bf16's last place.
        const HALF: u32 = 0x8000;
        let (two, last) = scores.as_chunks::<2>();
        let mut total = [0.0; PANEL];
        for (pair, [even, odd]) in weights.iter_mut().zip(two) {
            for lane in 0..PANEL {
                let low = exp2::<FMA>(even[lane] - max[lane]);
                let high = exp2::<FMA>(odd[lane] - max[lane]);
                total[lane] += low + high;
                // No weight is negative or beyond one, so halves may go up.
                pair[lane] = (low.to_bits().wrapping_add(HALF)) >> 16 | (high.to_bits().wrapping_add(HALF)) & 0xFFFF_0000;
            }
        }
        for (pair, even) in weights.iter_mut().skip(two.len()).zip(last) {
            for lane in 0..PANEL {
                let low = exp2::<FMA>(even[lane] - max[lane]);
                total[lane] += low;
                pair[lane] = (low.to_bits().wrapping_add(HALF)) >> 16;
            }
        }
        for (sum, total) in sum.iter_mut().zip(&total) {
            *sum += total;
        }
    }
}
