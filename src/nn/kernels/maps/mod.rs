//! What is done to feature maps beside their products, each in one pass, by kernels of our own on CUDA: rows normed and put into the
//! window of a convolution, the nine pixels of each output side by side, the statistics of channels. Their text, `maps.ptx`, is part of
//! the program as attention's is ([`super::flash`]).
//!
//! They take bf16, f16 and f32, compute in f32 and round once. Each (kernel, number type) is held against operations of tensors before a
//! model is loaded ([`crate::nn::settle_maps`]); one that fails is not used.

#[cfg(feature = "cuda")]
mod launch;
#[cfg(test)]
mod tests;

use candle_core::DType;

use super::{checked::Checked, refused::Refused};
use crate::{
    error::Result,
    nn::{Array, array::Launch, mismatch},
};

/// Threads of a block.
const THREADS: usize = 256;
/// Pixels of a block that measures them: no fewer, and of many no more than give a card's units a few each.
const PIXELS: usize = 512;
const MOST_PIXELS: usize = 8192;
const BLOCKS: usize = 1024;
/// Bytes that travel at once where channels come in multiples of them.
const TOGETHER: usize = 16;

/// A kernel of `maps.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Rows, normed, in the window of a convolution.
    Window,
    /// What each output of a convolution looks at.
    Taps,
    /// Means and squared deviations of channels.
    Moments,
}

/// What failed its check on this machine.
static REFUSED: Refused<(Kernel, DType)> = Refused::new();

impl Checked for Kernel {
    const ALL: &'static [Self] = &[Self::Window, Self::Taps, Self::Moments];

    fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Taps => "taps",
            Self::Moments => "moments",
        }
    }

    fn refused() -> &'static Refused<(Self, DType)> {
        &REFUSED
    }
}

impl Kernel {
    /// Whether it takes this map.
    pub fn takes_map(self, x: &Array) -> bool {
        !x.is_cpu() && x.elem_count() > 0 && x.is_contiguous() && self.takes(x.place().kind(), x.dtype())
    }
}

/// How a convolution looks at its window; the kernel's word for it is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At the 3 x 3 pixels around each.
    Same = 0,
    /// The same of a map whose rows and columns are doubled, without the outer half of its border.
    Doubled = 1,
    /// From each second pixel of each second row on.
    Halved = 2,
}

/// A window to be made.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    /// New rows [rows, columns, C], where there are some.
    pub rows: Option<&'a Array>,
    /// Scales and shifts [2, C] f32 of the new rows' channels, where they are normed; and whether silu comes behind.
    pub affine: Option<(&'a Array, bool)>,
    /// Rows that come before those, as they are; zeros where they are not given.
    pub above: Option<&'a Array>,
    /// How many.
    pub kept: usize,
    /// Columns of zeros left of the new rows.
    pub left: usize,
    /// [rows, columns, C] of it all; what nothing fills is zeros.
    pub shape: [usize; 3],
}

/// What the kernels are told beside their arrays: the struct of the same name in `maps.cu`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct How {
    rows: i32,
    columns: i32,
    channels: i32,
    /// The result's.
    out_rows: i32,
    out_columns: i32,
    /// Rows of the result that come before those of x.
    above: i32,
    /// Columns of zeros left of it.
    left: i32,
    /// Whether the rows before are given.
    is_given: i32,
    /// Nothing, scaled and shifted, or silu of that; of taps a [`Look`]; of moments the pixels of a block.
    way: i32,
}

/// One launch.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pass {
    kernel: Kernel,
    how: How,
    is_wide: bool,
    /// Threads, or blocks that measure.
    count: usize,
}

fn number(count: usize) -> Result<i32> {
    i32::try_from(count).map_err(|_| mismatch(format!("{count} rows or columns of a map")))
}

/// Whether all these begin, and their channels come, in what travels at once.
fn is_wide(arrays: &[&Array], channels: usize) -> bool {
    arrays.iter().all(|array| {
        let size = array.dtype().size_in_bytes();
        (channels * size).is_multiple_of(TOGETHER) && (array.layout().start_offset() * size).is_multiple_of(TOGETHER)
    })
}

/// A window of a convolution, or rows as they are normed; `None` where the kernel does not take them, as with all functions here.
///
/// # Errors
/// When the device fails, or shapes do not fit.
pub fn window(of: &Window<'_>) -> Result<Option<Array>> {
    let given: Vec<&Array> = of.rows.into_iter().chain(of.above).collect();
    let [out_rows, out_columns, channels] = of.shape;
    let Some(&beside) = given.first().filter(|_| given.iter().all(|array| Kernel::Window.takes_map(array))) else {
        return Ok(None);
    };
    let [rows, columns] = of.rows.map_or([0, 0], |rows| [rows.dim(0), rows.dim(1)]);
    let fits = of.above.is_none_or(|above| above.dims() == [of.kept, out_columns, channels])
        && of.affine.is_none_or(|(affine, _)| affine.dims() == [2, channels] && affine.dtype() == DType::F32)
        && of.rows.is_none_or(|rows| rows.dim(2) == channels && of.left + columns <= out_columns)
        && of.kept + rows <= out_rows;
    if !fits {
        return Err(mismatch(format!("a window {:?} of {rows} x {columns} pixels", of.shape)));
    }
    let is_wide = is_wide(&given, channels);
    let how = How {
        rows: number(rows)?,
        columns: number(columns)?,
        channels: number(channels)?,
        out_rows: number(out_rows)?,
        out_columns: number(out_columns)?,
        above: number(of.kept)?,
        left: number(of.left)?,
        is_given: of.above.is_some().into(),
        way: of.affine.map_or(0, |(_, silu)| 1 + i32::from(silu)),
    };
    let count = of.shape.iter().product::<usize>() / together(beside, is_wide);
    let pass = Pass { kernel: Kernel::Window, how, is_wide, count };
    let made = beside.launch(Launch::Elements, &of.shape, beside.dtype(), |beside| {
        let real = |array: Option<&'_ Array>| array.map(|array| array.real_tensor().cloned()).transpose();
        let affine = real(of.affine.map(|(affine, _)| affine))?;
        call::window(
            [
                real(of.rows)?.as_ref().unwrap_or(beside),
                affine.as_ref().unwrap_or(beside),
                real(of.above)?.as_ref().unwrap_or(beside),
            ],
            pass,
        )
    })?;
    Ok(Some(made))
}

/// Numbers of a thread.
fn together(x: &Array, is_wide: bool) -> usize {
    if is_wide { TOGETHER / x.dtype().size_in_bytes() } else { 1 }
}

/// What each of [height, width] outputs looks at in a window [rows, columns, C], side by side: [height, width, 9 C].
///
/// # Errors
/// When the device fails.
pub fn taps(window: &Array, look: Look, [height, width]: [usize; 2]) -> Result<Option<Array>> {
    if !Kernel::Taps.takes_map(window) {
        return Ok(None);
    }
    let (rows, columns, channels) = window.dims3()?;
    let is_wide = is_wide(&[window], channels);
    let how = How {
        out_rows: number(height)?,
        out_columns: number(width)?,
        way: look as i32,
        ..How::of([rows, columns, channels])?
    };
    let count = window.elem_count() / together(window, is_wide);
    let pass = Pass { kernel: Kernel::Taps, how, is_wide, count };
    let shape = [height, width, 9 * channels];
    window.launch(Launch::Elements, &shape, window.dtype(), |window| call::one(window, pass)).map(Some)
}

/// Means of channels and their squared deviations over parts of x [rows, columns, C], of so many pixels each but for the last:
/// [parts, 2, C] f32.
///
/// # Errors
/// When the device fails.
pub fn moments(x: &Array) -> Result<Option<(Array, usize)>> {
    let (rows, columns, channels) = x.dims3()?;
    let is_wide = is_wide(&[x], channels);
    if !Kernel::Moments.takes_map(x) || channels > THREADS * together(x, is_wide) {
        return Ok(None);
    }
    let pixels = (rows * columns).div_ceil(BLOCKS).clamp(PIXELS, MOST_PIXELS);
    let count = (rows * columns).div_ceil(pixels);
    let how = How { way: number(pixels)?, ..How::of([rows, columns, channels])? };
    let pass = Pass { kernel: Kernel::Moments, how, is_wide, count };
    let made = x.launch(Launch::Elements, &[count, 2, channels], DType::F32, |x| call::one(x, pass))?;
    Ok(Some((made, pixels)))
}

impl How {
    /// Of a map, and nothing else.
    fn of([rows, columns, channels]: [usize; 3]) -> Result<Self> {
        let (rows, columns, channels) = (number(rows)?, number(columns)?, number(channels)?);
        Ok(Self { rows, columns, channels, out_rows: 0, out_columns: 0, above: 0, left: 0, is_given: 0, way: 0 })
    }
}

#[cfg(feature = "cuda")]
use launch as call;

/// A program without CUDA has none of them.
#[cfg(not(feature = "cuda"))]
mod call {
    use candle_core::{Error, Result, Tensor};

    use super::Pass;

    pub(super) fn window(_arrays: [&Tensor; 3], pass: Pass) -> Result<Tensor> {
        none(pass)
    }

    pub(super) fn one(_x: &Tensor, pass: Pass) -> Result<Tensor> {
        none(pass)
    }

    fn none(pass: Pass) -> Result<Tensor> {
        Err(Error::msg(format!("a program without CUDA launched {pass:?}")))
    }
}
