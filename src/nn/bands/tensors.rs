//! The kernels on any candle device: a band is an array [rows, W, C], a convolution one matrix product. Written over [`Array`],
//! so that their dry pass is this code.

use super::{Band, Before, Fifo, Kernels, Layer, Meter, Moments, Norm, Reach, Taps, passes, work};
use crate::{
    error::Result,
    nn::{Array, Attention, AttentionTiles, Operation, Parameters, attention_by_tensors, mismatch},
};

/// Attention scores held at once: 64 MiB of f32. At 4096 px that is 64 queries of 262,144 keys.
const SCORES: usize = 1 << 24;

/// Feature maps as tensors of the weights' number type, on the weights' device; shapes in a ledger where it is a dry pass.
pub(crate) struct Tensors<'a> {
    parameters: Parameters,
    meter: Meter<'a>,
}

/// A band [rows, W, C].
#[derive(Clone)]
pub(crate) struct Rows(Array);

impl Band for Rows {
    fn height(&self) -> usize {
        self.0.dim(0)
    }
}

/// Input rows [rows, W + 2, C] of a convolution: two columns of zeros, on the sides the reach asks for.
pub(crate) struct Window(Array);

impl Band for Window {
    fn height(&self) -> usize {
        self.0.dim(0)
    }
}

/// Weights [I, O] of a projection, and O biases.
pub(crate) struct Matrix {
    weight: Array,
    bias: Array,
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
    pub fn new(parameters: &Parameters, meter: Meter<'a>) -> Self {
        Self { parameters: parameters.clone(), meter }
    }
}

/// Which operation of these kernels.
#[derive(Clone, Copy)]
enum Which {
    Window,
    Convolve,
    Project,
    Measure,
}

/// An operation by what it is done with.
fn operation(which: Which, sizes: &[usize]) -> Operation {
    let mut operation = [usize::MAX; 10];
    operation.iter_mut().zip([which as usize].iter().chain(sizes)).for_each(|(place, size)| *place = *size);
    operation
}

/// What tells `before` from others.
fn kind_of(before: Before<'_>) -> usize {
    let norm = |norm: &Norm| usize::from(matches!(norm, Norm::Rms(_)));
    match before {
        Before::Nothing => 0,
        Before::Norm(of) => 1 + norm(of),
        Before::NormSilu(of) => 3 + norm(of),
    }
}

impl Tensors<'_> {
    /// What `work` makes, of this shape. A picture has many bands of few shapes: a dry pass runs each operation over the same
    /// shapes once.
    fn made(&self, which: Operation, shape: [usize; 3], work: impl FnOnce() -> Result<Array>) -> Result<Array> {
        let place = self.parameters.place();
        match place.again(which, work)? {
            Some(made) => Ok(made),
            None => place.zeros(&shape, self.parameters.dtype()),
        }
    }
}

/// The convolution of a window, as one product: [rows, W, O].
fn convolved(filter: &Filter, window: &Array) -> Result<Array> {
    let taps = passes::taps(window, filter.reach)?;
    let Matrix { weight, bias } = &filter.matrix;
    let (height, width, nine_inputs) = taps.dims3()?;
    let product = taps.reshape(&[height * width, nine_inputs])?.matmul(weight)?; // [rows W, O]
    drop(taps);
    product.add(bias)?.reshape(&[height, width, bias.dim(0)])
}

/// All pixels of bands, one after another: [N, C].
fn gathered(bands: Vec<Rows>) -> Result<Array> {
    let bands: Vec<_> = bands.into_iter().map(|band| band.0).collect();
    pixels(&Array::cat(&bands, 0)?)
}

/// Rows [rows, W, C] as pixels [rows W, C].
fn pixels(rows: &Array) -> Result<Array> {
    let (height, width, channels) = rows.dims3()?;
    rows.reshape(&[height * width, channels])
}

impl Kernels for Tensors<'_> {
    type Rows = Rows;
    type Window = Window;
    type Filter = Filter;
    type Projection = Matrix;
    type Keys = (Array, Array); // [N, C] each

    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        let weight = self.parameters.get(&format!("{name}.weight"), &[outputs, inputs, 3, 3])?;
        let weight = weight.permute(&[2, 3, 1, 0])?.reshape(&[9 * inputs, outputs])?;
        let bias = self.parameters.get(&format!("{name}.bias"), &[outputs])?;
        Ok(Filter { reach, matrix: Matrix { weight, bias } })
    }

    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<Matrix> {
        let Layer { name, inputs, outputs } = layer;
        let shape = [outputs, inputs, 1, 1];
        let weight = self.parameters.get(&format!("{name}.weight"), &shape[..if convolution { 4 } else { 2 }])?;
        let weight = weight.reshape(&[outputs, inputs])?.transpose(0, 1)?.contiguous()?; // [I, O]
        Ok(Matrix { weight, bias: self.parameters.get(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&self, name: &str, part: &str, channels: usize) -> Result<Vec<f32>> {
        self.parameters.get(&format!("{name}.{part}"), &[channels])?.to_floats()
    }

    fn slice(&self, rows: &Rows, first: usize, count: usize) -> Result<Rows> {
        Ok(Rows(rows.0.narrow(0, first, count)?))
    }

    /// A driver gives memory in pieces of what a buffer before was cut from: a band that came to lie in the place of a larger one that
    /// comes and goes would keep that place from it, for each band anew. Its statistics have been read by now, so that the driver has
    /// taken back what lies free, and the copy gets room of its own.
    fn kept(&self, Rows(rows): Rows) -> Result<Rows> {
        Ok(Rows(if rows.place().kind().is_cuda() { rows.copied()? } else { rows }))
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        Ok(Rows(Array::cat(&[a.0, b.0], 0)?))
    }

    fn window(&self, reach: Reach, above: Option<Window>, rows: Option<&Rows>, first: Before<'_>) -> Result<Window> {
        let above = match above {
            Some(Window(above)) => {
                let (rows, kept) = (above.dim(0), reach.kept(above.dim(0)));
                Some(above.narrow(0, rows - kept, kept)?)
            }
            None => None,
        };
        let (dims, widened) = match (&above, rows) {
            (_, Some(Rows(rows))) => (rows.dims3()?, 2),
            (Some(above), None) => (above.dims3()?, 0),
            (None, None) => return Err(mismatch("a picture without rows")),
        };
        let kept = above.as_ref().map_or(reach.border(), |above| above.dim(0));
        let shape = [kept + rows.map_or(1, Band::height), dims.1 + widened, dims.2];
        let sizes = [
            reach as usize,
            above.as_ref().map_or(usize::MAX, |above| above.dim(0)),
            rows.map_or(usize::MAX, Band::height),
            shape[1],
            shape[2],
            kind_of(first),
        ];
        let rows = rows.map(|Rows(rows)| rows);
        let made =
            self.made(operation(Which::Window, &sizes), shape, || passes::window((reach, shape), above, rows, first));
        made.map(Window)
    }

    fn convolve(
        &self,
        filter: &Filter,
        Window(window): &Window,
        residual: Option<&Fifo<Rows>>,
        moments: Option<&mut Moments>,
    ) -> Result<Rows> {
        let ((rows, columns, inputs), outputs) = (window.dims3()?, filter.matrix.bias.dim(0));
        let height = filter.reach.output_rows(rows);
        let width = filter.reach.resized(columns - 2);
        let residual = residual.map(|queue| queue.first(height)).unwrap_or_default();
        let sizes = [filter.reach as usize, rows, columns, inputs, outputs, residual.len()];
        let output = self.made(operation(Which::Convolve, &sizes), [height, width, outputs], || {
            let output = convolved(filter, window)?;
            if residual.is_empty() {
                return Ok(output);
            }
            let pieces = residual.into_iter().map(|(band, first, rows)| band.0.narrow(0, first, rows));
            output.add(&Array::cat(&pieces.collect::<Result<Vec<_>>>()?, 0)?)
        })?;
        self.meter.add(work::convolution(inputs, outputs, height * width));
        let output = Rows(output);
        if let Some(moments) = moments {
            self.measure(&output, moments)?;
        }
        Ok(output)
    }

    fn project(&self, matrix: &Matrix, rows: &Rows, first: Before<'_>, residual: Option<&Rows>) -> Result<Rows> {
        let ((height, width, inputs), outputs) = (rows.0.dims3()?, matrix.bias.dim(0));
        let sizes = [height, width, inputs, outputs, kind_of(first), usize::from(residual.is_some())];
        let output = self.made(operation(Which::Project, &sizes), [height, width, outputs], || {
            let product = pixels(&passes::before(&rows.0, first)?)?.matmul(&matrix.weight)?; // [rows W, O]
            let output = product.add(&matrix.bias)?.reshape(&[height, width, outputs])?;
            drop(product);
            match residual {
                Some(residual) => output.add(&residual.0),
                None => Ok(output),
            }
        })?;
        self.meter.add(work::projection(inputs, outputs, height * width));
        Ok(Rows(output))
    }

    fn measure(&self, rows: &Rows, moments: &mut Moments) -> Result<()> {
        let (height, width, channels) = rows.0.dims3()?;
        let which = operation(Which::Measure, &[height, width, channels]);
        let Some((parts, pixels)) = self.parameters.place().again(which, || passes::moments(&rows.0))? else {
            return Ok(());
        };
        if parts.ledger().is_some() {
            return Ok(()); // there are no numbers in a dry pass
        }
        for (at, part) in parts.to_floats()?.chunks(2 * channels).enumerate() {
            let (means, squares) = part.split_at(channels);
            let count = pixels.min(height * width - at * pixels);
            moments
                .merge(count, means.iter().zip(squares).map(|(mean, square)| (f64::from(*mean), f64::from(*square))));
        }
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<(Array, Array)> {
        Ok((gathered(keys)?, gathered(values)?))
    }

    fn attend(&self, queries: &Rows, (keys, values): &(Array, Array)) -> Result<Rows> {
        let ((height, width, channels), count) = (queries.0.dims3()?, values.dim(0));
        let one_head = |x: &Array| x.unsqueeze(0); // [1, n, C]
        let (q, k, v) = (one_head(&pixels(&queries.0)?)?, one_head(keys)?, one_head(values)?);
        let query_rows = (SCORES / count.max(1)).clamp(1, (height * width).max(1));
        let output = attention_by_tensors(&q, &k, &v, &Attention::plain(AttentionTiles { query_rows, heads: 1 }))?;
        self.meter.add(work::attention(height * width, count, channels));
        Ok(Rows(output.reshape(&[height, width, channels])?))
    }

    fn upload(&self, shape: [usize; 3], numbers: Vec<f32>) -> Result<Rows> {
        Ok(Rows(self.parameters.place().floats(&shape, || numbers)?.to_dtype(self.parameters.dtype())?))
    }

    fn download(&self, rows: Rows) -> Result<Vec<f32>> {
        rows.0.to_floats()
    }
}
