//! A 3 x 3 convolution by transformed tiles: fewer multiplications for the same sum.
//!
//! Each tile of 2 x 2 output pixels is A^T [ (G w G^T) * (B^T x B) ] A, in both directions the same small matrices, with
//! the product `*` taken point by point over channels: one matrix product for each of the N x N points.
//!
//! - [`Winograd`]: F(2 x 2, 3 x 3) of Lavin and Gray (arXiv 1509.09308): 16 points for 36 multiplications.
//! - [`Doubled`]: the same for an input doubled by nearest neighbour. A tile then sees pixels a, b, c as a, b, b, c, and
//!   y0 = w0 a + (w1 + w2) b, y1 = (w0 + w1) b + w2 c take three products: w0 (a - b), (w0 + w1 + w2) b, w2 (b - c).
//!   9 points for 36 multiplications, on the small map.

use std::sync::Mutex;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    Rows, Window, direct, elementwise,
    matmul::{View, multiply},
};
use crate::nn::{
    bands::{Fifo, Moments, Reach},
    numbers,
};

/// Channels must be a multiple of this: the widest vector of f32.
const LANES: usize = 16;
/// Tiles of one matrix product: with few channels more of them, or calls would cost more than products.
pub(crate) fn batch(inputs: usize, outputs: usize) -> usize {
    (16_384 / inputs.max(outputs)).clamp(128, 512)
}

/// Rows of tiles that one thread computes at a time, of an output so wide.
pub(crate) fn rows_of_strip(inputs: usize, outputs: usize, width: usize) -> usize {
    (batch(inputs, outputs) / width.div_ceil(2).max(1)).max(1)
}

/// Which transform a convolution takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiling {
    /// [`Winograd`]
    Same,
    /// [`Doubled`]
    Doubled,
}

impl Tiling {
    /// That of a convolution with so many channels; none where only plain products will do.
    pub fn of(inputs: usize, outputs: usize, reach: Reach) -> Option<Self> {
        let whole_vectors = inputs.is_multiple_of(LANES) && outputs.is_multiple_of(LANES);
        match reach {
            Reach::Same => whole_vectors.then_some(Self::Same),
            Reach::Doubled => whole_vectors.then_some(Self::Doubled),
            // Neighbouring outputs share too little of their input.
            Reach::Halved => None,
        }
    }

    /// Points of a tile, N * N.
    pub fn points(self) -> usize {
        match self {
            Self::Same => 16,
            Self::Doubled => 9,
        }
    }
}

/// A pair of transforms, N points in each direction.
trait Scheme<const N: usize> {
    /// Input pixels from one tile to the next.
    const STEP: usize;
    /// G: taps to points.
    fn filter(taps: [f64; 3]) -> [f64; N];
    /// B^T: pixels to points.
    fn input<S: Simd>(simd: S, pixels: [S::f32s; N]) -> [S::f32s; N];
    /// A^T: points to output pixels.
    fn output<S: Simd>(simd: S, points: [S::f32s; N]) -> [S::f32s; 2];
}

struct Winograd;

impl Scheme<4> for Winograd {
    const STEP: usize = 2;

    fn filter([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    fn input<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
        [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
        [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
    }
}

struct Doubled;

impl Scheme<3> for Doubled {
    const STEP: usize = 1;

    fn filter([a, b, c]: [f64; 3]) -> [f64; 3] {
        [a, a + b + c, c]
    }

    #[inline(always)]
    fn input<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 3] {
        [simd.sub_f32s(a, b), b, simd.sub_f32s(b, c)]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 2] {
        [simd.add_f32s(a, b), simd.sub_f32s(b, c)]
    }
}

/// Weights at the points of a scheme.
pub(crate) struct TileFilter {
    tiling: Tiling,
    inputs: usize,
    points: Vec<f32>, // [N * N, I, O]
    bias: Vec<f32>,   // [O]
}

impl TileFilter {
    /// From weights [O, I, 3, 3] and bias (O numbers).
    pub fn new(tiling: Tiling, inputs: usize, weight: &[f32], bias: Vec<f32>) -> Self {
        let points = match tiling {
            Tiling::Same => transform::<4, Winograd>(inputs, weight, bias.len()),
            Tiling::Doubled => transform::<3, Doubled>(inputs, weight, bias.len()),
        };
        Self { tiling, inputs, points, bias }
    }

    /// How it reads its input.
    pub fn reach(&self) -> Reach {
        match self.tiling {
            Tiling::Same => Reach::Same,
            Tiling::Doubled => Reach::Doubled,
        }
    }

    /// See [`Kernels::convolve`](crate::nn::bands::Kernels::convolve).
    pub fn convolve(
        &self,
        window: &Window,
        residual: Option<&Fifo<Rows>>,
        moments: Option<&mut Moments>,
        scratch: &ScratchPool,
    ) -> Rows {
        match self.tiling {
            Tiling::Same => self.run::<4, Winograd>(window, residual, moments, scratch),
            Tiling::Doubled => self.run::<3, Doubled>(window, residual, moments, scratch),
        }
    }

    fn run<const N: usize, Q: Scheme<N>>(
        &self,
        window: &Window,
        residual: Option<&Fifo<Rows>>,
        moments: Option<&mut Moments>,
        scratch: &ScratchPool,
    ) -> Rows {
        let (outputs, doubling) = (self.bias.len(), 2 / Q::STEP);
        let mut output = Rows::blank(doubling * (window.height - 2), doubling * window.width, outputs);
        let (row, across) = (output.row_len(), output.width.div_ceil(2));
        let residual = residual_rows(residual, output.height);
        let batch = batch(self.inputs, outputs);
        let tile_rows = rows_of_strip(self.inputs, outputs, output.width);
        let strips = output.data.par_chunks_mut(2 * tile_rows * row).enumerate();
        let parts: Vec<_> = strips
            .map(|(strip, out)| {
                let mut buffers = scratch.take(N * N * batch * self.inputs, N * N * batch * outputs);
                let residual = residual.as_ref().map(|rows| &rows[2 * tile_rows * strip..]);
                let grid = Grid { first_row: strip * tile_rows, across };
                let tiles = out.len().div_ceil(2 * row) * across;
                for first in (0..tiles).step_by(batch) {
                    let count = batch.min(tiles - first);
                    self.tiles::<N, Q>(window, grid, first, count, residual, &mut buffers, out);
                }
                scratch.give(buffers);
                moments.is_some().then(|| elementwise::sums(out, outputs))
            })
            .collect();
        if let Some(moments) = moments {
            elementwise::merge_all(moments, parts.into_iter().flatten().collect());
        }
        output
    }

    #[expect(clippy::too_many_arguments, reason = "one task's own share of the convolution above")]
    fn tiles<const N: usize, Q: Scheme<N>>(
        &self,
        window: &Window,
        grid: Grid,
        first: usize,
        count: usize,
        residual: Option<&[&[f32]]>,
        buffers: &mut Scratch,
        out: &mut [f32],
    ) {
        let (inputs, outputs) = (self.inputs, self.bias.len());
        let Scratch { input, output } = buffers;
        let gather = Gather::<'_, N, Q> { window, grid, first, count, points: input, scheme: std::marker::PhantomData };
        Arch::new().dispatch(gather);
        for point in 0..N * N {
            let a = View { data: &input[point * count * inputs..][..count * inputs], stride: inputs };
            let b = View { data: &self.points[point * inputs * outputs..], stride: outputs };
            let out = &mut output[point * count * outputs..][..count * outputs];
            multiply([count, inputs, outputs], a, b, out, outputs, false);
        }
        let (width, scheme) = (2 / Q::STEP * window.width, std::marker::PhantomData);
        let bias = &self.bias;
        let points = &*output;
        Arch::new().dispatch(Scatter::<'_, N, Q> { points, grid, first, count, bias, residual, width, out, scheme });
    }
}

/// G w G^T of every filter, [N * N, I, O], from weights [O, I, 3, 3].
fn transform<const N: usize, Q: Scheme<N>>(inputs: usize, weight: &[f32], outputs: usize) -> Vec<f32> {
    let taps = direct::by_tap(inputs, outputs, weight);
    // G's columns: what each tap alone becomes.
    let columns = [Q::filter([1.0, 0.0, 0.0]), Q::filter([0.0, 1.0, 0.0]), Q::filter([0.0, 0.0, 1.0])];
    let mut points = numbers::zeros(N * N * inputs * outputs);
    points.par_chunks_exact_mut(inputs * outputs).enumerate().for_each(|(point, matrix)| {
        for (tap, weights) in taps.chunks_exact(inputs * outputs).enumerate() {
            let factor = (columns[tap / 3][point / N] * columns[tap % 3][point % N]) as f32;
            if factor != 0.0 {
                matrix.iter_mut().zip(weights).for_each(|(point, weight)| *point += factor * weight);
            }
        }
    });
    points
}

/// Where a strip's tiles lie.
#[derive(Clone, Copy)]
struct Grid {
    /// The strip's first row of tiles, counted from the window's top.
    first_row: usize,
    /// Tiles of a row.
    across: usize,
}

/// B^T x B of some tiles: pixels of the window to points [N * N, count, I].
struct Gather<'a, const N: usize, Q> {
    window: &'a Window,
    grid: Grid,
    first: usize,
    count: usize,
    points: &'a mut [f32],
    scheme: std::marker::PhantomData<Q>,
}

impl<const N: usize, Q: Scheme<N>> WithSimd for Gather<'_, N, Q> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let pixels = S::as_simd_f32s(&self.window.data).0;
        let points = S::as_mut_simd_f32s(self.points).0;
        let (lanes, pitch) = (self.window.channels / S::F32_LANES, self.window.pitch());
        for tile in 0..self.count {
            let (y, x) = ((self.first + tile) / self.grid.across, (self.first + tile) % self.grid.across);
            let corner = ((self.grid.first_row + y) * pitch + x) * Q::STEP * lanes;
            for lane in 0..lanes {
                // Loops, not closures: a closure that is not inlined loses the vector instructions.
                let mut rows = [[simd.splat_f32s(0.0); N]; N];
                for (r, row) in rows.iter_mut().enumerate() {
                    for (c, value) in row.iter_mut().enumerate() {
                        *value = pixels[corner + (r * pitch + c) * lanes + lane];
                    }
                    *row = Q::input(simd, *row);
                }
                for c in 0..N {
                    let mut column = [rows[0][c]; N];
                    for r in 1..N {
                        column[r] = rows[r][c];
                    }
                    let column = Q::input(simd, column);
                    for r in 0..N {
                        points[((r * N + c) * self.count + tile) * lanes + lane] = column[r];
                    }
                }
            }
        }
    }
}

/// A^T m A of some tiles: points [N * N, count, O] to pixels of the strip, with bias and residual.
struct Scatter<'a, const N: usize, Q> {
    points: &'a [f32],
    grid: Grid,
    first: usize,
    count: usize,
    bias: &'a [f32],
    residual: Option<&'a [&'a [f32]]>,
    width: usize,
    out: &'a mut [f32],
    scheme: std::marker::PhantomData<Q>,
}

impl<const N: usize, Q: Scheme<N>> WithSimd for Scatter<'_, N, Q> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let points = S::as_simd_f32s(self.points).0;
        let bias = S::as_simd_f32s(self.bias).0;
        let out = S::as_mut_simd_f32s(self.out).0;
        let lanes = bias.len();
        for tile in 0..self.count {
            let at = self.first + tile;
            let (top, left) = (2 * (at / self.grid.across), 2 * (at % self.grid.across));
            for lane in 0..lanes {
                let mut rows = [[bias[lane]; 2]; N];
                for (r, pair) in rows.iter_mut().enumerate() {
                    let mut row = [bias[lane]; N];
                    for (c, value) in row.iter_mut().enumerate() {
                        *value = points[((r * N + c) * self.count + tile) * lanes + lane];
                    }
                    *pair = Q::output(simd, row);
                }
                for (dx, x) in [left, left + 1].into_iter().enumerate() {
                    let mut column = [rows[0][dx]; N];
                    for r in 1..N {
                        column[r] = rows[r][dx];
                    }
                    let column = Q::output(simd, column);
                    for (value, y) in column.into_iter().zip([top, top + 1]) {
                        let to = (y * self.width + x) * lanes + lane;
                        // Tiles hang over where the picture's sides, or a band's rows, are odd.
                        if x >= self.width || to >= out.len() {
                            continue;
                        }
                        let mut value = simd.add_f32s(value, bias[lane]);
                        if let Some(residual) = self.residual {
                            value = simd.add_f32s(value, S::as_simd_f32s(residual[y]).0[x * lanes + lane]);
                        }
                        out[to] = value;
                    }
                }
            }
        }
    }
}

/// The first `rows` rows of a queue, one slice each.
pub(crate) fn residual_rows(residual: Option<&Fifo<Rows>>, rows: usize) -> Option<Vec<&[f32]>> {
    residual.map(|queue| {
        let pieces = queue.first(rows).into_iter();
        let row = |band: &'_ Rows, y: usize| y * band.row_len()..(y + 1) * band.row_len();
        pieces.flat_map(|(band, first, count)| (first..first + count).map(move |y| &band.data[row(band, y)])).collect()
    })
}

/// Points of one task's tiles.
#[derive(Default)]
pub(crate) struct Scratch {
    input: Vec<f32>,  // [N * N, batch, I]
    output: Vec<f32>, // [N * N, batch, O]
}

/// Scratch buffers that are not in use.
#[derive(Default)]
pub(crate) struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    fn take(&self, input: usize, output: usize) -> Scratch {
        let mut scratch = self.0.lock().ok().and_then(|mut pool| pool.pop()).unwrap_or_default();
        if scratch.input.len() < input {
            scratch.input = vec![0.0; input];
        }
        if scratch.output.len() < output {
            scratch.output = vec![0.0; output];
        }
        scratch
    }

    fn give(&self, scratch: Scratch) {
        if let Ok(mut pool) = self.0.lock() {
            pool.push(scratch);
        }
    }
}
