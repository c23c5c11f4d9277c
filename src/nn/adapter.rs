//! What is added to a linear layer beside its weight, whatever that is held in: each kind of change as the arrays it is made
//! of, never as a second weight of the layer where it can be less. All of it is computed in f32.

use std::ops::Range;

use candle_core::DType;

use super::{
    Activation, Array, Products,
    linear::{accumulate, product},
    mismatch,
};
use crate::error::Result;

/// What is added to a layer's outputs.
#[derive(Debug, Clone)]
pub enum Adapter {
    /// A product of few columns.
    LowRank(LowRank),
    /// Some rows of a Kronecker product.
    Kronecker(Kronecker),
    /// A whole matrix.
    Dense(Dense),
}

/// Of low rank: what it adds is `strength·B (A x)`.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// A [rank, in], f32.
    pub down: Array,
    /// B [out, rank], f32.
    pub up: Array,
    /// What it is multiplied by.
    pub strength: f64,
}

/// Rows of the Kronecker product of two matrices, for some of its columns: it adds `(F ⊗ S) x`.
#[derive(Debug, Clone)]
pub struct Kronecker {
    /// F [a, b], f32.
    pub first: Array,
    /// S [d, e], f32.
    pub second: Array,
    /// Which of the a·d rows are outputs.
    pub rows: Range<usize>,
    /// Which of the b·e columns x has.
    pub inputs: Range<usize>,
}

/// A matrix: what it adds is `strength·D x`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// D [out, in], in any float type.
    pub weight: Array,
    /// What it is multiplied by.
    pub strength: f64,
}

impl From<LowRank> for Adapter {
    fn from(adapter: LowRank) -> Self {
        Self::LowRank(adapter)
    }
}

impl Adapter {
    /// Whether it takes so many inputs to so many outputs.
    pub(super) fn fits(&self, [outputs, inputs]: [usize; 2]) -> bool {
        match self {
            Self::LowRank(LowRank { down, up, .. }) => {
                (up.dims(), down.dims()) == (&[outputs, down.dim(0)], &[down.dim(0), inputs])
            }
            Self::Kronecker(Kronecker { first, second, rows, inputs: columns }) => {
                let (height, width) = (first.dim(0) * second.dim(0), first.dim(1) * second.dim(1));
                (rows.len(), columns.len()) == (outputs, inputs) && rows.end <= height && columns.end <= width
            }
            Self::Dense(Dense { weight, .. }) => weight.dims() == [outputs, inputs],
        }
    }

    /// The adapter for `count` of the inputs from `start` on.
    ///
    /// # Errors
    /// When there are not so many.
    pub(super) fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        Ok(match self {
            Self::LowRank(adapter) => {
                let down = adapter.down.narrow(1, start, count)?.contiguous()?; // [rank, in']
                Self::LowRank(LowRank { down, ..adapter.clone() })
            }
            Self::Kronecker(adapter) => {
                let first = adapter.inputs.start + start;
                Self::Kronecker(Kronecker { inputs: first..first + count, ..adapter.clone() })
            }
            Self::Dense(adapter) => {
                Self::Dense(Dense { weight: adapter.weight.narrow(1, start, count)?, ..adapter.clone() })
            }
        })
    }

    /// `out` with what is added for x [C, in]: [C, out], in the number type of `out`.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn add_to(&self, out: Array, x: &Array) -> Result<Array> {
        let x = x.to_dtype(DType::F32)?;
        let scaled = |x: &Array, strength: f64| if strength == 1.0 { Ok(x.clone()) } else { x.affine(strength, 0.0) };
        match self {
            Self::LowRank(LowRank { down, up, strength }) => {
                let few = plain_product(&x, down)?; // [C, rank]
                accumulate(out, &scaled(&few, *strength)?, up)
            }
            Self::Kronecker(adapter) => sum(out, &adapter.forward(&x)?),
            Self::Dense(Dense { weight, strength }) => accumulate(out, &scaled(&x, *strength)?, weight),
        }
    }
}

impl Kronecker {
    /// For x [C, in]: [C, out]. Inputs and outputs are taken in whole blocks of `second`, and the rest of these left away.
    fn forward(&self, x: &Array) -> Result<Array> {
        let ((_, _), (d, e)) = (self.first.dims2()?, self.second.dims2()?);
        let columns = self.inputs.start / e..self.inputs.end.div_ceil(e);
        let rows = self.rows.start / d..self.rows.end.div_ceil(d);
        let (count, b, a) = (x.dim(0), columns.len(), rows.len());
        let x = padded(x, self.inputs.start - columns.start * e, b * e)?.reshape(&[count * b, e])?; // [C·b', e]
        let inner = plain_product(&x, &self.second)?.reshape(&[count, b, d])?; // [C, b', d]
        let inner = inner.transpose(1, 2)?.contiguous()?.reshape(&[count * d, b])?; // [C·d, b']
        let first = self.first.narrow(0, rows.start, a)?.narrow(1, columns.start, b)?;
        let outer = plain_product(&inner, &first)?.reshape(&[count, d, a])?; // [C, d, a']
        let outer = outer.transpose(1, 2)?.contiguous()?.reshape(&[count, a * d])?; // [C, a'·d]
        outer.narrow(1, self.rows.start - rows.start * d, self.rows.len()) // [C, out]
    }
}

/// x [C, in] with zeros before and behind its columns: [C, width].
fn padded(x: &Array, before: usize, width: usize) -> Result<Array> {
    if x.dim(1) == width {
        return x.contiguous();
    }
    let wide = x.place().zeros(&[x.dim(0), width], x.dtype())?;
    wide.slice_set(&x.contiguous()?, 1, before)?;
    Ok(wide)
}

fn plain_product(x: &Array, weight: &Array) -> Result<Array> {
    product(Products::Exact, x, weight, None, Activation::None)
}

/// The sum in f32, in the number type of `out`.
pub(super) fn sum(out: Array, added: &Array) -> Result<Array> {
    let dtype = out.dtype();
    out.to_dtype(DType::F32)?.add(added)?.to_dtype(dtype)
}

/// Adapters that do not fit their layer: a bug of the caller.
pub(super) fn unfit(adapter: &Adapter, shape: [usize; 2]) -> crate::error::Error {
    mismatch(format!("an adapter {adapter:?} for {shape:?}"))
}
