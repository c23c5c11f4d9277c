//! Bicubic interpolation along one side, as PyTorch's `interpolate(mode="bicubic")` has it: without antialiasing.

/// The kernel's parameter. PyTorch takes this one; PIL, and PyTorch with antialiasing, take -0.5.
const A: f64 = -0.75;
/// Places that a number is made of.
const TAPS: usize = 4;

/// One side of so many numbers brought to another number of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Bicubic {
    /// For each number, where what it is made of stands, and the weights.
    taps: Vec<([usize; TAPS], [f64; TAPS])>,
}

impl Bicubic {
    /// From `old` numbers, at least one, to `new` ones: the centre of number i lies at (i + 1/2) old/new - 1/2; the borders are
    /// repeated.
    pub fn new(old: usize, new: usize) -> Self {
        let scale = old as f64 / new as f64;
        let taps = |i: usize| {
            let centre = (i as f64 + 0.5) * scale - 0.5;
            let first = centre.floor();
            let place = |tap: usize| ((first as i64 + tap as i64 - 1).max(0) as usize).min(old - 1);
            (std::array::from_fn(place), weights(centre - first))
        };
        Self { taps: (0..new).map(taps).collect() }
    }

    /// Bytes of one that gives so many numbers.
    pub const fn bytes(new: usize) -> usize {
        new * size_of::<([usize; TAPS], [f64; TAPS])>()
    }

    /// How many numbers it gives.
    pub fn outputs(&self) -> usize {
        self.taps.len()
    }

    /// Row `y` of a map [rows, width] whose rows are brought to another number: \[width\].
    pub fn row<T: Copy + Into<f64>>(&self, y: usize, map: &[T], width: usize) -> Vec<f64> {
        let (places, weights) = &self.taps[y];
        let rows = places.map(|place| &map[place * width..][..width]);
        (0..width).map(|x| rows.iter().zip(weights).map(|(row, weight)| row[x].into() * weight).sum()).collect()
    }

    /// A row [columns, channels] with another number of columns.
    pub fn columns(&self, row: &[f64], channels: usize) -> Vec<f64> {
        let mut pixels = vec![0.0; self.taps.len() * channels];
        for (pixel, (places, weights)) in pixels.chunks_exact_mut(channels).zip(&self.taps) {
            for (place, weight) in places.iter().zip(weights) {
                let values = &row[place * channels..][..channels];
                pixel.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * weight);
            }
        }
        pixels
    }
}

/// A map [rows, width] with another number of rows and of columns.
pub fn resized<T: Copy + Into<f64>>(map: &[T], width: usize, rows: &Bicubic, columns: &Bicubic) -> Vec<f64> {
    (0..rows.outputs()).flat_map(|y| columns.columns(&rows.row(y, map, width), 1)).collect()
}

/// The kernel at the four places around a centre that lies `t` behind the second.
///
/// Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981).
fn weights(t: f64) -> [f64; TAPS] {
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}
