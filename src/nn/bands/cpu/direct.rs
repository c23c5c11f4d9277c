//! A 3 x 3 convolution as three matrix products a row: the plain way, and the way of layers with odd channel counts.
//!
//! In a padded row the three pixels a tap row looks at lie side by side, so each tap row is one product with overlapping
//! rows of 3 I numbers: no patches are copied.

use rayon::prelude::*;

use super::{
    Rows, Window, elementwise,
    matmul::{View, multiply},
    pitch, tiles,
};
use crate::nn::{
    bands::{Fifo, Moments, Reach},
    numbers,
};

/// Weights for plain products.
pub(crate) struct DirectFilter {
    reach: Reach,
    inputs: usize,
    weight: Vec<f32>, // [3, 3 * I, O]
    bias: Vec<f32>,   // [O]
}

impl DirectFilter {
    /// From weights [O, I, 3, 3] and bias (O numbers).
    pub fn new(reach: Reach, inputs: usize, weight: &[f32], bias: Vec<f32>) -> Self {
        let weight = by_tap(inputs, bias.len(), weight);
        Self { reach, inputs, weight, bias }
    }

    /// See [`Kernels::convolve`](crate::nn::bands::Kernels::convolve).
    pub fn convolve(&self, window: &Window, residual: Option<&Fifo<Rows>>, moments: Option<&mut Moments>) -> Rows {
        let doubled;
        let (window, reach) = match self.reach {
            Reach::Doubled => {
                doubled = double(window);
                (&doubled, Reach::Same)
            }
            reach => (window, reach),
        };
        let (height, width, outputs) = (reach.ready(window.height), reach.resized(window.width), self.bias.len());
        let mut output = Rows::blank(height, width, outputs);
        let residual = tiles::residual_rows(residual, output.height);
        let rows = output.data.par_chunks_mut(width * outputs).enumerate();
        let parts: Vec<_> = rows
            .map(|(y, row)| {
                self.row(window, reach, y, row);
                if let Some(residual) = &residual {
                    row.iter_mut().zip(residual[y]).for_each(|(o, r)| *o += r);
                }
                moments.is_some().then(|| elementwise::sums(row, outputs))
            })
            .collect();
        if let Some(moments) = moments {
            elementwise::merge_all(moments, parts.into_iter().flatten().collect());
        }
        output
    }

    fn row(&self, window: &Window, reach: Reach, y: usize, row: &mut [f32]) {
        let (inputs, outputs, three_pixels) = (self.inputs, self.bias.len(), 3 * self.inputs);
        row.chunks_exact_mut(outputs).for_each(|pixel| pixel.copy_from_slice(&self.bias));
        // A window has a zero column on its left whether or not it is looked at.
        let (stride, first) = (reach.stride(), 1 - reach.border());
        for tap in 0..3 {
            let corner = ((stride * y + tap) * window.pitch() + first) * inputs;
            let a = View { data: &window.data[corner..], stride: stride * inputs };
            let b = View { data: &self.weight[tap * three_pixels * outputs..], stride: outputs };
            multiply([row.len() / outputs, three_pixels, outputs], a, b, row, outputs, true);
        }
    }

    /// How it reads its input.
    pub fn reach(&self) -> Reach {
        self.reach
    }
}

/// Weights [O, I, 3, 3] as [3 * 3, I, O].
pub(crate) fn by_tap(inputs: usize, outputs: usize, weight: &[f32]) -> Vec<f32> {
    /// Rows and columns moved together, so that neither side of the transposition leaves the cache.
    const BLOCK: usize = 16;
    let mut taps = numbers::zeros(weight.len());
    taps.par_chunks_exact_mut(inputs * outputs).enumerate().for_each(|(tap, plane)| {
        for (block, first) in (0..outputs).step_by(BLOCK).flat_map(|o| (0..inputs).step_by(BLOCK).map(move |i| (o, i)))
        {
            for input in first..inputs.min(first + BLOCK) {
                for output in block..outputs.min(block + BLOCK) {
                    plane[input * outputs + output] = weight[(output * inputs + input) * 9 + tap];
                }
            }
        }
    });
    taps
}

/// The window of the doubled map: its first and last rows and columns are halves of the halo's.
fn double(window: &Window) -> Window {
    let (height, width, channels) = (2 * (window.height - 2) + 2, 2 * window.width, window.channels);
    let row = pitch(width) * channels;
    let mut data = numbers::zeros((height + 1) * row);
    for (y, to) in data.chunks_exact_mut(row).take(height).enumerate() {
        let from = &window.data[y.div_ceil(2) * window.pitch() * channels..];
        for (x, pixel) in to.chunks_exact_mut(channels).take(width + 2).enumerate() {
            pixel.copy_from_slice(&from[x.div_ceil(2) * channels..][..channels]);
        }
    }
    Window { height, width, channels, data }
}
