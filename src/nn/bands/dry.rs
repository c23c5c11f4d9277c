//! A walk that computes nothing: the same over shapes, which counts bytes and operations.
//!
//! What it says of memory and work therefore follows every change of the order of work by itself. What an operation of the
//! CPU's kernels holds while it runs is told here; those of tensors ([`super::tensors`]) are their own dry pass.

use std::cell::RefCell;

use super::{Band, Before, Fifo, Kernels, Layer, Moments, Reach, Taps, cpu, work};
use crate::{
    base::processor::threads_at_once,
    error::Result,
    nn::{Held, Ledger},
    weights::Expected,
};

/// A band's shape, and the buffer it is in.
#[derive(Clone)]
pub(crate) struct Rows {
    height: usize,
    width: usize,
    channels: usize,
    /// Numbers that its buffer has room for.
    room: usize,
    _held: Held,
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

/// The CPU's kernels, which only count: they compute in f32.
pub(crate) struct Dry {
    ledger: Ledger,
    /// That compute at once.
    threads: usize,
    asked: RefCell<Vec<Expected>>,
}

impl Dry {
    /// Counts into `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, threads: threads_at_once(rayon::current_num_threads()), asked: RefCell::default() }
    }

    /// Names and shapes of the tensors that were asked for.
    pub fn into_asked(self) -> Vec<Expected> {
        self.asked.into_inner()
    }

    fn note(&self, name: &str, part: &str, shape: &[usize]) {
        self.asked.borrow_mut().push((format!("{name}.{part}"), shape.to_vec()));
    }

    fn rows(&self, height: usize, width: usize, channels: usize) -> Rows {
        self.rows_within(height, width, channels, height * width * channels)
    }

    /// A band of this shape in a buffer of so many numbers.
    fn rows_within(&self, height: usize, width: usize, channels: usize, room: usize) -> Rows {
        Rows { height, width, channels, room, _held: self.hold(room) }
    }

    fn hold(&self, elements: usize) -> Held {
        self.ledger.hold(elements, size_of::<f32>())
    }
}

/// Bytes of so many numbers of a feature map.
fn bytes(elements: usize) -> u64 {
    (elements * size_of::<f32>()) as u64
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
        Ok(self.rows(count, rows.width, rows.channels))
    }

    fn join(&self, a: Rows, b: Rows) -> Result<Rows> {
        Ok(self.rows(a.height + b.height, b.width, b.channels))
    }

    fn window(&self, reach: Reach, above: Option<Rows>, rows: Option<&Rows>, _before: Before<'_>) -> Result<Rows> {
        let kept = above.as_ref().map_or(reach.border(), |above| reach.kept(above.height));
        let height = kept + rows.map_or(1, Band::height);
        let (width, channels) = above.as_ref().or(rows).map_or((0, 0), |shape| (shape.width, shape.channels));
        let elements = (height + 1) * cpu::pitch(width) * channels;
        Ok(match above {
            // Its buffer is used again.
            Some(above) if elements <= above.room => Rows { height, ..above },
            _ => self.rows_within(height, width, channels, elements),
        })
    }

    fn convolve(
        &self,
        filter: &Filter,
        window: &Rows,
        _residual: Option<&Fifo<Rows>>,
        _moments: Option<&mut Moments>,
    ) -> Result<Rows> {
        let height = filter.reach.output_rows(window.height);
        let width = filter.reach.resized(window.width);
        let strips = cpu::strips(filter.reach, [window.channels, filter.outputs], [height, width]);
        let scratch = cpu::scratch_elements(window.channels, filter.outputs, filter.reach);
        self.ledger.scratch(bytes(strips.min(self.threads) * scratch));
        let output = self.rows(height, width, filter.outputs);
        self.ledger.work(work::convolution(window.channels, output.channels, output.height * output.width));
        Ok(output)
    }

    fn project(
        &self,
        projection: &Projection,
        rows: &Rows,
        before: Before<'_>,
        _residual: Option<&Rows>,
    ) -> Result<Rows> {
        let (pixels, outputs) = (rows.height * rows.width, projection.outputs);
        self.ledger.work(work::projection(rows.channels, outputs, pixels));
        let output = self.rows(rows.height, rows.width, outputs);
        if !matches!(before, Before::Nothing) {
            // Each thread's task prepares its pixels.
            self.ledger.pass(bytes(pixels.min(self.threads * cpu::PIXELS_OF_A_TASK) * rows.channels));
        }
        Ok(output)
    }

    fn measure(&self, _rows: &Rows, _moments: &mut Moments) -> Result<()> {
        Ok(())
    }

    fn keys(&self, keys: Vec<Rows>, values: Vec<Rows>) -> Result<(usize, Vec<Rows>)> {
        let count = keys.iter().map(|band| band.height * band.width).sum();
        Ok((count, keys.into_iter().chain(values).collect()))
    }

    fn attend(&self, queries: &Rows, keys: &(usize, Vec<Rows>)) -> Result<Rows> {
        let (pixels, channels) = (queries.height * queries.width, queries.channels);
        self.ledger.attending(|| self.ledger.work(work::attention(pixels, keys.0, channels)));
        self.ledger.pass(bytes(pixels * channels) + cpu::attention_bytes(channels, pixels, keys.0));
        Ok(self.rows(queries.height, queries.width, queries.channels))
    }

    fn upload(&self, [height, width, channels]: [usize; 3], _numbers: Vec<f32>) -> Result<Rows> {
        Ok(self.rows(height, width, channels))
    }

    fn download(&self, _rows: Rows) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
}
