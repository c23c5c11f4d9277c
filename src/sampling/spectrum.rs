//! The spectrum of latents, for methods that look at it.
//!
//! Source: SEGA (arXiv 2605.22668) and its authors' transformer: one number a token, transformed along each axis and in the
//! plane. Bins are found in whole numbers here; the authors' f32 leaves some of them empty at sizes that are no power of two.

use candle_core::{DType, Tensor};

use crate::{
    base::{
        fourier::{power, power_of_rows, transposed},
        geometry::TokenGrid,
    },
    error::{Error, Result},
    methods::Spectrum,
};

/// The spectrum of latents [1, N, C], N tokens of the grid row by row, through `reading` \[C\]: each token becomes the sum of its
/// channels so weighted, and the mean over the tokens is taken away.
///
/// It depends on nothing else, so that a run that goes on from a checkpoint sees the same.
///
/// # Errors
/// [`Error::Request`] when the latents are not of the grid or the reading; [`Error::Tensor`] when the device fails.
pub fn spectrum(latents: &Tensor, grid: TokenGrid, reading: &[f64]) -> Result<Spectrum> {
    if latents.dims() != [1, grid.count(), reading.len()] {
        let what =
            format!("latents have shape {:?}, expected [1, {}, {}]", latents.dims(), grid.count(), reading.len());
        return Err(Error::request(what, "they belong to another size or model"));
    }
    let values: Vec<f32> = latents.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let read = |token: &[f32]| token.iter().zip(reading).map(|(value, weight)| f64::from(*value) * weight).sum();
    Ok(of_map(values.chunks(reading.len()).map(read).collect(), grid))
}

/// The spectrum of one number a token, [rows, columns].
fn of_map(mut map: Vec<f64>, grid: TokenGrid) -> Spectrum {
    let columns = grid.width_patches;
    let mean = map.iter().sum::<f64>() / map.len() as f64;
    map.iter_mut().for_each(|value| *value -= mean);
    Spectrum {
        height: profile(&transposed(&map, columns), grid.height_patches),
        width: profile(&map, columns),
        rings: rings(&power(&map, columns), grid),
    }
}

/// Mean power of lines [count, length] from 0 to length/2 cycles [max(length/2, 1)], the last two as one.
fn profile(lines: &[f64], length: usize) -> Vec<f64> {
    let power = power_of_rows(lines, length);
    let count = (lines.len() / length) as f64;
    let mean = |cycles: usize| power.iter().skip(cycles).step_by(length).sum::<f64>() / count;
    let mut bins: Vec<f64> = (0..=length / 2).map(mean).collect();
    if let [.., before, nyquist] = &mut bins[..] {
        *before = (*before + *nyquist) / 2.0;
        bins.pop();
    }
    bins
}

/// Mean power over rings around frequency 0 [max(longer side/2, 1)], the last one out to the corners; `power` is
/// [columns, rows].
fn rings(power: &[f64], grid: TokenGrid) -> Vec<f64> {
    let (rows, columns) = (grid.height_patches, grid.width_patches);
    let count = (rows.max(columns) / 2).max(1);
    let mut sums = vec![(0.0, 0usize); count];
    for (index, power) in power.iter().enumerate() {
        let [x, y] = [(index / rows, columns), (index % rows, rows)].map(|(cycles, side)| from_middle(cycles, side));
        let ring = ((x * x + y * y) * (count * count) as u64 / (rows * rows + columns * columns) as u64).isqrt();
        let (sum, cells) = &mut sums[(ring as usize).min(count - 1)];
        *sum += power;
        *cells += 1;
    }
    sums.into_iter().map(|(sum, cells)| sum / cells.max(1) as f64).collect()
}

/// How far from the middle of its side a frequency lies once 0 is at side/2, in half cells.
fn from_middle(cycles: usize, side: usize) -> u64 {
    let place = (cycles + side / 2) % side;
    (2 * place).abs_diff(side) as u64
}
