//! What an autoencoder needs from a device: convolutions, projections and attention over bands of rows.
//!
//! A band is a few whole rows of a feature map, channels fastest: [rows, W, C]. The order of work is
//! written once over [`Kernels`]; the CPU, any candle device, and the dry run that only counts bytes and operations
//! implement it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Fifo, Moments};
use crate::{
    base::progress::{Event, Observer, Stage},
    error::Result,
};

/// Tells how far a stage has come, in millions of floating point operations.
pub(crate) struct Meter<'a> {
    done: AtomicU64,
    stage: Stage,
    observer: &'a dyn Observer,
}

impl<'a> Meter<'a> {
    /// Nothing done yet.
    pub fn new(stage: Stage, observer: &'a dyn Observer) -> Self {
        Self { done: AtomicU64::new(0), stage, observer }
    }

    /// So many more operations are done.
    pub fn add(&self, flops: u64) {
        let done = self.done.fetch_add(flops, Ordering::Relaxed) + flops;
        self.observer.on(Event::Advance { stage: self.stage, done: done / 1_000_000, detail: String::new() });
    }
}

/// Floating point operations, a multiplication and an addition each counting one, as the textbook's algorithm has them.
pub(crate) mod work {
    /// A 3 x 3 convolution that gives so many pixels.
    pub fn convolution(inputs: usize, outputs: usize, pixels: usize) -> u64 {
        18 * (inputs * outputs) as u64 * pixels as u64
    }

    /// A projection that gives so many pixels.
    pub fn projection(inputs: usize, outputs: usize, pixels: usize) -> u64 {
        2 * (inputs * outputs) as u64 * pixels as u64
    }

    /// So many queries that look at so many keys.
    pub fn attention(queries: usize, keys: usize, channels: usize) -> u64 {
        4 * (queries * channels) as u64 * keys as u64
    }
}

/// Some rows, whatever holds their numbers.
pub(crate) trait Band {
    /// Number of rows.
    fn height(&self) -> usize;
}

/// How a 3 x 3 convolution reads its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Each output pixel from the 3 x 3 pixels around it.
    Same,
    /// The same after doubling rows and columns (nearest neighbour), without storing the doubled map.
    Doubled,
    /// Each second pixel of each second row, from itself and the pixels right of and below it: zeros stand on those two
    /// sides only (diffusers' `Downsample2D`, which pads 0 before and 1 after).
    Halved,
}

impl Reach {
    /// Zero rows above the map, and zero columns left of it.
    pub fn border(self) -> usize {
        match self {
            Self::Same | Self::Doubled => 1,
            Self::Halved => 0,
        }
    }

    /// Rows of the window from one output row to the next, before doubling.
    pub fn stride(self) -> usize {
        match self {
            Self::Same | Self::Doubled => 1,
            Self::Halved => 2,
        }
    }

    /// Output rows that a window of `rows` rows is good for, before doubling.
    pub fn ready(self, rows: usize) -> usize {
        (rows + self.stride()).saturating_sub(3) / self.stride()
    }

    /// Output rows of a window of `rows` rows.
    pub fn output_rows(self, rows: usize) -> usize {
        match self {
            Self::Same | Self::Halved => self.ready(rows),
            Self::Doubled => 2 * self.ready(rows),
        }
    }

    /// Rows at the end of a window of `rows` rows that the next window still needs.
    pub fn kept(self, rows: usize) -> usize {
        rows - self.stride() * self.ready(rows)
    }

    /// Columns (or rows) of the output where the map has `length` of them.
    pub fn resized(self, length: usize) -> usize {
        match self {
            Self::Same => length,
            Self::Doubled => 2 * length,
            Self::Halved => length / 2,
        }
    }
}

/// The weights of a 3 x 3 convolution, however a device holds them.
pub(crate) trait Taps {
    /// How it reads its input.
    fn reach(&self) -> Reach;
}

/// The name and size of a convolution or projection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// Name below the weights' root, for example `decoder.conv_in`.
    pub name: &'a str,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
}

/// Scale and shift of every channel: what a group norm is once its statistics are known.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    /// gamma / sqrt(var + eps), C numbers.
    pub scale: Vec<f32>,
    /// beta - mean * scale, C numbers.
    pub shift: Vec<f32>,
}

/// A norm, as far as a band's rows need to know.
#[derive(Debug, Clone)]
pub(crate) enum Norm {
    /// A group norm, whose statistics are known.
    Group(Affine),
    /// Every pixel to a length of its own: x / max(|x|, 1e-12) times these C numbers, which are gamma √C.
    Rms(Vec<f32>),
}

impl Norm {
    /// The length below which a pixel is not made longer (PyTorch, `F.normalize`).
    pub const LEAST_LENGTH: f32 = 1e-12;

    /// The norm over channels of these weights (Wan's `RMS_norm`).
    pub fn rms(gamma: &[f32]) -> Self {
        let root = (gamma.len() as f32).sqrt();
        Self::Rms(gamma.iter().map(|gamma| gamma * root).collect())
    }
}

/// What is done to a band before its convolution or projection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Before<'a> {
    /// Nothing.
    Nothing,
    /// A norm.
    Norm(&'a Norm),
    /// A norm, then SiLU.
    NormSilu(&'a Norm),
}

/// What a device does with bands.
pub(crate) trait Kernels {
    /// A band of a feature map, [rows, W, C].
    type Rows: Band + Clone;
    /// Input rows of a 3 x 3 convolution with the rows above that are still needed.
    type Window: Band;
    /// Weights and bias of a 3 x 3 convolution, laid out for this device.
    type Filter: Taps;
    /// Weights and bias of a projection, laid out for this device.
    type Projection;
    /// Keys and values of the whole map.
    type Keys;

    /// Loads a 3 x 3 convolution `{name}.weight` [O, I, 3, 3], `{name}.bias`, O numbers.
    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Self::Filter>;
    /// Loads a projection: weights [O, I], or [O, I, 1, 1] where `convolution` says so.
    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<Self::Projection>;
    /// Loads gamma, or beta, of a norm: `{name}.weight`, or `{name}.bias`, C numbers.
    fn norm(&self, name: &str, part: &str, channels: usize) -> Result<Vec<f32>>;

    /// The same rows where they can stay for long: not in the midst of memory that others have left and will ask for again.
    ///
    /// # Errors
    /// When the device fails.
    fn kept(&self, rows: Self::Rows) -> Result<Self::Rows> {
        Ok(rows)
    }

    /// The `count` rows from `first`.
    fn slice(&self, rows: &Self::Rows, first: usize, count: usize) -> Result<Self::Rows>;
    /// `a` with `b` below it.
    fn join(&self, a: Self::Rows, b: Self::Rows) -> Result<Self::Rows>;

    /// Puts `rows` (`None`: the zero row below the picture) under those last rows of `above` that are still needed
    /// (`None`: the zero row above the picture, where the reach has one). `before` is applied to the new rows only: a zero
    /// row stays zero.
    fn window(
        &self,
        reach: Reach,
        above: Option<Self::Window>,
        rows: Option<&Self::Rows>,
        before: Before<'_>,
    ) -> Result<Self::Window>;
    /// Convolves the window, adds the first rows of `residual`, and adds the result's statistics to `moments`.
    fn convolve(
        &self,
        filter: &Self::Filter,
        window: &Self::Window,
        residual: Option<&Fifo<Self::Rows>>,
        moments: Option<&mut Moments>,
    ) -> Result<Self::Rows>;
    /// Multiplies every pixel by a matrix: [rows, W, I] -> [rows, W, O], plus `residual`.
    fn project(
        &self,
        projection: &Self::Projection,
        rows: &Self::Rows,
        before: Before<'_>,
        residual: Option<&Self::Rows>,
    ) -> Result<Self::Rows>;
    /// Statistics of a band.
    fn measure(&self, rows: &Self::Rows, moments: &mut Moments) -> Result<()>;

    /// Gathers the keys and values of the whole map from their bands.
    fn keys(&self, keys: Vec<Self::Rows>, values: Vec<Self::Rows>) -> Result<Self::Keys>;
    /// softmax(q k^T / sqrt(C)) v for every pixel of a band, over all pixels of the map.
    fn attend(&self, queries: &Self::Rows, keys: &Self::Keys) -> Result<Self::Rows>;

    /// A band [rows, W, C] of these numbers.
    fn upload(&self, shape: [usize; 3], numbers: Vec<f32>) -> Result<Self::Rows>;
    /// The band's numbers on the host, in f32.
    fn download(&self, rows: Self::Rows) -> Result<Vec<f32>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a map of `rows` rows through windows of bands of `band` rows: the windows' first rows, and the output's rows.
    fn walk(reach: Reach, rows: usize, band: usize) -> (Vec<usize>, usize) {
        let (mut first, mut height, mut output, mut firsts) = (0, reach.border(), 0, Vec::new());
        for new in (0..rows).step_by(band).map(|at| band.min(rows - at)).chain([1]) {
            height += new;
            firsts.push(first);
            output += reach.ready(height);
            first += reach.stride() * reach.ready(height);
            height = reach.kept(height);
        }
        (firsts, output)
    }

    #[test]
    fn windows_of_any_bands_give_every_row_once() {
        for rows in 1..40 {
            for band in 1..=rows {
                assert_eq!(walk(Reach::Same, rows, band).1, rows);
                let (firsts, output) = walk(Reach::Halved, rows, band);
                assert_eq!(output, Reach::Halved.resized(rows), "{rows} rows in bands of {band}");
                assert!(firsts.iter().all(|first| first.is_multiple_of(2)));
            }
        }
    }
}
