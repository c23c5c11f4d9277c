//! Exact attention on the CPU: tiles of scores that stay in the second-level cache, softmax as the tiles go by.
//!
//! Scores are held with the queries side by side and one key after another, so that every softmax step is a plain
//! vector operation over queries, and so that a panel of 64 queries is what the matrix product wants unpacked.

use rayon::prelude::*;

use super::{
    REGISTER_ROWS, SharedMut,
    attention_pairs::Paired,
    attention_products::{By, Products, Rows, Tiled, Vectors, tiled_bytes},
    simd::{exp2, multiversion},
    tiles::{MatrixUnit, Task},
    use_unpacked_operands,
};

/// Queries side by side.
pub const PANEL: usize = REGISTER_ROWS;
/// Keys of one tile: 64 x 512 scores and 512 rows of K and V of 128 channels take 0.6 MB, within 1 MB of cache.
const KEYS: usize = 512;
/// Channels that tile is made for; wider heads get fewer keys.
const TILE_DIM: usize = 128;
/// The least a bias counts as: what may not be seen at all has minus infinity, which a running maximum cannot start from.
const LEAST_BIAS: f32 = f32::MIN / 4.0;

/// One vector of a panel, a number for each of its queries.
pub type Lane = [f32; PANEL];

/// Sizes of one attention: `queries` rows of q against `keys` rows of k and v, `heads` of `dim` channels.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// H
    pub heads: usize,
    /// D
    pub dim: usize,
    /// Rows of q.
    pub queries: usize,
    /// Rows of k and v, all pieces together.
    pub keys: usize,
}

/// Some of the keys and values, [K, n, D] each. They need not lie in one place.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Keys [K, n, D].
    pub k: &'a [f32],
    /// Values [K, n, D].
    pub v: &'a [f32],
}

/// What is added to the scores.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// A number for each run of keys, as (count, number), for all heads and queries.
    Runs(&'a [(usize, f32)]),
    /// A number for each score: [H, C, N], or [1, C, N] for all heads alike.
    Scores(&'a [f32]),
    /// Minus infinity where a key comes after the query, or is none of the first so many.
    Causal(usize),
}

impl Bias<'_> {
    /// Whether no query of `first..first + queries` looks at any of a tile's keys.
    fn hides(self, tile: Tile, queries: usize) -> bool {
        matches!(self, Self::Causal(keys) if tile.key >= keys.min(tile.first + queries))
    }
}

/// What one attention is besides its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Its sizes.
    pub shape: Shape,
    /// What scores are multiplied by, times log2(e): the softmax is one in base 2.
    pub scale: f32,
    /// What is then added.
    pub bias: Bias<'a>,
    /// Queries of one task.
    pub query_rows: usize,
    /// Whether q, k, v and the weights of the softmax may be rounded to bf16; sums stay f32.
    pub rounds: bool,
}

/// Keys of one tile for heads of `dim` channels.
pub(super) fn tile_keys(dim: usize) -> usize {
    (KEYS * TILE_DIM / dim.max(1)).clamp(PANEL, KEYS)
}

/// Queries of one task, in whole panels.
fn task_rows(query_rows: usize) -> usize {
    query_rows.max(1).next_multiple_of(PANEL)
}

impl Shape {
    /// Bytes of working room that the tasks of one attention take together: scores, queries and outputs of each.
    pub fn working_bytes(&self, query_rows: usize, rounds: bool) -> u64 {
        let rows = task_rows(query_rows).min(self.queries.next_multiple_of(PANEL));
        let tasks = (self.heads * self.queries.div_ceil(task_rows(query_rows))).min(rayon::current_num_threads());
        let products = match By::of(self, rounds) {
            By::Unit(_) => tiled_bytes(rows, self.dim, rounds),
            By::Pairs => Paired::bytes(rows, self.dim),
            By::Vectors => Vectors::bytes(rows, self.dim),
        };
        tasks as u64 * (products + (size_of::<f32>() * (tile_keys(self.dim) * PANEL + rows * (self.dim + 2))) as u64)
    }
}

/// `softmax(scale·q·kᵀ + bias)·v` for q [H, C, D] and pieces of k and v [K, n, D] into out [C, H·D]; H/K heads of q that
/// follow each other share one of k and v.
pub fn attention(q: &[f32], pieces: &[Piece<'_>], how: &Attention<'_>, out: &mut [f32]) {
    attention_by(By::of(&how.shape, how.rounds), q, pieces, how, out);
}

/// The same by products of one kind.
fn attention_by(by: By, q: &[f32], pieces: &[Piece<'_>], how: &Attention<'_>, out: &mut [f32]) {
    let Shape { heads, dim, queries, keys } = how.shape;
    assert_eq!(q.len(), heads * queries * dim, "q is [H, C, D]");
    let groups = pieces.iter().map(|piece| piece.k.len()).sum::<usize>() / (keys * dim).max(1);
    assert!(groups > 0 && heads.is_multiple_of(groups), "{groups} heads of k and v for {heads} of q");
    assert!(pieces.iter().all(|piece| piece.k.len() == piece.v.len() && piece.k.len().is_multiple_of(groups * dim)));
    assert_eq!(pieces.iter().map(|piece| piece.k.len()).sum::<usize>(), groups * keys * dim, "k and v are [K, N, D]");
    assert_eq!(out.len(), heads * queries * dim, "out is [C, H·D]");
    use_unpacked_operands();
    let block = task_rows(how.query_rows);
    let out = SharedMut::new(out);
    (0..heads * queries.div_ceil(block)).into_par_iter().with_max_len(1).for_each(|task| {
        let (head, first) = (task / queries.div_ceil(block), task % queries.div_ceil(block) * block);
        let rows = block.min(queries - first);
        let q = &q[(head * queries + first) * dim..][..rows * dim];
        let walk = Walk { q, pieces, how, groups, head, first, out: &out };
        match by {
            By::Unit(unit) => unit.run(walk),
            By::Pairs => walk.with(&mut Paired::new(dim)),
            By::Vectors => walk.with(&mut Vectors::new(dim)),
        }
    });
}

/// The work of one task: some queries of one head.
struct Walk<'a> {
    /// [rows, D]
    q: &'a [f32],
    pieces: &'a [Piece<'a>],
    how: &'a Attention<'a>,
    /// Heads of k and v.
    groups: usize,
    head: usize,
    /// The first query.
    first: usize,
    out: &'a SharedMut<'a>,
}

impl Task for Walk<'_> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        let (dim, rounds) = (self.how.shape.dim, self.how.rounds);
        self.with(&mut Tiled::new(unit, dim, rounds));
    }
}

impl Walk<'_> {
    fn with(self, products: &mut impl Products) {
        let Shape { heads, dim, .. } = self.how.shape;
        let rows = self.q.len() / dim;
        products.begin(self.q, self.how.scale);
        let mut panels = Panels::new(rows, dim);
        let mut seen = 0;
        for piece in self.pieces {
            let group = self.head / (heads / self.groups);
            let of_head = |x: &'_ [f32]| -> *const f32 { x[group * x.len() / self.groups..].as_ptr() };
            let keys = piece.k.len() / self.groups / dim;
            for start in (0..keys).step_by(tile_keys(dim)) {
                let count = tile_keys(dim).min(keys - start);
                let tile = Tile { head: self.head, first: self.first, key: seen + start, count };
                if self.how.bias.hides(tile, rows) {
                    continue;
                }
                // SAFETY: these rows of this head lie within the piece, whose length was checked, and which outlives the task.
                unsafe {
                    let [k, v] = [piece.k, piece.v].map(|x| of_head(x).add(start * dim));
                    products.meet(Rows { k, v, count });
                }
                panels.meet(products, tile, self.how);
            }
            seen += keys;
        }
        for row in 0..rows {
            // SAFETY: each (head, query) is written by one task, within [C, H·D].
            let target = unsafe { self.out.slice((self.first + row) * heads * dim + self.head * dim, dim) };
            panels.write(row, target);
        }
    }
}

/// A block of queries of one head on its way through the keys.
struct Panels {
    dim: usize,
    /// Unnormalised outputs, transposed: [panels, D, 64].
    out: Vec<Lane>,
    /// Running maximum and sum of each query's scores: [panels, 64].
    max: Vec<Lane>,
    sum: Vec<Lane>,
    /// One tile of scores: [keys, 64].
    scores: Vec<Lane>,
}

/// Which scores are at hand: of one head, queries from `first` on, `count` keys from `key` on.
#[derive(Clone, Copy)]
struct Tile {
    head: usize,
    first: usize,
    key: usize,
    count: usize,
}

impl Panels {
    fn new(rows: usize, dim: usize) -> Self {
        let panels = rows.div_ceil(PANEL);
        Self {
            dim,
            out: vec![[0.0; PANEL]; panels * dim],
            max: vec![[f32::NEG_INFINITY; PANEL]; panels],
            sum: vec![[0.0; PANEL]; panels],
            scores: vec![[0.0; PANEL]; tile_keys(dim)],
        }
    }

    /// Takes the keys and values into account that `products` has met.
    fn meet(&mut self, products: &mut impl Products, tile: Tile, how: &Attention<'_>) {
        for panel in 0..self.max.len() {
            let out = &mut self.out[panel * self.dim..][..self.dim];
            let scores = &mut self.scores[..tile.count];
            products.scores(panel, scores);
            add_bias(scores, Tile { first: tile.first + panel * PANEL, ..tile }, how);
            let (max, sum) = (&mut self.max[panel], &mut self.sum[panel]);
            raise_maximum(scores, max, sum, out);
            products.weigh(scores, max, sum);
            products.add(scores, out);
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

/// Adds the bias to a tile of scores [keys, 64], in base 2 as they are.
fn add_bias(scores: &mut [Lane], tile: Tile, how: &Attention<'_>) {
    let in_base_2 = |bias: f32| bias.max(LEAST_BIAS) * std::f32::consts::LOG2_E;
    match how.bias {
        Bias::None => {}
        Bias::Causal(seen) => {
            for (score, key) in scores.iter_mut().zip(tile.key..) {
                let hidden = if key < seen { key.saturating_sub(tile.first).min(PANEL) } else { PANEL };
                score[..hidden].fill(LEAST_BIAS);
            }
        }
        Bias::Runs(runs) => {
            let mut start = 0;
            for &(count, bias) in runs {
                let keys = start.max(tile.key)..(start + count).min(tile.key + tile.count);
                start += count;
                if bias == 0.0 || keys.is_empty() {
                    continue;
                }
                for key in &mut scores[keys.start - tile.key..keys.end - tile.key] {
                    key.iter_mut().for_each(|score| *score += in_base_2(bias));
                }
            }
        }
        Bias::Scores(values) => {
            let Shape { queries, keys, .. } = how.shape;
            // One bias for all heads, or one of each.
            let head = tile.head * usize::from(values.len() > queries * keys);
            for lane in 0..PANEL.min(queries - tile.first) {
                let row = &values[(head * queries + tile.first + lane) * keys + tile.key..][..tile.count];
                for (score, bias) in scores.iter_mut().zip(row) {
                    score[lane] += in_base_2(*bias);
                }
            }
        }
    }
}

multiversion! {
    /// The beginning of an online softmax in base 2: the running maximum becomes that of a tile's scores too, and what was summed
    /// against the old one is scaled to it. Source: Milakov and Gimelshein, arXiv 1805.02867.
    pub fn raise_maximum<FMA>(scores: &[Lane], max: &mut Lane, sum: &mut Lane, out: &mut [Lane]) {
        let mut new_max = *max;
        for key in scores {
            for (m, s) in new_max.iter_mut().zip(key) {
                *m = if *s > *m { *s } else { *m };
            }
        }
        if new_max == *max {
            return;
        }
        let mut factor = [0.0; PANEL];
        for lane in 0..PANEL {
            factor[lane] = exp2::<FMA>(max[lane] - new_max[lane]);
            sum[lane] *= factor[lane];
        }
        for channel in out.iter_mut() {
            for (o, f) in channel.iter_mut().zip(&factor) {
                *o *= f;
            }
        }
        *max = new_max;
    }
}

multiversion! {
    /// What follows: scores become their weights against the maximum, and are summed.
    pub fn weigh_tile<FMA>(scores: &mut [Lane], max: &Lane, sum: &mut Lane) {
        let mut total = [0.0; PANEL];
        for key in scores {
            for lane in 0..PANEL {
                let weight = exp2::<FMA>(key[lane] - max[lane]);
                key[lane] = weight;
                total[lane] += weight;
            }
        }
        for (sum, total) in sum.iter_mut().zip(&total) {
            *sum += total;
        }
    }
}

#[cfg(test)]
mod tests;
