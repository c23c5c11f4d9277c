//! A launch: what a kernel is given, checked before it is.

use candle_core::{DType, Tensor};

use super::Kernel;
use crate::{
    error::Result,
    nn::{Array, Rotation, array::Launch},
};

/// Threads of a block.
pub(super) const THREADS: usize = 128;
/// Rows of a block that goes over columns.
pub(super) const ROWS: usize = 8;
/// Rows of a block that goes over one after another.
pub(super) const IN_TURN: usize = 4;
/// Threads that share a head, at most.
const MOST_LANES: usize = 32;
/// Bytes that travel at once where rows and vectors begin at multiples of them.
const TOGETHER: usize = 16;
/// Bytes of a block's own memory that every card grants unasked. Source: CUDA C++ Programming Guide, "Shared Memory".
const MOST_ROOM: usize = 48 << 10;
/// Blocks along the second axis of a grid. Source: CUDA C++ Programming Guide, table of technical specifications.
const MOST_BLOCKS: usize = 65_535;

/// What a kernel is told beside its arrays: the struct of the same name in `rows.cu`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct How {
    pub(super) rows: i32,
    /// Numbers of a row.
    pub(super) columns: i32,
    /// A row of x is so many heads.
    pub(super) heads: i32,
    /// Rows of each head of the output.
    pub(super) tokens: i32,
    /// The first of them to write.
    pub(super) first: i32,
    /// Threads that share a head.
    pub(super) lanes: i32,
    /// Within the root of a norm.
    pub(super) eps: f32,
}

/// A launch whose arrays fit together.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) kernel: Kernel,
    /// The array it goes over, and vectors as `rows.cu` says.
    pub(super) arrays: [Option<&'a Array>; 5],
    pub(super) dtype: DType,
    pub(super) how: How,
    /// Numbers that lie side by side, of which all is made.
    unit: usize,
    /// Bytes of a block's own memory.
    pub(super) room: usize,
}

impl<'a> Given<'a> {
    /// Rows of x [R, C], with vectors \[C\] whose first may be f32.
    pub fn of_rows(kernel: Kernel, x: &'a Array, vectors: [Option<&'a Array>; 2], eps: f64) -> Result<Option<Self>> {
        let (rows, columns) = x.dims2()?;
        let Some(how) = How::new([rows, columns, 1, 0, 0], x.dtype(), eps) else { return Ok(None) };
        let first = vectors[0].map_or(0, |vector| vector.dtype().size_in_bytes());
        let room = columns * (first + 2 * x.dtype().size_in_bytes());
        let arrays = [Some(x), vectors[0], vectors[1], None, None];
        Ok(Self { kernel, arrays, dtype: x.dtype(), how, unit: columns, room }.fitting())
    }

    /// Tiles of rows and columns of `like` [R, C], for vectors \[C\].
    pub fn of_columns(
        kernel: Kernel,
        x: Option<&'a Array>,
        vectors: [Option<&'a Array>; 2],
        like: &Array,
    ) -> Result<Option<Self>> {
        let (rows, columns) = like.dims2()?;
        let Some(how) = How::new([rows, columns, 1, 0, 0], like.dtype(), 0.0) else { return Ok(None) };
        let arrays = [x, vectors[0], vectors[1], None, None];
        Ok(Self { kernel, arrays, dtype: like.dtype(), how, unit: columns, room: 0 }.fitting())
    }

    /// Rows of x [R, H·D] with a bias \[H·D\], that go to rows `start..` of so many heads of so many tokens; [heads, tokens, start].
    pub fn of_heads(
        (x, bias): (&'a Array, Option<&'a Array>),
        rotation: Option<Rotation<'a>>,
        [heads, tokens, start]: [usize; 3],
    ) -> Result<Option<Self>> {
        let (rows, columns) = x.dims2()?;
        let kernel = if rotation.is_some() { Kernel::RotateHeads } else { Kernel::SplitHeads };
        let dim = columns / heads.max(1);
        let fits = heads > 0 && dim * heads == columns && start + rows <= tokens;
        if !fits || !kernel.takes_array(x) || (rotation.is_some() && !dim.is_multiple_of(2)) {
            return Ok(None);
        }
        let eps = rotation.map_or(0.0, |rotation| rotation.eps);
        let Some(how) = How::new([rows, columns, heads, tokens, start], x.dtype(), eps) else { return Ok(None) };
        let tables = rotation.map(|rotation| [rotation.weight, rotation.cos, rotation.sin]);
        let [weight, cos, sin] = tables.map_or([None; 3], |tables| tables.map(Some));
        let room = if tables.is_some() { (1 + IN_TURN) * dim * size_of::<f32>() } else { 0 };
        let arrays = [Some(x), bias, weight, cos, sin];
        Ok(Self { kernel, arrays, dtype: x.dtype(), how, unit: dim, room }.fitting())
    }

    /// Itself where all arrays are of the shapes and types that the kernel takes, and lie side by side.
    fn fitting(self) -> Option<Self> {
        let [x, a, b, c, d] = self.arrays;
        let (columns, rows) = (self.how.columns as usize, self.how.rows as usize);
        let (half, dim) = (self.unit / 2, self.unit);
        let is = |array: Option<&Array>, dtype: DType, shape: &[usize]| {
            array.is_none_or(|array| array.dims() == shape && array.dtype() == dtype && array.is_contiguous())
        };
        let vectors = match self.kernel {
            Kernel::RmsNorm => is(a, DType::F32, &[columns]) && is(b, self.dtype, &[columns]),
            Kernel::SplitHeads | Kernel::RotateHeads => {
                let tables = [c, d].into_iter().all(|table| is(table, DType::F32, &[rows, half]));
                is(a, self.dtype, &[columns]) && is(b, DType::F32, &[dim]) && tables
            }
            _ => is(a, self.dtype, &[columns]) && is(b, self.dtype, &[columns]),
        };
        let fits = vectors && is(x, self.dtype, &[rows, columns]);
        (fits && self.room <= MOST_ROOM && self.grid(false)[1] <= MOST_BLOCKS).then_some(self)
    }

    /// Whether 16 bytes travel at once: what lies side by side begins and ends at multiples of them.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn is_wide(&self, out: &Array) -> bool {
        let begins = |array: &Array| {
            let at_once = TOGETHER / array.dtype().size_in_bytes();
            array.layout().start_offset().is_multiple_of(at_once)
        };
        let at_once = TOGETHER / self.dtype.size_in_bytes();
        self.unit.is_multiple_of(at_once) && self.arrays.into_iter().flatten().chain([out]).all(begins)
    }

    /// Blocks along both axes.
    pub(super) fn grid(&self, is_wide: bool) -> [usize; 2] {
        let (rows, columns) = (self.how.rows as usize, self.how.columns as usize);
        let at_once = if is_wide { TOGETHER / self.dtype.size_in_bytes() } else { 1 };
        match self.kernel {
            Kernel::LayerNorm | Kernel::RmsNorm | Kernel::SplitHeads | Kernel::RotateHeads => {
                [rows.div_ceil(IN_TURN), 1]
            }
            Kernel::AddGated | Kernel::AddBias | Kernel::AddBiasGelu | Kernel::SiluGated => {
                [rows.div_ceil(ROWS), columns.div_ceil(at_once * THREADS)]
            }
        }
    }

    /// Runs it; gives what it makes.
    pub fn made(&self, shape: &[usize]) -> Result<Array> {
        let [Some(x), ..] = self.arrays else { return Err(crate::nn::mismatch("a kernel over nothing")) };
        x.launch(Launch::Buffers, shape, self.dtype, |x| made(self, shape, x))
    }

    /// Runs it in place of `out`, unless that does not fit.
    pub fn in_place(&self, out: &Array) -> Result<bool> {
        let numbers = match self.kernel {
            Kernel::SplitHeads | Kernel::RotateHeads => self.how.tokens as usize * self.how.columns as usize,
            _ => self.how.rows as usize * self.how.columns as usize,
        };
        let fits = out.is_contiguous() && out.dtype() == self.dtype && out.elem_count() == numbers;
        if fits {
            out.write(|tensor| Ok(in_place(self, out, tensor)?))?;
        }
        Ok(fits)
    }
}

impl How {
    /// Of [rows, columns, heads, tokens, first]; `None` where they are more than the kernels count.
    fn new(counts: [usize; 5], dtype: DType, eps: f64) -> Option<Self> {
        let number = |count: usize| i32::try_from(count).ok();
        let [rows, columns, heads, tokens, first] = counts;
        // Pairs of numbers at least: they are turned together.
        let at_once = (TOGETHER / dtype.size_in_bytes()).max(2);
        let dim = columns / heads.max(1);
        let at_once = if dim.is_multiple_of(at_once) { at_once } else { 2 };
        let lanes = dim.div_ceil(at_once).next_power_of_two().clamp(2, MOST_LANES);
        Some(Self {
            rows: number(rows)?,
            columns: number(columns)?,
            heads: number(heads)?,
            tokens: number(tokens)?,
            first: number(first)?,
            lanes: number(lanes)?,
            eps: eps as f32,
        })
    }
}

#[cfg(feature = "cuda")]
fn made(given: &Given<'_>, shape: &[usize], x: &Tensor) -> candle_core::Result<Tensor> {
    super::launch::made(given, shape, x)
}

#[cfg(feature = "cuda")]
fn in_place(given: &Given<'_>, out: &Array, tensor: &Tensor) -> candle_core::Result<()> {
    super::launch::in_place(given, given.is_wide(out), tensor)
}

#[cfg(not(feature = "cuda"))]
fn made(given: &Given<'_>, shape: &[usize], _x: &Tensor) -> candle_core::Result<Tensor> {
    Err(candle_core::Error::msg(format!("a program without CUDA launched {given:?} for {shape:?}")))
}

#[cfg(not(feature = "cuda"))]
fn in_place(given: &Given<'_>, _out: &Array, _tensor: &Tensor) -> candle_core::Result<()> {
    Err(candle_core::Error::msg(format!("a program without CUDA launched {given:?}")))
}
