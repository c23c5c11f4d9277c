//! What is done to bands beside their products: by kernels of one pass where a device has them ([`maps`]), else by operations of tensors.

use candle_core::DType;

use super::{Affine, Before, Norm, Reach};
use crate::{
    error::Result,
    nn::{
        Array,
        kernels::maps::{self, Look},
        mismatch,
    },
};

/// A band's scales and shifts [2, C], f32.
fn vectors(rows: &Array, Affine { scale, shift }: &Affine) -> Result<Array> {
    rows.place().floats(&[2, scale.len()], || [&scale[..], shift].concat())
}

/// Rows and what a kernel does to them on its way: scales and shifts, and whether silu comes behind. What it cannot do is done.
fn on_the_way(rows: &Array, first: Before<'_>) -> Result<(Array, Option<(Array, bool)>)> {
    let (affine, silu) = match first {
        Before::Norm(Norm::Group(affine)) => (affine, false),
        Before::NormSilu(Norm::Group(affine)) => (affine, true),
        other => return Ok((plain_before(rows, other)?, None)),
    };
    Ok((rows.clone(), Some((vectors(rows, affine)?, silu))))
}

/// What is done to rows before their projection; norms in f32.
pub(super) fn before(rows: &Array, first: Before<'_>) -> Result<Array> {
    let (Before::Norm(Norm::Group(_)) | Before::NormSilu(Norm::Group(_))) = first else {
        return plain_before(rows, first);
    };
    if !maps::Kernel::Window.takes_map(rows) {
        return plain_before(rows, first);
    }
    let (height, width, channels) = rows.dims3()?;
    let (rows, affine) = on_the_way(rows, first)?;
    let affine = affine.as_ref().map(|(affine, silu)| (affine, *silu));
    let shape = [height, width, channels];
    let made = maps::window(&maps::Window { rows: Some(&rows), affine, above: None, kept: 0, left: 0, shape })?;
    made.map_or_else(|| plain_before(&rows, first), Ok)
}

/// The same by operations of tensors.
pub(super) fn plain_before(rows: &Array, before: Before<'_>) -> Result<Array> {
    match before {
        Before::Nothing => Ok(rows.clone()),
        Before::Norm(norm) => normed(rows, norm)?.to_dtype(rows.dtype()),
        Before::NormSilu(norm) => normed(rows, norm)?.silu()?.to_dtype(rows.dtype()),
    }
}

fn normed(rows: &Array, norm: &Norm) -> Result<Array> {
    let vector = |values: &[f32]| rows.place().floats(&[values.len()], || values.to_vec()); // [C]
    let rows = rows.to_dtype(DType::F32)?;
    match norm {
        Norm::Group(affine) => rows.mul(&vector(&affine.scale)?)?.add(&vector(&affine.shift)?),
        Norm::Rms(gamma) => {
            let length = rows.sqr()?.sum_keepdim(rows.dims().len() - 1)?.sqrt()?; // [rows, W, 1]
            rows.div(&length.at_least(Norm::LEAST_LENGTH)?)?.mul(&vector(gamma)?)
        }
    }
}

/// `rows` after what is done to them, with two columns of zeros, below `above`, all in all of this shape; a zero row where there are
/// none of either.
pub(super) fn window(
    (reach, shape): (Reach, [usize; 3]),
    above: Option<Array>,
    rows: Option<&Array>,
    first: Before<'_>,
) -> Result<Array> {
    let is_taken = |array: Option<&Array>| array.is_none_or(|array| maps::Kernel::Window.takes_map(array));
    if !is_taken(rows) || !is_taken(above.as_ref()) {
        return plain_window(reach, above, rows, first);
    }
    let (rows, affine) = match rows.map(|rows| on_the_way(rows, first)).transpose()? {
        Some((rows, affine)) => (Some(rows), affine),
        None => (None, None),
    };
    let kept = above.as_ref().map_or(reach.border(), |above| above.dim(0));
    let made = maps::window(&maps::Window {
        rows: rows.as_ref(),
        affine: affine.as_ref().map(|(affine, silu)| (affine, *silu)),
        above: above.as_ref(),
        kept,
        left: reach.border(),
        shape,
    })?;
    made.ok_or_else(|| mismatch("a picture without rows"))
}

/// The same by operations of tensors.
pub(super) fn plain_window(
    reach: Reach,
    above: Option<Array>,
    rows: Option<&Array>,
    first: Before<'_>,
) -> Result<Array> {
    let border = reach.border();
    let below = match rows {
        Some(rows) => Some(plain_before(rows, first)?.pad_with_zeros(1, border, 2 - border)?),
        None => None,
    };
    match (above, below) {
        (Some(above), Some(below)) => Array::cat(&[above, below], 0),
        (Some(above), None) => above.pad_with_zeros(0, 0, 1),
        (None, Some(below)) => below.pad_with_zeros(0, border, 0),
        (None, None) => Err(mismatch("a picture without rows")),
    }
}

/// The nine pixels of each output, side by side: [rows, W, 9 I], tap by tap.
pub(super) fn taps(window: &Array, reach: Reach) -> Result<Array> {
    let (rows, columns, _) = window.dims3()?;
    let look = match reach {
        Reach::Same => Look::Same,
        Reach::Doubled => Look::Doubled,
        Reach::Halved => Look::Halved,
    };
    let size = [reach.output_rows(rows), reach.resized(columns - 2)];
    maps::taps(window, look, size)?.map_or_else(|| plain_taps(window, reach), Ok)
}

/// The same by operations of tensors.
pub(super) fn plain_taps(window: &Array, reach: Reach) -> Result<Array> {
    match reach {
        Reach::Doubled => nine(&double(window)?, Reach::Same),
        reach => nine(window, reach),
    }
}

/// Each tap is copied once to lie in one piece and once to its place: a cat of strided views along the last dimension
/// would write them transposed, and copy all of it again.
fn nine(window: &Array, reach: Reach) -> Result<Array> {
    let (rows, columns, inputs) = window.dims3()?;
    let (height, width, stride) = (reach.ready(rows), reach.resized(columns - 2), reach.stride());
    let phases = if stride == 1 { None } else { Some(phases(window, [height, width], stride)?) };
    let taps = window.place().zeros(&[height, width, 9 * inputs], window.dtype())?;
    for (row, column) in (0..3).flat_map(|row| (0..3).map(move |column| (row, column))) {
        let shifted = match &phases {
            None => window.narrow(0, row, height)?.narrow(1, column, width)?.contiguous()?,
            Some(phases) => {
                let of_row = phases.narrow(0, row / stride, height)?.narrow(1, row % stride, 1)?;
                let of_both = of_row.narrow(2, column / stride, width)?.narrow(3, column % stride, 1)?;
                of_both.reshape(&[height, width, inputs])?
            }
        };
        taps.slice_set(&shifted, 2, (3 * row + column) * inputs)?; // [rows, W, I]
    }
    Ok(taps)
}

/// A window as [rows / stride, stride, columns / stride, stride, I], so that every `stride`-th row is a slice of it.
fn phases(window: &Array, [height, width]: [usize; 2], stride: usize) -> Result<Array> {
    let (rows, columns, inputs) = window.dims3()?;
    // The last tap starts a new group of `stride` rows: no row of it but the first is looked at.
    let (down, across) = (height + 2 / stride, width + 2 / stride);
    let window = window.pad_with_zeros(0, 0, (stride * down).saturating_sub(rows))?;
    let window = window.pad_with_zeros(1, 0, (stride * across).saturating_sub(columns))?;
    let window = window.narrow(0, 0, stride * down)?.narrow(1, 0, stride * across)?;
    window.reshape(&[down, stride, across, stride, inputs])
}

/// Rows and columns doubled by nearest neighbour, without the outer half of the border.
fn double(window: &Array) -> Result<Array> {
    let (height, width, channels) = window.dims3()?;
    let doubled = window
        .reshape(&[height, 1, width, 1, channels])?
        .broadcast_as(&[height, 2, width, 2, channels])?
        .reshape(&[2 * height, 2 * width, channels])?;
    doubled.narrow(0, 1, 2 * height - 2)?.narrow(1, 1, 2 * width - 2)
}

/// Means of channels and sums of their squared deviations over so many pixels of a band each: [parts, 2, C] f32.
pub(super) fn moments(rows: &Array) -> Result<(Array, usize)> {
    maps::moments(rows)?.map_or_else(|| plain_moments(rows), Ok)
}

/// The same by operations of tensors, over all pixels.
pub(super) fn plain_moments(rows: &Array) -> Result<(Array, usize)> {
    let (height, width, channels) = rows.dims3()?;
    let pixels = rows.reshape(&[height * width, channels])?.to_dtype(DType::F32)?;
    let mean = pixels.sum_keepdim(0)?.affine(1.0 / pixels.dim(0) as f64, 0.0)?; // [1, C]
    let squares = pixels.sub(&mean)?.sqr()?.sum_keepdim(0)?; // [1, C]
    Ok((Array::cat(&[mean, squares], 0)?.unsqueeze(0)?, height * width))
}
