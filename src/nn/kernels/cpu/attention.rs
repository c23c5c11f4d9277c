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
const KEYS: usize = 512;
/// Channels that tile is made for; wider heads get fewer keys.
const TILE_DIM: usize = 128;
/// The least a bias counts as: what may not be seen at all has minus infinity, which a running maximum cannot start from.
const LEAST_BIAS: f32 = f32::MIN / 4.0;

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
}

/// Keys of one tile for heads of `dim` channels.
fn tile_keys(dim: usize) -> usize {
    (KEYS * TILE_DIM / dim.max(1)).clamp(PANEL, KEYS)
}

/// Queries of one task, in whole panels.
fn task_rows(query_rows: usize) -> usize {
    query_rows.max(1).next_multiple_of(PANEL)
}

impl Shape {
    /// Bytes of working room that the tasks of one attention take together: scores, queries and outputs of each.
    pub fn working_bytes(&self, query_rows: usize) -> u64 {
        let rows = task_rows(query_rows).min(self.queries.next_multiple_of(PANEL));
        let tasks = (self.heads * self.queries.div_ceil(task_rows(query_rows))).min(rayon::current_num_threads());
        (tasks * size_of::<f32>() * (tile_keys(self.dim) * PANEL + 2 * rows * (self.dim + 1))) as u64
    }
}

/// `softmax(scale·q·kᵀ + bias)·v` for q [H, C, D] and pieces of k and v [K, n, D] into out [C, H·D]; H/K heads of q that
/// follow each other share one of k and v.
pub fn attention(q: &[f32], pieces: &[Piece<'_>], how: &Attention<'_>, out: &mut [f32]) {
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
        let mut panels = Panels::new(q, dim, how.scale);
        let mut seen = 0;
        for piece in pieces {
            let group = head / (heads / groups);
            let of_head = |x: &'_ [f32]| -> *const f32 { x[group * x.len() / groups..].as_ptr() };
            let count = piece.k.len() / groups / dim;
            for start in (0..count).step_by(tile_keys(dim)) {
                let tile = Tile { head, first, key: seen + start, count: tile_keys(dim).min(count - start) };
                if how.bias.hides(tile, rows) {
                    continue;
                }
                // SAFETY: these rows of this head lie within the piece, whose length was checked.
                unsafe { panels.meet(of_head(piece.k).add(start * dim), of_head(piece.v).add(start * dim), tile, how) };
            }
            seen += count;
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
    /// Queries times scale and log2(e), transposed: [panels, D, 64].
    q: Vec<Lane>,
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
    fn new(q: &[f32], dim: usize, scale: f32) -> Self {
        let panels = (q.len() / dim).div_ceil(PANEL);
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
            scores: vec![[0.0; PANEL]; tile_keys(dim)],
        }
    }

    /// Takes one more tile of keys and values into account.
    ///
    /// # Safety
    /// `k` and `v` point to as many rows of `dim` numbers as the tile has keys.
    unsafe fn meet(&mut self, k: *const f32, v: *const f32, tile: Tile, how: &Attention<'_>) {
        let (dim, count) = (self.dim, tile.count);
        for panel in 0..self.max.len() {
            let q = Strided { start: self.q[panel * dim..].as_ptr().cast::<f32>(), rows: 1, columns: PANEL };
            let out = &mut self.out[panel * dim..][..dim];
            let scores = &mut self.scores[..count];
            let target = Strided { start: scores.as_mut_ptr().cast::<f32>(), rows: 1, columns: PANEL };
            let keys = Strided { start: k, rows: 1, columns: dim };
            // SAFETY: q, scores and the rows of k are as long as this asks.
            unsafe { product((PANEL, count, dim), target, false, q, keys) }; // [64, count]
            add_bias(scores, Tile { first: tile.first + panel * PANEL, ..tile }, how);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize, phase: f32, size: f32) -> Vec<f32> {
        (0..count).map(|i| size * (i as f32 * 0.37 + phase).sin() * (i as f32 * 0.011).cos()).collect()
    }

    /// The same in f64 with all scores of a query at once.
    fn plain(q: &[f32], k: &[f32], v: &[f32], shape: Shape, bias: impl Fn(usize, usize, usize) -> f64) -> Vec<f32> {
        let Shape { heads, dim, queries, keys } = shape;
        let mut out = vec![0.0; heads * queries * dim];
        for (head, query) in (0..heads).flat_map(|head| (0..queries).map(move |query| (head, query))) {
            let q = &q[(head * queries + query) * dim..][..dim];
            let score = |key: usize| -> f64 {
                let k = &k[(head * keys + key) * dim..][..dim];
                let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                dot / (dim as f64).sqrt() + bias(head, query, key)
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let maximum = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
            let total: f64 = weights.iter().sum();
            for channel in 0..dim {
                let value = |key: usize| f64::from(v[(head * keys + key) * dim + channel]);
                let sum: f64 = weights.iter().enumerate().map(|(key, weight)| weight * value(key)).sum();
                out[query * heads * dim + head * dim + channel] = (sum / total) as f32;
            }
        }
        out
    }

    fn inputs(shape: Shape) -> [Vec<f32>; 3] {
        let Shape { heads, dim, queries, keys } = shape;
        // Large scores, so that the running maximum rises many times.
        let [q, k] = [wave(heads * queries * dim, 0.1, 4.0), wave(heads * keys * dim, 1.3, 4.0)];
        [q, k, wave(heads * keys * dim, 2.2, 1.0)]
    }

    fn found(q: &[f32], pieces: &[Piece<'_>], shape: Shape, bias: Bias<'_>) -> Vec<f32> {
        let scale = std::f32::consts::LOG2_E / (shape.dim as f32).sqrt();
        let mut out = vec![f32::NAN; q.len()];
        attention(q, pieces, &Attention { shape, scale, bias, query_rows: 128 }, &mut out);
        out
    }

    fn assert_near(found: &[f32], expected: &[f32]) {
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "off by {worst:e}");
    }

    #[test]
    fn keys_in_pieces_give_the_softmax_of_the_whole() {
        // One wide head as a decoder's, keys band by band, none of them whole tiles.
        let shape = Shape { heads: 1, dim: 200, queries: 150, keys: 1500 };
        let [q, k, v] = inputs(shape);
        let piece = |from: usize, to: usize| {
            let numbers = from * shape.dim..to * shape.dim;
            Piece { k: &k[numbers.clone()], v: &v[numbers] }
        };
        let pieces = [piece(0, 700), piece(700, 733), piece(733, 1500)];
        assert_near(&found(&q, &pieces, shape, Bias::None), &plain(&q, &k, &v, shape, |_, _, _| 0.0));
    }

    #[test]
    fn a_bias_of_runs_is_added_to_every_query_of_every_head() {
        let shape = Shape { heads: 2, dim: 16, queries: 70, keys: 1300 };
        let [q, k, v] = inputs(shape);
        // Runs that begin and end within tiles; keys beyond the last run have none.
        let runs = [(300, 1.5), (400, 0.0), (100, -2.0), (7, f32::NEG_INFINITY)];
        let bias = |_, _, key| match key {
            0..300 => 1.5,
            700..800 => -2.0,
            800..807 => f64::NEG_INFINITY,
            _ => 0.0,
        };
        let pieces = [Piece { k: &k, v: &v }];
        assert_near(&found(&q, &pieces, shape, Bias::Runs(&runs)), &plain(&q, &k, &v, shape, bias));
    }

    #[test]
    fn a_bias_of_scores_may_hide_what_comes_later() {
        let shape = Shape { heads: 3, dim: 8, queries: 130, keys: 700 };
        let [q, k, v] = inputs(shape);
        let pieces = [Piece { k: &k, v: &v }];
        // The first tile is hidden from most queries altogether.
        let causal = |query: usize, key: usize| if key + 10 >= query * 5 { 0.0 } else { f32::NEG_INFINITY };
        let shared: Vec<f32> = (0..130).flat_map(|query| (0..700).map(move |key| causal(query, key))).collect();
        let expected = plain(&q, &k, &v, shape, |_, query, key| f64::from(causal(query, key)));
        assert_near(&found(&q, &pieces, shape, Bias::Scores(&shared)), &expected);
        let each = wave(3 * 130 * 700, 0.7, 3.0);
        let expected = plain(&q, &k, &v, shape, |head, query, key| f64::from(each[(head * 130 + query) * 700 + key]));
        assert_near(&found(&q, &pieces, shape, Bias::Scores(&each)), &expected);
    }

    /// Heads of q in threes share one of k and v, and look at nothing after themselves, nor at padding.
    #[test]
    fn grouped_heads_look_back_and_never_at_padding() {
        for (queries, seen) in [(700, 700), (700, 630), (64, 1), (600, 5), (1, 1)] {
            let shape = Shape { heads: 6, dim: 8, queries, keys: queries };
            let [q, ..] = inputs(shape);
            let [_, k, v] = inputs(Shape { heads: 2, ..shape });
            let each = |x: &[f32]| -> Vec<f32> {
                x.chunks(queries * shape.dim).flat_map(|head| [head, head, head].concat()).collect()
            };
            let pieces = [Piece { k: &k, v: &v }];
            let bias = |_, query, key| if key <= query && key < seen { 0.0 } else { f64::NEG_INFINITY };
            let expected = plain(&q, &each(&k), &each(&v), shape, bias);
            assert_near(&found(&q, &pieces, shape, Bias::Causal(seen)), &expected);
        }
    }

    #[test]
    fn a_bias_of_nothing_changes_no_bit() {
        let shape = Shape { heads: 2, dim: 32, queries: 70, keys: 600 };
        let [q, k, v] = inputs(shape);
        let pieces = [Piece { k: &k, v: &v }];
        let without = found(&q, &pieces, shape, Bias::None);
        assert_eq!(found(&q, &pieces, shape, Bias::Runs(&[(600, 0.0)])), without);
    }
}
