//! A walk that computes nothing: the same over shapes, which counts bytes and operations.
//!
//! What it says of memory and work therefore follows every change of the order of work by itself. What an operation
//! holds while it runs is told here, once for the CPU's kernels and once for those of tensors ([`super::tensors`]).

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use candle_core::DType;

use super::{Band, Before, Fifo, Kernels, Layer, Moments, Reach, Taps, cpu, tensors::scores_at_once, work};
use crate::{
    base::device::DeviceKind,
    error::Result,
    nn::{Held, Ledger, kernels::flash},
    weights::Expected,
};

/// Bytes of a number in the copies that tensors make where they compute in f32: a norm's input, product and sum, or a
/// measurement's input, differences and squares.
const THREE_F32: usize = 3 * 4;

/// A band's shape.
pub(crate) struct Rows {
    height: usize,
    width: usize,
    channels: usize,
    held: Rc<Lent>,
}

impl Clone for Rows {
    /// The CPU copies; tensors share.
    fn clone(&self) -> Self {
        let pool = &self.held.pool;
        let held = match pool.ledger.kind() {
            DeviceKind::Cpu => Rc::new(pool.take(self.height * self.width * self.channels)),
            _ => self.held.clone(),
        };
        Self { held, ..*self }
    }
}

/// Buffers of the CPU's bands, of which a few wait for their next use ([`cpu::IDLE`]); tensors wait for none.
#[derive(Clone)]
struct Pool {
    idle: Rc<RefCell<VecDeque<(usize, Held)>>>,
    ledger: Ledger,
    /// Bytes of a number.
    width: usize,
}

impl Pool {
    fn take(&self, elements: usize) -> Lent {
        let mut idle = self.idle.borrow_mut();
        let fits = idle.iter().position(|(waiting, _)| cpu::is_used_again(*waiting, elements));
        let used_again = fits.and_then(|at| idle.remove(at));
        let new = || (elements, self.ledger.hold(elements, self.width));
        Lent { buffer: Some(used_again.unwrap_or_else(new)), pool: self.clone() }
    }
}

/// A buffer that returns to its pool.
struct Lent {
    buffer: Option<(usize, Held)>,
    pool: Pool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let limit = if self.pool.ledger.kind().is_cpu() { cpu::IDLE } else { 0 };
        let mut idle = self.pool.idle.borrow_mut();
        idle.extend(self.buffer.take());
        let over = idle.len().saturating_sub(limit);
        idle.drain(..over);
    }
}

impl Band for Rows {
    fn height(&self) -> usize {
        self.height
    }
}

/// A projection's shape.
pub(crate) struct Projection {
    outputs: usize,
    _held: Held,
}

/// A convolution's shape.
pub(crate) struct Filter {
    reach: Reach,
    outputs: usize,
    _held: Held,
}

impl Taps for Filter {
    fn reach(&self) -> Reach {
        self.reach
    }
}

/// Kernels that only count.
pub(crate) struct Dry {
    ledger: Ledger,
    pool: Pool,
    /// The number type of tensors whose memory is counted; none where it is the CPU's own kernels'.
    tensors: Option<DType>,
    threads: usize,
    asked: RefCell<Vec<Expected>>,
}

impl Dry {
    /// Counts into `ledger` what computing in this number type takes (the CPU computes in f32 whatever it is).
    pub fn new(ledger: Ledger, dtype: DType) -> Self {
        let tensors = (!ledger.kind().is_cpu()).then_some(dtype);
        let width = tensors.map_or(size_of::<f32>(), |dtype| dtype.size_in_bytes());
        let pool = Pool { idle: Rc::default(), ledger: ledger.clone(), width };
        Self { ledger, pool, tensors, threads: rayon::current_num_threads(), asked: RefCell::default() }
    }

    /// Names and shapes of the tensors that were asked for.
    pub fn into_asked(self) -> Vec<Expected> {
        self.asked.into_inner()
    }

    fn note(&self, name: &str, part: &str, shape: &[usize]) {
        self.asked.borrow_mut().push((format!("{name}.{part}"), shape.to_vec()));
    }

    /// A band of this shape.
    pub fn rows(&self, height: usize, width: usize, channels: usize) -> Rows {
        self.rows_within(height, width, channels, height * width * channels)
    }

    /// A band of this shape in a buffer of so many numbers.
    fn rows_within(&self, height: usize, width: usize, channels: usize, elements: usize) -> Rows {
        Rows { height, width, channels, held: Rc::new(self.pool.take(elements)) }
    }

    fn hold(&self, elements: usize) -> Held {
        self.ledger.hold(elements, self.bytes(1))
    }

    /// Bytes of so many numbers of a feature map.
    fn bytes(&self, elements: usize) -> usize {
        elements * self.pool.width
    }

    /// Bytes that an operation of tensors takes while it runs, launched over so many elements; the CPU's kernels have their
    /// scratch instead.
    fn pass(&self, bytes: usize, launched: usize) {
        if self.tensors.is_some() {
            self.ledger.pass(bytes as u64);
            self.ledger.launch(launched);
        }
    }

    /// A window of tensors: the rows after their norm, with a border, and both parts copied together.
    fn window_of_tensors(&self, above: Option<&Rows>, rows: Option<&Rows>, kept: usize) -> Rows {
        let (width, channels) = above.or(rows).map_or((0, 0), |shape| (shape.width, shape.channels));
        let new = rows.map_or(1, Band::height);
        self.pass(THREE_F32 * new * width * channels, new * width * channels);
        let _below = self.hold(new * (width + 2) * channels);
        self.rows_within(kept + new, width, channels, (kept + new) * (width + 2) * channels)
    }

    /// A convolution of tensors: its input doubled, nine shifted copies of that side by side, their product; then bias
    /// and residual, each a new tensor, and what measuring takes.
    fn convolve_tensors(&self, window: &Rows, reach: Reach, [height, width, outputs]: [usize; 3]) -> Rows {
        let (pixels, inputs) = (height * width, window.channels);
        let doubled = 4 * window.height * (window.width + 2) * inputs;
        let doubled = (reach == Reach::Doubled).then(|| self.hold(doubled));
        let taps = self.hold(9 * inputs * pixels);
        self.pass(self.bytes(inputs * pixels), inputs * pixels);
        drop(doubled);
        let output = self.rows(height, width, outputs);
        drop(taps);
        self.pass(self.bytes(3 * outputs * pixels).max(THREE_F32 * outputs * pixels), outputs * pixels);
        output
    }
}

impl Kernels for Dry {
    type Rows = Rows;
    type Window = Rows;
    type Filter = Filter;
    type Projection = Projection;
    type Keys = (usize, Vec<Rows>);

    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        self.note(name, "weight", &[outputs, inputs, 3, 3]);
        self.note(name, "bias", &[outputs]);
        if self.tensors.is_some() {
            // The file's order, until it is copied.
            let _file = self.hold(9 * inputs * outputs);
            return Ok(Filter { reach, outputs, _held: self.hold(9 * inputs * outputs) });
        }
        // The file's order is held three times until the kernel's layout is made of it: read, copied, and tap by tap.
        let _file = self.hold(3 * 9 * inputs * outputs);
        let elements = cpu::filter_elements(inputs, outputs, reach);
        Ok(Filter { reach, outputs, _held: self.hold(elements) })
    }

    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<Projection> {
        let Layer { name, inputs, outputs } = layer;
        let shape = [outputs, inputs, 1, 1];
        self.note(name, "weight", &shape[..if convolution { 4 } else { 2 }]);
        self.note(name, "bias", &[outputs]);
        // Read, copied, and the other way round.
        let _file = self.hold(2 * inputs * outputs);
        Ok(Projection { outputs, _held: self.hold(inputs * outputs) })
    }

    fn norm(&self, name: &str, part: &str, channels: usize) -> Result<Vec<f32>> {
        self.note(name, part, &[channels]);
        Ok(vec![0.0; channels])
    }

    fn slice(&self, rows: &Rows, _first: usize, count: usize) -> Result<Rows> {
        Ok(match self.tensors {
            None => self.rows(count, rows.width, rows.channels),
            Some(_) => Rows { height: count, ..rows.clone() },
        })
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        self.pass(0, (a.height + b.height) * b.width * b.channels);
        Ok(self.rows(a.height + b.height, b.width, b.channels))
    }

    fn window(&self, reach: Reach, above: Option<Rows>, rows: Option<&Rows>, _before: Before<'_>) -> Result<Rows> {
        let kept = above.as_ref().map_or(reach.border(), |above| reach.kept(above.height));
        if self.tensors.is_some() {
            return Ok(self.window_of_tensors(above.as_ref(), rows, kept));
        }
        let height = kept + rows.map_or(1, Band::height);
        let (width, channels) = above.as_ref().or(rows).map_or((0, 0), |shape| (shape.width, shape.channels));
        drop(above); // its buffer is used again
        Ok(self.rows_within(height, width, channels, (height + 1) * cpu::pitch(width) * channels))
    }

    fn convolve(
        &self,
        filter: &Filter,
        window: &Rows,
        _residual: Option<&Fifo<Rows>>,
        _moments: Option<&mut Moments>,
    ) -> Result<Rows> {
        let ready = filter.reach.ready(window.height);
        let height = if filter.reach == Reach::Doubled { 2 * ready } else { ready };
        let width = filter.reach.resized(window.width);
        let output = match self.tensors {
            None => {
                let strips = cpu::strips(filter.reach, [window.channels, filter.outputs], [height, width]);
                let scratch = cpu::scratch_elements(window.channels, filter.outputs, filter.reach);
                self.ledger.scratch(self.bytes(strips.min(self.threads) * scratch) as u64);
                self.rows(height, width, filter.outputs)
            }
            Some(_) => self.convolve_tensors(window, filter.reach, [height, width, filter.outputs]),
        };
        self.ledger.work(work::convolution(window.channels, output.channels, output.height * output.width));
        Ok(output)
    }

    fn project(
        &self,
        projection: &Projection,
        rows: &Rows,
        _before: Before<'_>,
        _residual: Option<&Rows>,
    ) -> Result<Rows> {
        let (pixels, outputs) = (rows.height * rows.width, projection.outputs);
        self.ledger.work(work::projection(rows.channels, outputs, pixels));
        // The norm; then its result, the product, and bias and residual as new tensors.
        let added = self.bytes((rows.channels + 3 * outputs) * pixels);
        self.pass(added.max(THREE_F32 * rows.channels * pixels), rows.channels.max(outputs) * pixels);
        Ok(self.rows(rows.height, rows.width, outputs))
    }

    fn measure(&self, rows: &Rows, _moments: &mut Moments) -> Result<()> {
        let elements = rows.channels * rows.height * rows.width;
        self.pass(THREE_F32 * elements, elements);
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<(usize, Vec<Rows>)> {
        let count = keys.iter().map(|band| band.height * band.width).sum();
        if self.tensors.is_some() {
            // One tensor of all keys, then one of all values; the bands of each stay until it is made.
            let channels = keys.first().map_or(0, |band| band.channels);
            let gather = |bands: Vec<Rows>| {
                let all = self.rows(1, count, channels);
                drop(bands);
                all
            };
            return Ok((count, vec![gather(keys), gather(values)]));
        }
        Ok((count, keys.into_iter().chain(values).collect()))
    }

    fn attend(&self, queries: &Rows, keys: &(usize, Vec<Rows>)) -> Result<Rows> {
        let (pixels, channels) = (queries.height * queries.width, queries.channels);
        self.ledger.work(work::attention(pixels, keys.0, channels));
        match self.tensors {
            None => {
                self.ledger.pass(self.bytes(pixels * channels) as u64 + cpu::attention_bytes(channels, pixels, keys.0))
            }
            Some(dtype) => {
                // Scaled queries, the outputs of all pieces, and scores in both number types before and after the softmax.
                let scores =
                    if flash::takes(self.ledger.kind(), dtype, channels) { 0 } else { scores_at_once(pixels, keys.0) };
                let widths = 2 * self.bytes(1) + 2 * size_of::<f32>();
                self.pass(self.bytes(2 * pixels * channels) + scores * widths, scores);
            }
        }
        Ok(self.rows(queries.height, queries.width, queries.channels))
    }

    fn upload(&self, [height, width, channels]: [usize; 3], _numbers: &[f32]) -> Result<Rows> {
        Ok(self.rows(height, width, channels))
    }

    fn download(&self, rows: Rows) -> Result<Vec<f32>> {
        // The CPU's numbers are copied too.
        self.ledger.pass((size_of::<f32>() * rows.channels * rows.height * rows.width) as u64);
        Ok(Vec::new())
    }
}
