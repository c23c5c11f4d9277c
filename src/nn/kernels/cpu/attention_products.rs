//! The two products of an attention's tile: by vectors, here or in [pairs](super::attention_pairs), or in the tiles of a matrix unit.

use super::{
    Strided,
    attention::{Lane, PANEL, Shape, tile_keys, weigh_tile},
    pairs, product,
    tiles::{self, DEPTH, MatrixUnit, Operand, Target, Terms, Unit, bytes},
};

/// Where rows of keys and values lie, one after another.
#[derive(Clone, Copy)]
pub struct Rows {
    pub k: *const f32,
    pub v: *const f32,
    pub count: usize,
}

/// How the products of a task are computed.
pub trait Products {
    /// Takes the queries of the task, times scale and log2(e): rows of `dim` numbers.
    fn begin(&mut self, q: &[f32], scale: f32);

    /// Takes the next keys and values.
    ///
    /// # Safety
    /// They stay where they are as long as this uses them.
    unsafe fn meet(&mut self, rows: Rows);

    /// Scores [keys, 64] of a panel of queries.
    fn scores(&mut self, panel: usize, scores: &mut [Lane]);

    /// Makes weights of scores [keys, 64] against a maximum, for [`Products::add`], and adds them to their sums.
    fn weigh(&mut self, scores: &mut [Lane], max: &Lane, sum: &mut Lane) {
        weigh_tile(scores, max, sum);
    }

    /// Adds to `out` [D, 64] the values by their weights [keys, 64].
    fn add(&mut self, weights: &[Lane], out: &mut [Lane]);
}

/// By vectors.
pub struct Vectors {
    dim: usize,
    /// Queries, transposed: [panels, D, 64].
    q: Vec<Lane>,
    rows: Rows,
}

impl Vectors {
    /// For heads of `dim` channels.
    pub fn new(dim: usize) -> Self {
        Self { dim, q: Vec::new(), rows: Rows { k: std::ptr::null(), v: std::ptr::null(), count: 0 } }
    }

    /// Bytes for so many queries.
    pub fn bytes(rows: usize, dim: usize) -> u64 {
        (rows * dim * size_of::<f32>()) as u64
    }
}

impl Products for Vectors {
    fn begin(&mut self, q: &[f32], scale: f32) {
        let panels = (q.len() / self.dim).div_ceil(PANEL);
        self.q = vec![[0.0; PANEL]; panels * self.dim];
        for (row, values) in q.chunks_exact(self.dim).enumerate() {
            for (channel, value) in values.iter().enumerate() {
                self.q[row / PANEL * self.dim + channel][row % PANEL] = value * scale;
            }
        }
    }

    unsafe fn meet(&mut self, rows: Rows) {
        self.rows = rows;
    }

    fn scores(&mut self, panel: usize, scores: &mut [Lane]) {
        let Rows { k, count, .. } = self.rows;
        assert_eq!(scores.len(), count, "a score for each key");
        let q = Strided { start: self.q[panel * self.dim..].as_ptr().cast::<f32>(), rows: 1, columns: PANEL };
        let target = Strided { start: scores.as_mut_ptr().cast::<f32>(), rows: 1, columns: PANEL };
        let keys = Strided { start: k, rows: 1, columns: self.dim };
        // SAFETY: q, scores and the rows of k are as long as this asks.
        unsafe { product((PANEL, count, self.dim), target, false, q, keys) }; // [64, count]
    }

    fn add(&mut self, weights: &[Lane], out: &mut [Lane]) {
        let Rows { v, count, .. } = self.rows;
        assert!(weights.len() == count && out.len() == self.dim, "a weight for each value");
        let weights = Strided { start: weights.as_ptr().cast::<f32>(), rows: 1, columns: PANEL };
        let sums = Strided { start: out.as_mut_ptr().cast::<f32>(), rows: 1, columns: PANEL };
        let values = Strided { start: v, rows: self.dim, columns: 1 };
        // SAFETY: weights, out and the rows of v are as long as this asks.
        unsafe { product((PANEL, self.dim, count), sums, true, weights, values) }; // [64, D]
    }
}

/// How exactly attention is computed: every number in two halves, but for the product of the two low ones; or rounded to bf16.
fn terms(rounds: bool) -> Terms {
    if rounds { Terms::One } else { Terms::Three }
}

/// By what an attention's products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Vectors of f32.
    Vectors,
    /// Pairs of bf16.
    Pairs,
    /// The tiles of a unit.
    Unit(Unit),
}

impl By {
    /// What takes attention of this shape; `rounds` says that bf16's products will do.
    pub fn of(shape: &Shape, rounds: bool) -> Self {
        let is_whole = shape.queries >= PANEL && shape.keys >= PANEL;
        match tiles::unit().filter(|_| is_whole && shape.dim >= DEPTH) {
            Some(unit) => Self::Unit(unit),
            None if is_whole && rounds && shape.dim.is_multiple_of(2) && pairs::pay() => Self::Pairs,
            None => Self::Vectors,
        }
    }
}

/// In the tiles of a unit.
pub struct Tiled<'u, U> {
    unit: &'u mut U,
    dim: usize,
    terms: Terms,
    /// Queries of each panel.
    q: Vec<Operand>,
    /// Keys [keys, D] and values [D, keys].
    k: Operand,
    v: Operand,
}

impl<'u, U: MatrixUnit> Tiled<'u, U> {
    /// For heads of `dim` channels; `rounds` says that bf16's products will do.
    pub fn new(unit: &'u mut U, dim: usize, rounds: bool) -> Self {
        Self { unit, dim, terms: terms(rounds), q: Vec::new(), k: Operand::empty(), v: Operand::empty() }
    }
}

/// Bytes in tiles for so many queries.
pub fn tiled_bytes(rows: usize, dim: usize, rounds: bool) -> u64 {
    let (keys, terms) = (tile_keys(dim), terms(rounds));
    let left = |rows, numbers| Operand::tiles(rows, numbers, terms.left());
    let right = |columns, numbers| Operand::tiles(columns, numbers, terms.right());
    bytes(rows.div_ceil(PANEL) * right(PANEL, dim) + left(keys, dim) + left(dim, keys) + right(PANEL, keys))
}

impl<U: MatrixUnit> Products for Tiled<'_, U> {
    fn begin(&mut self, q: &[f32], scale: f32) {
        let (dim, halves) = (self.dim, self.terms.right());
        let panel = |q: &[f32]| {
            Operand::right(q.len() / dim, dim, halves, |query, from, out| {
                for (out, value) in out.iter_mut().zip(&q[query * dim + from..]) {
                    *out = value * scale;
                }
            })
        };
        self.q = q.chunks(PANEL * dim).map(panel).collect();
    }

    unsafe fn meet(&mut self, Rows { k, v, count }: Rows) {
        // What was there leaves before the next comes.
        (self.k, self.v) = (Operand::empty(), Operand::empty());
        // SAFETY: the caller's promise.
        let (k, v) = unsafe {
            (std::slice::from_raw_parts(k, count * self.dim), std::slice::from_raw_parts(v, count * self.dim))
        };
        self.k = Operand::left_here(k, self.dim, self.terms);
        self.v = Operand::left_transposed(v, self.dim, self.terms);
    }

    fn scores(&mut self, panel: usize, scores: &mut [Lane]) {
        let columns = self.q[panel].columns().min(PANEL);
        let target = Target { start: scores.as_mut_ptr().cast(), stride: PANEL, rows: scores.len(), columns };
        // SAFETY: scores are rows of 64.
        unsafe { tiles::product(self.unit, (&self.k, 0..scores.len()), &self.q[panel], self.terms, (target, false)) };
    }

    fn add(&mut self, weights: &[Lane], out: &mut [Lane]) {
        let weights = Operand::right_by_rows(weights, self.terms.right());
        let target = Target { start: out.as_mut_ptr().cast(), stride: PANEL, rows: self.dim, columns: PANEL };
        assert_eq!(out.len(), self.dim, "out is [D, 64]");
        // SAFETY: out is rows of 64.
        unsafe { tiles::product(self.unit, (&self.v, 0..self.dim), &weights, self.terms, (target, true)) };
    }
}
