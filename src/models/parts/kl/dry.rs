//! A walk that computes nothing: the same over shapes, which counts bytes and operations.
//!
//! What it says of memory and work therefore follows every change of the order of work by itself. What an operation
//! holds while it runs is told here, once for the CPU's kernels and once for those of tensors ([`super::device`]).

use std::{cell::Cell, rc::Rc};

use candle_core::DType;

use super::{
    cpu,
    device::scores_at_once,
    kernels::{Band, Before, Fifo, Kernels, Layer, Meter, Moments, Reach, Taps},
};
use crate::{base::device::DeviceKind, error::Result, nn::kernels::flash, weights::Weights};

/// Bytes of a number in the copies that tensors make where they compute in f32: a norm's input, product and sum, or a
/// measurement's input, differences and squares.
const THREE_F32: usize = 3 * 4;

/// What a dry walk has seen.
pub(super) struct Ledger {
    /// What the walk is planned for; the CPU computes in f32 whatever the number type.
    on: (DeviceKind, DType),
    now: Cell<u64>,
    peak: Cell<u64>,
    /// Numbers in the largest buffer.
    largest: Cell<u64>,
    /// Bytes of the threads' scratch buffers, which are kept.
    scratch: Cell<u64>,
}

impl Ledger {
    /// Nothing seen yet.
    pub fn new(on: (DeviceKind, DType)) -> Self {
        Self { on, now: Cell::new(0), peak: Cell::new(0), largest: Cell::new(0), scratch: Cell::new(0) }
    }

    /// Bytes of a number of a feature map.
    fn width(&self) -> usize {
        self.tensors().map_or(size_of::<f32>(), |dtype| dtype.size_in_bytes())
    }

    /// Whether it is tensors whose memory is counted, and their number type; else it is the CPU's own kernels'.
    fn tensors(&self) -> Option<DType> {
        (!self.on.0.is_cpu()).then_some(self.on.1)
    }

    /// The most bytes held at once.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.get() + self.scratch.get()
    }

    /// Elements of the largest buffer.
    pub fn largest(&self) -> u64 {
        self.largest.get()
    }

    fn hold(&self, elements: u64) {
        self.now.set(self.now.get() + self.width() as u64 * elements);
        self.peak.set(self.peak.get().max(self.now.get()));
        self.largest.set(self.largest.get().max(elements));
    }

    /// Bytes that an operation of tensors takes while it runs; the CPU's kernels have their scratch instead.
    fn pass(&self, bytes: usize) {
        if self.tensors().is_some() {
            self.peak.set(self.peak.get().max(self.now.get() + bytes as u64));
        }
    }
}

/// Some numbers that would be held.
pub(super) struct Held(Rc<Numbers>);

struct Numbers {
    elements: u64,
    ledger: Rc<Ledger>,
}

impl Held {
    fn new(elements: usize, ledger: &Rc<Ledger>) -> Self {
        ledger.hold(elements as u64);
        Self(Rc::new(Numbers { elements: elements as u64, ledger: ledger.clone() }))
    }
}

impl Clone for Held {
    /// The CPU copies; tensors share.
    fn clone(&self) -> Self {
        match self.0.ledger.tensors() {
            None => Self::new(self.0.elements as usize, &self.0.ledger),
            Some(_) => Self(self.0.clone()),
        }
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        let ledger = &self.ledger;
        ledger.now.set(ledger.now.get() - ledger.width() as u64 * self.elements);
    }
}

/// A band's shape.
#[derive(Clone)]
pub(super) struct Rows {
    height: usize,
    width: usize,
    channels: usize,
    _held: Held,
}

impl Band for Rows {
    fn height(&self) -> usize {
        self.height
    }
}

/// A projection's shape.
pub(super) struct Projection {
    outputs: usize,
    _held: Held,
}

/// A convolution's shape.
pub(super) struct Filter {
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
pub(super) struct Dry<'a> {
    ledger: Rc<Ledger>,
    meter: Meter<'a>,
    threads: usize,
    weights: Option<&'a Weights>,
}

impl<'a> Dry<'a> {
    /// Counts into `ledger`; where there are weights, also checks that every tensor is there in its shape.
    pub fn new(ledger: Rc<Ledger>, meter: Meter<'a>, threads: usize, weights: Option<&'a Weights>) -> Self {
        Self { ledger, meter, threads, weights }
    }

    /// A band of this shape.
    pub fn rows(&self, height: usize, width: usize, channels: usize) -> Rows {
        Rows { height, width, channels, _held: Held::new(height * width * channels, &self.ledger) }
    }

    /// Operations counted so far.
    pub fn flops(&self) -> u64 {
        self.meter.flops()
    }

    /// Bytes of so many numbers of a feature map.
    fn bytes(&self, elements: usize) -> usize {
        self.ledger.width() * elements
    }

    /// A window of tensors: the rows after their norm, with a border, and both parts copied together.
    fn window_of_tensors(&self, above: Option<&Rows>, rows: Option<&Rows>, kept: usize) -> Rows {
        let (width, channels) = match (above, rows) {
            (Some(above), _) => (above.width, above.channels),
            (None, rows) => rows.map_or((0, 0), |rows| (rows.width, rows.channels)),
        };
        let new = rows.map_or(1, Band::height);
        self.ledger.pass(THREE_F32 * new * width * channels);
        let _below = self.rows(new, width + 2, channels);
        let held = Held::new((kept + new) * (width + 2) * channels, &self.ledger);
        Rows { height: kept + new, width, channels, _held: held }
    }

    /// A convolution of tensors: its input doubled, nine shifted copies of that side by side, their product; then bias
    /// and residual, each a new tensor, and what measuring takes.
    fn convolve_tensors(&self, window: &Rows, reach: Reach, [height, width, outputs]: [usize; 3]) -> Rows {
        let (pixels, inputs) = (height * width, window.channels);
        let doubled = 4 * window.height * (window.width + 2) * inputs;
        let doubled = (reach == Reach::Doubled).then(|| Held::new(doubled, &self.ledger));
        let taps = Held::new(9 * inputs * pixels, &self.ledger);
        self.ledger.pass(self.bytes(inputs * pixels));
        drop(doubled);
        let output = self.rows(height, width, outputs);
        drop(taps);
        self.ledger.pass(self.bytes(3 * outputs * pixels).max(THREE_F32 * outputs * pixels));
        output
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.weights.map_or(Ok(()), |weights| weights.check(name, shape))
    }
}

impl Kernels for Dry<'_> {
    type Rows = Rows;
    type Window = Rows;
    type Filter = Filter;
    type Projection = Projection;
    type Keys = (usize, Vec<Rows>);

    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        self.check(&format!("{name}.weight"), &[outputs, inputs, 3, 3])?;
        self.check(&format!("{name}.bias"), &[outputs])?;
        if self.ledger.tensors().is_some() {
            // The file's order, until it is copied.
            let _file = Held::new(9 * inputs * outputs, &self.ledger);
            return Ok(Filter { reach, outputs, _held: Held::new(9 * inputs * outputs, &self.ledger) });
        }
        // The file's order is held three times until the kernel's layout is made of it: read, copied, and tap by tap.
        let _file = Held::new(3 * 9 * inputs * outputs, &self.ledger);
        let elements = cpu::filter_elements(inputs, outputs, reach);
        let scratch = 4 * (self.threads * cpu::scratch_elements(inputs, outputs, reach)) as u64;
        self.ledger.scratch.set(self.ledger.scratch.get().max(scratch));
        Ok(Filter { reach, outputs, _held: Held::new(elements, &self.ledger) })
    }

    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<Projection> {
        let Layer { name, inputs, outputs } = layer;
        let shape = [outputs, inputs, 1, 1];
        self.check(&format!("{name}.weight"), &shape[..if convolution { 4 } else { 2 }])?;
        self.check(&format!("{name}.bias"), &[outputs])?;
        self.ledger.pass(self.bytes(2 * inputs * outputs));
        Ok(Projection { outputs, _held: Held::new(inputs * outputs, &self.ledger) })
    }

    fn norm(&self, name: &str, channels: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        self.check(&format!("{name}.weight"), &[channels])?;
        self.check(&format!("{name}.bias"), &[channels])?;
        Ok((vec![0.0; channels], vec![0.0; channels]))
    }

    fn slice(&self, rows: &Rows, _first: usize, count: usize) -> Result<Rows> {
        Ok(match self.ledger.tensors() {
            None => self.rows(count, rows.width, rows.channels),
            Some(_) => Rows { height: count, ..rows.clone() },
        })
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        let height = a.height + b.height;
        let _both = self.ledger.tensors().map(|_| a.clone());
        drop(a);
        Ok(self.rows(height, b.width, b.channels))
    }

    fn window(&self, reach: Reach, above: Option<Rows>, rows: Option<&Rows>, _before: Before<'_>) -> Result<Rows> {
        let kept = above.as_ref().map_or(reach.border(), |above| reach.kept(above.height));
        if self.ledger.tensors().is_some() {
            return Ok(self.window_of_tensors(above.as_ref(), rows, kept));
        }
        let height = kept + rows.map_or(1, Band::height);
        let (width, channels) = above.as_ref().or(rows).map_or((0, 0), |shape| (shape.width, shape.channels));
        drop(above); // its buffer is used again
        let held = Held::new((height + 1) * cpu::pitch(width) * channels, &self.ledger);
        Ok(Rows { height, width, channels, _held: held })
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
        let output = match self.ledger.tensors() {
            None => self.rows(height, width, filter.outputs),
            Some(_) => self.convolve_tensors(window, filter.reach, [height, width, filter.outputs]),
        };
        self.meter.convolved(window.channels, output.channels, output.height * output.width);
        Ok(output)
    }

    fn project(
        &self,
        projection: &Projection,
        rows: &Rows,
        _before: Before<'_>,
        _residual: Option<&Rows>,
    ) -> Result<Rows> {
        let pixels = rows.height * rows.width;
        self.meter.projected(rows.channels, projection.outputs, pixels);
        // The norm; then its result, the product, and bias and residual as new tensors.
        let added = self.bytes((rows.channels + 3 * projection.outputs) * pixels);
        self.ledger.pass(added.max(THREE_F32 * rows.channels * pixels));
        Ok(self.rows(rows.height, rows.width, projection.outputs))
    }

    fn measure(&self, rows: &Rows, _moments: &mut Moments) -> Result<()> {
        self.ledger.pass(THREE_F32 * rows.channels * rows.height * rows.width);
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<(usize, Vec<Rows>)> {
        let count = keys.iter().map(|band| band.height * band.width).sum();
        if self.ledger.tensors().is_some() {
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
        self.meter.attended(pixels, keys.0, channels);
        if let Some(dtype) = self.ledger.tensors() {
            // Scaled queries, the outputs of all pieces, and scores in both number types before and after the softmax.
            let scores = if flash::takes(dtype, channels) { 0 } else { scores_at_once(pixels, keys.0) };
            let width = self.ledger.width();
            self.ledger.pass(self.bytes(2 * pixels * channels) + scores * (2 * width + 2 * size_of::<f32>()));
        }
        Ok(self.rows(queries.height, queries.width, queries.channels))
    }

    fn upload(&self, [height, width, channels]: [usize; 3], _numbers: &[f32]) -> Result<Rows> {
        Ok(self.rows(height, width, channels))
    }

    fn download(&self, rows: Rows) -> Result<Vec<f32>> {
        self.ledger.pass(size_of::<f32>() * rows.channels * rows.height * rows.width);
        Ok(Vec::new())
    }
}
