//! The kernels on the CPU: f32, channels last, every thread on its own rows.

mod conv_band;
mod direct;
pub(crate) mod elementwise;
mod matmul;
mod tiles;

use candle_core::DType;
use rayon::prelude::*;

use super::{Band, Before, Fifo, Kernels, Layer, Meter, Moments, Reach, Taps, work};
use crate::{
    error::Result,
    nn::{
        kernels::cpu::attention::{Attention, Bias, Piece, Shape, attention},
        numbers, timed_attention,
    },
    weights::Weights,
};
use tiles::Tiling;

pub use conv_band::ConvBand;
pub(crate) use matmul::PIXELS as PIXELS_OF_A_TASK;

/// Queries of one task of attention: with 512 channels they, their outputs, and the keys and values of a tile take a megabyte.
const QUERY_ROWS: usize = 128;

/// Feature maps as plain f32 slices.
pub(crate) struct Cpu<'a> {
    weights: Weights,
    meter: Meter<'a>,
    scratch: tiles::ScratchPool,
    /// Only plain matrix products, no transformed tiles: what the fast path is tested against.
    plain: bool,
}

/// A band: `height` rows of `width` pixels of `channels` numbers.
#[derive(Clone)]
pub(crate) struct Rows {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<f32>, // [height, width, channels]
}

impl Band for Rows {
    fn height(&self) -> usize {
        self.height
    }
}

impl Rows {
    /// A band whose numbers are of any value.
    fn blank(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels, data: numbers::blank(height * width * channels) }
    }

    fn row_len(&self) -> usize {
        self.width * self.channels
    }
}

/// Input rows of a convolution: a column of zeros on either side, and one row and column to spare, so that tiles of
/// 4 x 4 pixels can be read where the picture's sides are odd.
pub(crate) struct Window {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<f32>, // [height + 1, pitch, channels]
}

impl Band for Window {
    fn height(&self) -> usize {
        self.height
    }
}

impl Window {
    /// Pixels from one row to the next.
    fn pitch(&self) -> usize {
        pitch(self.width)
    }
}

/// Two columns of padding, and one more where the width is odd.
pub(crate) fn pitch(width: usize) -> usize {
    (width + 2).next_multiple_of(2)
}

/// Numbers a convolution's weights take in the layout of its kernel.
pub(crate) fn filter_elements(inputs: usize, outputs: usize, reach: Reach) -> usize {
    inputs * outputs * Tiling::of(inputs, outputs, reach).map_or(9, Tiling::points)
}

/// Numbers a convolution's scratch buffers take on each thread.
pub(crate) fn scratch_elements(inputs: usize, outputs: usize, reach: Reach) -> usize {
    let points = Tiling::of(inputs, outputs, reach).map_or(0, Tiling::points);
    (inputs + outputs) * points * tiles::batch(inputs, outputs)
}

/// Pieces that a convolution's output of `height` rows is made in side by side, each with scratch buffers of its own.
pub(crate) fn strips(reach: Reach, [inputs, outputs]: [usize; 2], [height, width]: [usize; 2]) -> usize {
    match Tiling::of(inputs, outputs, reach) {
        Some(_) => height.div_ceil(2 * tiles::rows_of_strip(inputs, outputs, width)),
        None => height,
    }
}

/// A convolution's weights in the layout of the kernel that uses them.
pub(crate) enum Filter {
    /// By transformed tiles.
    Tiles(tiles::TileFilter),
    /// By plain matrix products.
    Direct(direct::DirectFilter),
}

impl Taps for Filter {
    fn reach(&self) -> Reach {
        match self {
            Self::Tiles(filter) => filter.reach(),
            Self::Direct(filter) => filter.reach(),
        }
    }
}

/// Keys and values of a map, band by band.
pub(crate) struct Keys {
    bands: Vec<(Rows, Rows)>,
    count: usize,
}

/// The sizes of attention by one head of `channels` channels.
fn one_head(channels: usize, queries: usize, keys: usize) -> Shape {
    Shape { heads: 1, dim: channels, queries, keys }
}

/// Bytes of working room that so much attention takes.
pub(crate) fn attention_bytes(channels: usize, queries: usize, keys: usize) -> u64 {
    one_head(channels, queries, keys).working_bytes(QUERY_ROWS, false)
}

impl<'a> Cpu<'a> {
    /// Kernels that take their weights from here.
    pub fn new(weights: &Weights, meter: Meter<'a>, plain: bool) -> Self {
        Self { weights: weights.with_dtype(DType::F32), meter, scratch: tiles::ScratchPool::default(), plain }
    }

    fn load(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.weights.get(name, shape)?.flatten_all()?.to_vec1()?)
    }
}

impl Kernels for Cpu<'_> {
    type Rows = Rows;
    type Window = Window;
    type Filter = Filter;
    type Projection = matmul::Matrix;
    type Keys = Keys;

    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        let weight = self.load(&format!("{name}.weight"), &[outputs, inputs, 3, 3])?;
        let bias = self.load(&format!("{name}.bias"), &[outputs])?;
        Ok(match Tiling::of(inputs, outputs, reach).filter(|_| !self.plain) {
            Some(tiling) => Filter::Tiles(tiles::TileFilter::new(tiling, inputs, &weight, bias)),
            None => Filter::Direct(direct::DirectFilter::new(reach, inputs, &weight, bias)),
        })
    }

    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<matmul::Matrix> {
        let Layer { name, inputs, outputs } = layer;
        let shape = [outputs, inputs, 1, 1];
        let weight = self.load(&format!("{name}.weight"), &shape[..if convolution { 4 } else { 2 }])?;
        let bias = self.load(&format!("{name}.bias"), &[outputs])?;
        Ok(matmul::Matrix::new(inputs, &weight, bias))
    }

    fn norm(&self, name: &str, part: &str, channels: usize) -> Result<Vec<f32>> {
        self.load(&format!("{name}.{part}"), &[channels])
    }

    fn slice(&self, rows: &Rows, first: usize, count: usize) -> Result<Rows> {
        let data = rows.data[first * rows.row_len()..(first + count) * rows.row_len()].to_vec();
        Ok(Rows { height: count, width: rows.width, channels: rows.channels, data })
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        let mut joined = Rows::blank(a.height + b.height, a.width, a.channels);
        let (upper, lower) = joined.data.split_at_mut(a.data.len());
        upper.copy_from_slice(&a.data);
        lower.copy_from_slice(&b.data);
        Ok(joined)
    }

    fn window(&self, reach: Reach, above: Option<Window>, rows: Option<&Rows>, before: Before<'_>) -> Result<Window> {
        Ok(elementwise::window(reach, above, rows, before))
    }

    fn convolve(
        &self,
        filter: &Filter,
        window: &Window,
        residual: Option<&Fifo<Rows>>,
        moments: Option<&mut Moments>,
    ) -> Result<Rows> {
        let output = match filter {
            Filter::Tiles(filter) => filter.convolve(window, residual, moments, &self.scratch),
            Filter::Direct(filter) => filter.convolve(window, residual, moments),
        };
        self.meter.add(work::convolution(window.channels, output.channels, output.height * output.width));
        Ok(output)
    }

    fn project(
        &self,
        matrix: &matmul::Matrix,
        rows: &Rows,
        before: Before<'_>,
        residual: Option<&Rows>,
    ) -> Result<Rows> {
        let output = matrix.project(rows, before, residual);
        self.meter.add(work::projection(rows.channels, output.channels, rows.height * rows.width));
        Ok(output)
    }

    fn measure(&self, rows: &Rows, moments: &mut Moments) -> Result<()> {
        let parts: Vec<_> =
            rows.data.par_chunks(rows.row_len()).map(|row| elementwise::sums(row, rows.channels)).collect();
        elementwise::merge_all(moments, parts);
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<Keys> {
        let count = keys.iter().map(|band| band.height * band.width).sum();
        Ok(Keys { bands: keys.into_iter().zip(values).collect(), count })
    }

    fn attend(&self, queries: &Rows, keys: &Keys) -> Result<Rows> {
        let (pixels, channels) = (queries.height * queries.width, queries.channels);
        let mut output = Rows::blank(queries.height, queries.width, channels);
        let pieces: Vec<_> = keys.bands.iter().map(|(k, v)| Piece { k: &k.data, v: &v.data }).collect();
        let scale = std::f32::consts::LOG2_E / (channels as f32).sqrt();
        let shape = one_head(channels, pixels, keys.count);
        let how = Attention { shape, scale, bias: Bias::None, query_rows: QUERY_ROWS, rounds: false };
        timed_attention(|| attention(&queries.data, &pieces, &how, &mut output.data));
        self.meter.add(work::attention(pixels, keys.count, channels));
        Ok(output)
    }

    fn upload(&self, [height, width, channels]: [usize; 3], numbers: Vec<f32>) -> Result<Rows> {
        debug_assert_eq!(numbers.len(), height * width * channels);
        Ok(Rows { height, width, channels, data: numbers })
    }

    fn download(&self, rows: Rows) -> Result<Vec<f32>> {
        Ok(rows.data)
    }
}
