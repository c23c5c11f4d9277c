//! The kernels on any candle device: a band is a tensor [rows, W, C], a convolution one matrix product.

use candle_core::{D, DType, Tensor};
use candle_nn::ops;

use super::{Band, Before, Fifo, Kernels, Layer, Meter, Moments, Norm, Reach, Taps, work};
use crate::{
    error::Result,
    nn::{Array, Attention, AttentionTiles, kernels::flash},
    weights::Weights,
};

/// Attention scores held at once: 64 MiB of f32. At 4096 px that is 64 queries of 262,144 keys.
const SCORES: usize = 1 << 24;

/// Scores of one piece of attention of so many queries.
pub(crate) fn scores_at_once(queries: usize, keys: usize) -> usize {
    keys * queries_at_once(queries, keys)
}

/// Queries of one piece.
fn queries_at_once(queries: usize, keys: usize) -> usize {
    (SCORES / keys.max(1)).clamp(1, queries.max(1))
}

/// Feature maps as tensors of the weights' number type, on the weights' device.
pub(crate) struct Tensors<'a> {
    weights: Weights,
    meter: Meter<'a>,
}

/// A band [rows, W, C].
#[derive(Clone)]
pub(crate) struct Rows(pub Tensor);

impl Band for Rows {
    fn height(&self) -> usize {
        self.0.dims().first().copied().unwrap_or(0)
    }
}

/// Input rows [rows, W + 2, C] of a convolution: two columns of zeros, on the sides the reach asks for.
pub(crate) struct Window(Tensor);

impl Band for Window {
    fn height(&self) -> usize {
        self.0.dims().first().copied().unwrap_or(0)
    }
}

/// Weights [I, O] of a projection, and O biases.
pub(crate) struct Matrix {
    weight: Tensor,
    bias: Tensor,
}

/// Weights [9 I, O] of a convolution, tap by tap, and its biases.
pub(crate) struct Filter {
    reach: Reach,
    matrix: Matrix,
}

impl Taps for Filter {
    fn reach(&self) -> Reach {
        self.reach
    }
}

impl<'a> Tensors<'a> {
    /// Kernels that take their weights from here.
    pub fn new(weights: &Weights, meter: Meter<'a>) -> Self {
        Self { weights: weights.clone(), meter }
    }

    fn before(&self, rows: &Tensor, before: Before<'_>) -> Result<Tensor> {
        let norm = |norm: &Norm| -> Result<Tensor> {
            let vector = |values: &[f32]| Tensor::from_slice(values, values.len(), rows.device());
            let rows = rows.to_dtype(DType::F32)?;
            match norm {
                Norm::Group(affine) => {
                    Ok(rows.broadcast_mul(&vector(&affine.scale)?)?.broadcast_add(&vector(&affine.shift)?)?)
                }
                Norm::Rms(gamma) => {
                    let length = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(f64::from(Norm::LEAST_LENGTH))?;
                    Ok(rows.broadcast_div(&length)?.broadcast_mul(&vector(gamma)?)?)
                }
            }
        };
        Ok(match before {
            Before::Nothing => rows.clone(),
            Before::Norm(of) => norm(of)?.to_dtype(rows.dtype())?,
            Before::NormSilu(of) => norm(of)?.silu()?.to_dtype(rows.dtype())?,
        })
    }
}

/// The nine pixels of each output, side by side: [rows, W, 9 I], tap by tap.
///
/// Each tap is copied once to lie in one piece and once to its place: a cat of strided views along the last dimension
/// would write them transposed, and copy all of it again.
fn taps(window: &Tensor, reach: Reach) -> Result<Tensor> {
    let (rows, columns, inputs) = window.dims3()?;
    let (height, width, stride) = (reach.ready(rows), reach.resized(columns - 2), reach.stride());
    let window = phases(window, height, width, stride)?;
    let taps = Tensor::zeros((height, width, 9 * inputs), window.dtype(), window.device())?;
    for (row, column) in (0..3).flat_map(|row| (0..3).map(move |column| (row, column))) {
        let of_row = window.narrow(0, row / stride, height)?.narrow(1, row % stride, 1)?;
        let of_both = of_row.narrow(2, column / stride, width)?.narrow(3, column % stride, 1)?;
        let shifted = of_both.squeeze(3)?.squeeze(1)?.contiguous()?; // [rows, W, I]
        taps.slice_set(&shifted, D::Minus1, (3 * row + column) * inputs)?;
    }
    Ok(taps)
}

/// A window as [rows / stride, stride, columns / stride, stride, I], so that every `stride`-th row is a slice of it.
fn phases(window: &Tensor, height: usize, width: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(window.unsqueeze(1)?.unsqueeze(3)?); // a view, also of a window that does not lie in one piece
    }
    let (rows, columns, inputs) = window.dims3()?;
    // The last tap starts a new group of `stride` rows: no row of it but the first is looked at.
    let (down, across) = (height + 2 / stride, width + 2 / stride);
    let window = window.pad_with_zeros(0, 0, (stride * down).saturating_sub(rows))?;
    let window = window.pad_with_zeros(1, 0, (stride * across).saturating_sub(columns))?;
    let window = window.narrow(0, 0, stride * down)?.narrow(1, 0, stride * across)?;
    Ok(window.reshape((down, stride, across, stride, inputs))?)
}

/// Rows and columns doubled by nearest neighbour, without the outer half of the border.
fn double(window: &Tensor) -> Result<Tensor> {
    let (height, width, channels) = window.dims3()?;
    let doubled = window
        .reshape((height, 1, width, 1, channels))?
        .broadcast_as((height, 2, width, 2, channels))?
        .contiguous()?
        .reshape((2 * height, 2 * width, channels))?;
    Ok(doubled.narrow(0, 1, 2 * height - 2)?.narrow(1, 1, 2 * width - 2)?)
}

impl Kernels for Tensors<'_> {
    type Rows = Rows;
    type Window = Window;
    type Filter = Filter;
    type Projection = Matrix;
    type Keys = (Tensor, Tensor); // [C, N], [N, C]

    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        let weight = self.weights.get(&format!("{name}.weight"), &[outputs, inputs, 3, 3])?;
        let weight = weight.permute((2, 3, 1, 0))?.contiguous()?.reshape((9 * inputs, outputs))?;
        let bias = self.weights.get(&format!("{name}.bias"), &[outputs])?;
        Ok(Filter { reach, matrix: Matrix { weight, bias } })
    }

    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<Matrix> {
        let Layer { name, inputs, outputs } = layer;
        let shape = [outputs, inputs, 1, 1];
        let weight = self.weights.get(&format!("{name}.weight"), &shape[..if convolution { 4 } else { 2 }])?;
        let weight = weight.reshape((outputs, inputs))?.t()?.contiguous()?;
        Ok(Matrix { weight, bias: self.weights.get(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&self, name: &str, part: &str, channels: usize) -> Result<Vec<f32>> {
        Ok(self.weights.get(&format!("{name}.{part}"), &[channels])?.to_dtype(DType::F32)?.to_vec1()?)
    }

    fn slice(&self, rows: &Rows, first: usize, count: usize) -> Result<Rows> {
        Ok(Rows(rows.0.narrow(0, first, count)?))
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        Ok(Rows(Tensor::cat(&[a.0, b.0], 0)?))
    }

    fn window(&self, reach: Reach, above: Option<Window>, rows: Option<&Rows>, before: Before<'_>) -> Result<Window> {
        let border = reach.border();
        let below = match rows {
            Some(rows) => Some(self.before(&rows.0, before)?.pad_with_zeros(1, border, 2 - border)?),
            None => None,
        };
        let above = match above {
            Some(Window(above)) => {
                let (rows, kept) = (above.dim(0)?, reach.kept(above.dim(0)?));
                Some(above.narrow(0, rows - kept, kept)?)
            }
            None => None,
        };
        Ok(Window(match (above, below) {
            (Some(above), Some(below)) => Tensor::cat(&[above, below], 0)?,
            (Some(above), None) => above.pad_with_zeros(0, 0, 1)?,
            (None, Some(below)) => below.pad_with_zeros(0, border, 0)?,
            (None, None) => return Err(candle_core::Error::Msg("a picture without rows".into()).into()),
        }))
    }

    fn convolve(
        &self,
        filter: &Filter,
        Window(window): &Window,
        residual: Option<&Fifo<Rows>>,
        moments: Option<&mut Moments>,
    ) -> Result<Rows> {
        let taps = match filter.reach {
            Reach::Doubled => taps(&double(window)?, Reach::Same)?,
            reach => taps(window, reach)?,
        };
        let Matrix { weight, bias } = &filter.matrix;
        let (height, width, nine_pixels) = taps.dims3()?;
        let (inputs, outputs) = (nine_pixels / 9, bias.dim(0)?);
        let output = taps.reshape((height * width, nine_pixels))?.matmul(weight)?; // [rows W, O]
        drop(taps);
        let mut output = output.broadcast_add(bias)?.reshape((height, width, outputs))?;
        if let Some(queue) = residual {
            let pieces = queue.first(height).into_iter().map(|(band, first, rows)| band.0.narrow(0, first, rows));
            output = (output + Tensor::cat(&pieces.collect::<candle_core::Result<Vec<_>>>()?, 0)?)?;
        }
        self.meter.add(work::convolution(inputs, outputs, height * width));
        let output = Rows(output);
        if let Some(moments) = moments {
            self.measure(&output, moments)?;
        }
        Ok(output)
    }

    fn project(&self, matrix: &Matrix, rows: &Rows, before: Before<'_>, residual: Option<&Rows>) -> Result<Rows> {
        let (height, width, inputs) = rows.0.dims3()?;
        let outputs = matrix.bias.dim(0)?;
        let input = self.before(&rows.0, before)?.reshape((height * width, inputs))?;
        let output = input.matmul(&matrix.weight)?.broadcast_add(&matrix.bias)?.reshape((height, width, outputs))?;
        self.meter.add(work::projection(inputs, outputs, height * width));
        Ok(Rows(match residual {
            Some(residual) => (output + &residual.0)?,
            None => output,
        }))
    }

    fn measure(&self, rows: &Rows, moments: &mut Moments) -> Result<()> {
        let (height, width, channels) = rows.0.dims3()?;
        let pixels = rows.0.reshape((height * width, channels))?.to_dtype(DType::F32)?;
        let mean = pixels.mean_keepdim(0)?;
        let squares = pixels.broadcast_sub(&mean)?.sqr()?.sum(0)?.to_vec1::<f32>()?;
        let mean = mean.flatten_all()?.to_vec1::<f32>()?;
        moments.merge(height * width, mean.iter().zip(&squares).map(|(m, s)| (f64::from(*m), f64::from(*s))));
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<(Tensor, Tensor)> {
        let gather = |bands: Vec<Rows>| -> Result<Tensor> {
            let bands: Vec<_> = bands.into_iter().map(|band| band.0).collect();
            Ok(Tensor::cat(&bands, 0)?.flatten(0, 1)?) // [N, C]
        };
        Ok((gather(keys)?.t()?, gather(values)?))
    }

    fn attend(&self, queries: &Rows, (keys, values): &(Tensor, Tensor)) -> Result<Rows> {
        let (height, width, channels) = queries.0.dims3()?;
        let (count, pixels) = (values.dim(0)?, height * width);
        self.meter.add(work::attention(pixels, count, channels));
        let one_head = |x: &Tensor| x.unsqueeze(0); // [1, n, C]
        let (q, k) = (one_head(&queries.0.flatten(0, 1)?)?, one_head(&keys.t()?)?);
        let (q, k, v) = (Array::from(q), Array::from(k), Array::from(one_head(values)?));
        let how = Attention::plain(AttentionTiles { query_rows: pixels, heads: 1 });
        if let Some(output) = flash::attention(&q, &k, &v, &how)? {
            return Ok(Rows(output.real()?.reshape((height, width, channels))?));
        }
        let scale = 1.0 / (channels as f64).sqrt();
        let queries = (queries.0.flatten(0, 1)? * scale)?; // [n, C]
        let chunk = queries_at_once(pixels, count);
        let mut parts = Vec::new();
        for first in (0..pixels).step_by(chunk) {
            let scores = queries.narrow(0, first, chunk.min(pixels - first))?.matmul(keys)?; // [chunk, N]
            let weights = ops::softmax_last_dim(&scores.to_dtype(DType::F32)?)?.to_dtype(values.dtype())?;
            parts.push(weights.matmul(values)?);
        }
        Ok(Rows(Tensor::cat(&parts, 0)?.reshape((height, width, channels))?))
    }

    fn upload(&self, shape: [usize; 3], numbers: &[f32]) -> Result<Rows> {
        let rows = Tensor::from_slice(numbers, shape.as_slice(), self.weights.device())?;
        Ok(Rows(rows.to_dtype(self.weights.dtype())?))
    }

    fn download(&self, rows: Rows) -> Result<Vec<f32>> {
        Ok(rows.0.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }
}
