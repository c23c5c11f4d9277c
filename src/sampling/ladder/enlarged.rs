//! A decoded picture made larger and sharpened: what a stage of a ladder is started from, row by row, so that the larger picture
//! is never held.

use rayon::prelude::*;

use super::bicubic::Bicubic;
use crate::base::geometry::ImageSize;

/// Red, green, blue.
const CHANNELS: usize = 3;
/// The blur's deviation in pixels. HiFlow draws it from [0.1, 2] each time; this one's kernel is the mean of the draw.
const DEVIATION: f64 = 0.74;
/// Rows that are made together: their numbers are f64 until they are done.
const ROWS_AT_ONCE: usize = 16;

/// A picture [H, W, 3] at a larger size: bicubic, then twice itself less its blur.
#[derive(Debug, Clone, PartialEq)]
pub struct Enlarged {
    picture: Vec<f32>,
    width: usize,
    rows: Bicubic,
    columns: Bicubic,
    /// What the blur takes of a pixel, and of each neighbour.
    kernel: [f64; 2],
}

impl Enlarged {
    /// Rows [H, W, 3] of a picture of size `from` at size `to`.
    pub fn new(picture: Vec<f32>, from: ImageSize, to: ImageSize) -> Self {
        Self::with_deviation(picture, from, to, DEVIATION)
    }

    /// The same, sharpened by a blur of another deviation.
    pub fn with_deviation(picture: Vec<f32>, from: ImageSize, to: ImageSize, deviation: f64) -> Self {
        let side = (-0.5 / (deviation * deviation)).exp();
        let sum = 1.0 + 2.0 * side;
        Self {
            picture,
            width: from.width_px,
            rows: Bicubic::new(from.height_px, to.height_px),
            columns: Bicubic::new(from.width_px, to.width_px),
            kernel: [1.0 / sum, side / sum],
        }
    }

    /// The most bytes that are held of a picture of size `from` while it is given at size `to`.
    pub fn bytes(from: ImageSize, to: ImageSize) -> u64 {
        let picture = 4 * CHANNELS * from.height_px * from.width_px;
        // Plain, blurred and sharp rows, and one on its way between both widths.
        let rows = 3 * (ROWS_AT_ONCE + 2) * to.width_px + from.width_px;
        (picture + 8 * CHANNELS * rows + Bicubic::bytes(to.height_px) + Bicubic::bytes(to.width_px)) as u64
    }

    /// Fills whole rows [rows, W, 3], from this one on.
    pub fn fill(&self, first: usize, rows: &mut [f32]) {
        let width = CHANNELS * self.columns.outputs();
        for (piece, rows) in rows.chunks_mut(ROWS_AT_ONCE * width).enumerate() {
            let values = self.rows(first + piece * ROWS_AT_ONCE, rows.len() / width);
            rows.iter_mut().zip(values).for_each(|(into, value)| *into = value as f32);
        }
    }

    /// So many rows from this one on, [count, W, 3].
    pub fn rows(&self, first: usize, count: usize) -> Vec<f64> {
        // A row more on each side, mirrored at the borders without the row there.
        let last = self.rows.outputs() - 1;
        let places = (0..count + 2).map(|i| mirrored(first + i, last)).collect::<Vec<_>>();
        let plain: Vec<_> = places.par_iter().map(|y| self.plain(*y)).collect();
        let blurred: Vec<_> = plain.par_iter().map(|row| self.blurred(row)).collect();
        let [own, side] = self.kernel;
        let sharp = |y: usize| {
            let (above, here, below) = (&blurred[y], &blurred[y + 1], &blurred[y + 2]);
            let plain = &plain[y + 1];
            (0..plain.len()).map(move |x| 2.0 * plain[x] - (own * here[x] + side * (above[x] + below[x])))
        };
        // Of the size it gets: grown by and by, it would take twice that.
        let mut rows = Vec::with_capacity(count * CHANNELS * self.columns.outputs());
        rows.extend((0..count).flat_map(sharp));
        rows
    }

    /// A row as it is enlarged, [W, 3].
    fn plain(&self, y: usize) -> Vec<f64> {
        self.columns.columns(&self.rows.row(y, &self.picture, self.width * CHANNELS), CHANNELS)
    }

    /// A row blurred along itself, [W, 3].
    fn blurred(&self, row: &[f64]) -> Vec<f64> {
        let [own, side] = self.kernel;
        let last = row.len() / CHANNELS - 1;
        let value = |i: usize| {
            let (x, channel) = (i / CHANNELS, i % CHANNELS);
            let at = |x: usize| row[mirrored(x, last) * CHANNELS + channel];
            own * row[i] + side * (at(x) + at(x + 2))
        };
        (0..row.len()).map(value).collect()
    }
}

/// The place before `next`, of places 0 to `last`; those beyond a border are mirrored there.
fn mirrored(next: usize, last: usize) -> usize {
    match next.checked_sub(1) {
        None => 1.min(last),
        Some(place) if place > last => (2 * last).saturating_sub(place),
        Some(place) => place,
    }
}
