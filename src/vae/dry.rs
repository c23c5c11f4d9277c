//! A decode that computes nothing: the same walk over shapes, which counts bytes and operations.
//!
//! What it says of memory and work therefore follows every change of the order of work by itself.

use std::{cell::Cell, rc::Rc};

use super::{
    cpu,
    kernels::{Band, Before, Fifo, Kernels, Layer, Meter, Moments, Reach},
};
use crate::{error::Result, weights::Weights};

/// What a dry decode has seen.
#[derive(Default)]
pub(super) struct Ledger {
    now: Cell<u64>,
    peak: Cell<u64>,
    /// Numbers in the largest buffer.
    largest: Cell<u64>,
    /// Bytes of the threads' scratch buffers, which are kept.
    scratch: Cell<u64>,
}

impl Ledger {
    /// The most bytes held at once.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.get() + self.scratch.get()
    }

    /// Elements of the largest buffer.
    pub fn largest(&self) -> u64 {
        self.largest.get()
    }

    fn hold(&self, elements: u64) {
        self.now.set(self.now.get() + 4 * elements);
        self.peak.set(self.peak.get().max(self.now.get()));
        self.largest.set(self.largest.get().max(elements));
    }
}

/// Some f32 numbers that would be held.
pub(super) struct Held {
    elements: u64,
    ledger: Rc<Ledger>,
}

impl Held {
    fn new(elements: usize, ledger: &Rc<Ledger>) -> Self {
        ledger.hold(elements as u64);
        Self { elements: elements as u64, ledger: ledger.clone() }
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self::new(self.elements as usize, &self.ledger)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.now.set(self.ledger.now.get() - 4 * self.elements);
    }
}

/// A band's shape.
#[derive(Clone)]
pub(super) struct Rows {
    height: usize,
    width: usize,
    channels: usize,
    held: Held,
}

impl Band for Rows {
    fn height(&self) -> usize {
        self.height
    }
}

/// A layer's shape.
pub(super) struct Filter {
    reach: Reach,
    outputs: usize,
    _held: Held,
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
        Rows { height, width, channels, held: Held::new(height * width * channels, &self.ledger) }
    }

    /// Operations counted so far.
    pub fn flops(&self) -> u64 {
        self.meter.flops()
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.weights.map_or(Ok(()), |weights| weights.check(name, shape))
    }
}

impl Kernels for Dry<'_> {
    type Rows = Rows;
    type Window = Rows;
    type Filter = Filter;
    type Keys = (usize, Vec<Rows>);

    fn filter(&self, layer: Layer<'_>, reach: Reach) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        self.check(&format!("{name}.weight"), &[outputs, inputs, 3, 3])?;
        self.check(&format!("{name}.bias"), &[outputs])?;
        // The file's order is held three times until the kernel's layout is made of it: read, copied, and tap by tap.
        let _file = Held::new(3 * 9 * inputs * outputs, &self.ledger);
        let elements = cpu::filter_elements(inputs, outputs, reach);
        let scratch = 4 * (self.threads * cpu::scratch_elements(inputs, outputs, reach)) as u64;
        self.ledger.scratch.set(self.ledger.scratch.get().max(scratch));
        Ok(Filter { reach, outputs, _held: Held::new(elements, &self.ledger) })
    }

    fn projection(&self, layer: Layer<'_>, convolution: bool) -> Result<Filter> {
        let Layer { name, inputs, outputs } = layer;
        let shape = [outputs, inputs, 1, 1];
        self.check(&format!("{name}.weight"), &shape[..if convolution { 4 } else { 2 }])?;
        self.check(&format!("{name}.bias"), &[outputs])?;
        Ok(Filter { reach: Reach::Same, outputs, _held: Held::new(inputs * outputs, &self.ledger) })
    }

    fn norm(&self, name: &str, channels: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        self.check(&format!("{name}.weight"), &[channels])?;
        self.check(&format!("{name}.bias"), &[channels])?;
        Ok((vec![0.0; channels], vec![0.0; channels]))
    }

    fn slice(&self, rows: &Rows, _first: usize, count: usize) -> Result<Rows> {
        Ok(self.rows(count, rows.width, rows.channels))
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        let height = a.height + b.height;
        drop(a.held);
        Ok(self.rows(height, b.width, b.channels))
    }

    fn window(&self, above: Option<Rows>, rows: Option<&Rows>, _before: Before<'_>) -> Result<Rows> {
        let kept = if above.is_some() { 2 } else { 1 };
        let height = kept + rows.map_or(1, Band::height);
        let (width, channels) = above.as_ref().or(rows).map_or((0, 0), |shape| (shape.width, shape.channels));
        drop(above); // its buffer is used again
        let held = Held::new((height + 1) * cpu::pitch(width) * channels, &self.ledger);
        Ok(Rows { height, width, channels, held })
    }

    fn ready(&self, window: &Rows) -> usize {
        window.height.saturating_sub(2)
    }

    fn convolve(
        &self,
        filter: &Filter,
        window: &Rows,
        _residual: Option<&Fifo<Rows>>,
        _moments: Option<&mut Moments>,
    ) -> Result<Rows> {
        let factor = if filter.reach == Reach::Doubled { 2 } else { 1 };
        let output = self.rows(factor * (window.height - 2), factor * window.width, filter.outputs);
        self.meter.convolved(window.channels, output.channels, output.height * output.width);
        Ok(output)
    }

    fn project(&self, filter: &Filter, rows: &Rows, _before: Before<'_>, _residual: Option<&Rows>) -> Result<Rows> {
        self.meter.projected(rows.channels, filter.outputs, rows.height * rows.width);
        Ok(self.rows(rows.height, rows.width, filter.outputs))
    }

    fn measure(&self, _rows: &Rows, _moments: &mut Moments) -> Result<()> {
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<(usize, Vec<Rows>)> {
        let count = keys.iter().map(|band| band.height * band.width).sum();
        Ok((count, keys.into_iter().chain(values).collect()))
    }

    fn attend(&self, queries: &Rows, keys: &(usize, Vec<Rows>)) -> Result<Rows> {
        self.meter.attended(queries.height * queries.width, keys.0, queries.channels);
        Ok(self.rows(queries.height, queries.width, queries.channels))
    }

    fn download(&self, _rows: Rows) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
}
