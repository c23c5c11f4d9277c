//! What is added to one linear layer, as arrays that are made when they are asked for.

use std::{fmt, ops::Range, sync::Arc};

use candle_core::{DType, Tensor};

use super::super::TensorSource;
use crate::error::Result;

/// An array in the processor's memory that is made anew each time it is asked for; its shape is known before.
#[derive(Clone)]
pub struct Piece {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its number type.
    pub dtype: DType,
    make: Arc<dyn Fn() -> Result<Tensor> + Send + Sync>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({:?} {:?})", self.shape, self.dtype)
    }
}

impl Piece {
    /// An array of f32 numbers that `make` makes.
    pub fn floats(shape: &[usize], make: impl Fn() -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self::of(shape, DType::F32, make)
    }

    /// An array that `make` makes.
    pub fn of(shape: &[usize], dtype: DType, make: impl Fn() -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self { shape: shape.to_vec(), dtype, make: Arc::new(make) }
    }

    /// Makes it.
    ///
    /// # Errors
    /// What reading its file may fail with.
    pub fn make(&self) -> Result<Tensor> {
        (self.make)()
    }
}

/// What is added to a weight [out, in], whatever that is held in.
#[derive(Debug, Clone)]
pub enum Change {
    /// up · down, f32.
    LowRank {
        /// [rank, in]
        down: Piece,
        /// [out, rank]
        up: Piece,
    },
    /// Rows of the Kronecker product of two matrices, f32: row i of it is `first[i / d] ⊗ second[i % d]` for d rows of `second`.
    Kronecker {
        /// [a, b]
        first: Piece,
        /// [d, e], b·e = in.
        second: Piece,
        /// Which of its a·d rows.
        rows: Range<usize>,
    },
    /// A matrix, and what it is multiplied by.
    Dense {
        /// [out, in]
        weight: Piece,
        /// The factor.
        strength: f64,
    },
}

/// All that one file changes of one layer.
#[derive(Clone, Default)]
pub struct Adapter {
    /// What is added to the weight.
    pub change: Option<Change>,
    /// What each row of the weight itself is multiplied by before, \[out\] f32.
    pub gain: Option<Piece>,
    /// What is added to the bias, \[out\] f32.
    pub bias: Option<Piece>,
    /// The file, and the tensors of it that it is made of.
    pub(super) stored: Option<(Arc<dyn TensorSource>, Vec<String>)>,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adapter({:?}, gain {:?}, bias {:?})", self.change, self.gain, self.bias)
    }
}

impl Adapter {
    /// Says that it will not be asked for soon.
    pub fn release(&self) {
        if let Some((source, tensors)) = &self.stored {
            source.release(&tensors.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
