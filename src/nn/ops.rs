//! What is done with arrays: each operation is one kernel of candle's, or in a dry pass one that is counted.

use candle_core::{DType, Tensor};
use candle_nn::{ops, rotary_emb};

use super::{Array, array::Launch, mismatch};
use crate::error::Result;

impl Array {
    /// The same numbers in a buffer of their own.
    ///
    /// # Errors
    /// When the device fails.
    pub fn copied(&self) -> Result<Self> {
        self.launch(Launch::Buffers, self.dims(), self.dtype(), Tensor::copy)
    }

    /// The same numbers in order: itself where they are.
    ///
    /// # Errors
    /// When the device fails.
    pub fn contiguous(&self) -> Result<Self> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        self.map(Tensor::contiguous)
    }

    /// The same numbers in another type: itself where they have it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        self.launch(Launch::Elements, self.dims(), dtype, |x| x.to_dtype(dtype))
    }

    /// The sum with an array of the same shape, or of one that stretches to it.
    ///
    /// # Errors
    /// When it does not.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.with(other, Tensor::broadcast_add)
    }

    /// The difference from an array of the same shape, or of one that stretches to it.
    ///
    /// # Errors
    /// When it does not.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.with(other, Tensor::broadcast_sub)
    }

    /// The product, number by number, with an array of the same shape, or of one that stretches to it.
    ///
    /// # Errors
    /// When it does not.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.with(other, Tensor::broadcast_mul)
    }

    /// The quotient, number by number, by an array of the same shape, or of one that stretches to it.
    ///
    /// # Errors
    /// When it does not.
    pub fn div(&self, other: &Self) -> Result<Self> {
        self.with(other, Tensor::broadcast_div)
    }

    fn with(&self, other: &Self, real: impl FnOnce(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        other.layout().broadcast_as(self.dims())?;
        if self.dtype() != other.dtype() {
            return Err(mismatch(format!("{:?} numbers meet {:?} numbers", self.dtype(), other.dtype())));
        }
        self.map(|x| real(x, other.real_tensor()?))
    }

    /// As [`Array::real`], within candle's closures.
    pub(super) fn real_tensor(&self) -> candle_core::Result<&Tensor> {
        match self {
            Self::Real(tensor) => Ok(tensor),
            Self::Dry(_) => Err(candle_core::Error::msg("a dry array among real ones")),
        }
    }

    /// `factor·x + addend`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn affine(&self, factor: f64, addend: f64) -> Result<Self> {
        self.map(|x| x.affine(factor, addend))
    }

    /// `x²`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sqr(&self) -> Result<Self> {
        self.map(Tensor::sqr)
    }

    /// `√x`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sqrt(&self) -> Result<Self> {
        self.map(Tensor::sqrt)
    }

    /// The larger of each number and `least`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn at_least(&self, least: f32) -> Result<Self> {
        self.map(|x| x.maximum(f64::from(least)))
    }

    /// The sum along dimension `dim`, which becomes 1.
    ///
    /// # Errors
    /// When there is no such dimension or the device fails.
    pub fn sum_keepdim(&self, dim: usize) -> Result<Self> {
        let mut shape = self.dims().to_vec();
        if let Some(count) = shape.get_mut(dim) {
            *count = 1;
        }
        self.launch(Launch::Elements, &shape, self.dtype(), |x| x.sum_keepdim(dim))
    }

    /// The sum of the sizes of f32 numbers, on the host; 0 in a dry pass.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sum_of_sizes(&self) -> Result<f64> {
        match self.map(Tensor::abs)? {
            Self::Real(sizes) => Ok(f64::from(sizes.sum_all()?.to_scalar::<f32>()?)),
            Self::Dry(_) => Ok(0.0),
        }
    }

    /// `x·sigmoid(x)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn silu(&self) -> Result<Self> {
        self.map(Tensor::silu)
    }

    /// The hyperbolic tangent.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tanh(&self) -> Result<Self> {
        self.map(Tensor::tanh)
    }

    /// gelu in its tanh form.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gelu(&self) -> Result<Self> {
        self.map(Tensor::gelu)
    }

    /// The exact gelu, `x·Φ(x)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gelu_erf(&self) -> Result<Self> {
        self.map(Tensor::gelu_erf)
    }

    /// `1 / (1 + exp(-x))`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sigmoid(&self) -> Result<Self> {
        self.map(ops::sigmoid)
    }

    /// The softmax along the last dimension; x lies in order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn softmax(&self) -> Result<Self> {
        self.map(ops::softmax_last_dim)
    }

    /// The layer norm along the last dimension, times `weight` \[C\] plus `bias` \[C\]; sums in f32.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self> {
        self.check_channels(weight)?;
        self.check_channels(bias)?;
        self.map(|x| ops::layer_norm(x, weight.real_tensor()?, bias.real_tensor()?, eps))
    }

    /// The root mean square norm along the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467), times `weight` \[C\].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn rms_norm(&self, weight: &Self, eps: f32) -> Result<Self> {
        self.check_channels(weight)?;
        self.map(|x| ops::rms_norm(x, weight.real_tensor()?, eps))
    }

    fn check_channels(&self, vector: &Self) -> Result<()> {
        if vector.dims() == &self.dims()[self.dims().len().saturating_sub(1)..] && self.is_contiguous() {
            return Ok(());
        }
        Err(mismatch(format!("a norm of {:?} with a vector {:?}", self.layout(), vector.dims())))
    }

    /// Pairs of channels of x [1, H, N, D] turned by angles whose cos and sin are [N, D/2].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn turn_pairs(&self, cos: &Self, sin: &Self) -> Result<Self> {
        self.map(|x| rotary_emb::rope_i(x, cos.real_tensor()?, sin.real_tensor()?))
    }

    /// The same for pairs (i, i + D/2): the two halves of a head's channels.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn turn_halves(&self, cos: &Self, sin: &Self) -> Result<Self> {
        self.map(|x| rotary_emb::rope(x, cos.real_tensor()?, sin.real_tensor()?))
    }

    /// The matrix product x [.., m, k] · other [.., k, n].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let (left, right) = (self.dims(), other.dims());
        let (batch, [m, k]) = split_matrix(left)?;
        let (other_batch, [other_k, n]) = split_matrix(right)?;
        if (batch, k) != (other_batch, other_k) {
            return Err(mismatch(format!("the product of {left:?} and {right:?}")));
        }
        let shape: Vec<usize> = batch.iter().copied().chain([m, n]).collect();
        let flops = 2 * (shape.iter().product::<usize>() as u64) * k as u64;
        self.note(|ledger| ledger.work(flops));
        let product = self.launch(Launch::Buffers, &shape, self.dtype(), |x| x.matmul(other.real_tensor()?))?;
        if self.is_cpu() && self.dtype() == DType::F16 {
            // gemm widens the left side of a product of f16 into a copy, anew for every product.
            self.note(|ledger| ledger.pass((m * k * size_of::<f32>()) as u64));
        }
        Ok(product)
    }

    /// Arrays one after another along dimension `dim`.
    ///
    /// # Errors
    /// When there are none, their other dimensions differ, or the device fails.
    pub fn cat(parts: &[Self], dim: usize) -> Result<Self> {
        let Some(first) = parts.first() else { return Err(mismatch("no arrays to join")) };
        if parts.len() == 1 {
            return Ok(first.clone());
        }
        let mut shape = first.dims().to_vec();
        let alike = |part: &Self| {
            let mut sides = part.dims().iter().zip(&shape).enumerate();
            part.dims().len() == shape.len() && sides.all(|(side, (own, of))| side == dim || own == of)
        };
        // Views along other dimensions than the first would be written transposed.
        if dim >= shape.len() || !parts.iter().all(|part| alike(part) && (dim == 0 || part.is_contiguous())) {
            let shapes: Vec<_> = parts.iter().map(Self::dims).collect();
            return Err(mismatch(format!("arrays {shapes:?} along dimension {dim}")));
        }
        shape[dim] = parts.iter().map(|part| part.dim(dim)).sum();
        first.launch(Launch::Buffers, &shape, first.dtype(), |_| {
            Tensor::cat(&parts.iter().map(Self::real_tensor).collect::<candle_core::Result<Vec<_>>>()?, dim)
        })
    }

    /// With so many zeros before and after along dimension `dim`: itself where there are none.
    ///
    /// # Errors
    /// As [`Array::cat`].
    pub fn pad_with_zeros(&self, dim: usize, before: usize, after: usize) -> Result<Self> {
        if before + after == 0 {
            return Ok(self.clone());
        }
        let zeros = |count: usize| -> Result<Option<Self>> {
            let mut shape = self.dims().to_vec();
            match shape.get_mut(dim) {
                Some(side) if count > 0 => *side = count,
                _ => return Ok(None),
            }
            self.place().zeros(&shape, self.dtype()).map(Some)
        };
        let parts: Vec<_> = zeros(before)?.into_iter().chain([self.clone()]).chain(zeros(after)?).collect();
        Self::cat(&parts, dim)
    }

    /// Rows `indices` \[n\] of dimension `dim`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn index_select(&self, indices: &Self, dim: usize) -> Result<Self> {
        let mut shape = self.dims().to_vec();
        if let Some(count) = shape.get_mut(dim) {
            *count = indices.elem_count();
        }
        self.launch(Launch::Elements, &shape, self.dtype(), |x| x.index_select(indices.real_tensor()?, dim))
    }

    /// Writes `rows` over this array's own, from place `start` of dimension `dim` on: whoever shares its numbers sees it.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn slice_set(&self, rows: &Self, dim: usize, start: usize) -> Result<()> {
        self.check_slice(rows, dim, start)?;
        self.write(|own| Ok(own.slice_set(rows.real()?, dim, start)?))
    }

    fn check_slice(&self, rows: &Self, dim: usize, start: usize) -> Result<()> {
        let mut sides = self.dims().iter().zip(rows.dims()).enumerate();
        let fits = sides.all(|(side, (own, of))| if side == dim { start + of <= *own } else { own == of });
        if fits && self.dims().len() == rows.dims().len() && self.is_contiguous() && rows.is_contiguous() {
            return Ok(());
        }
        Err(mismatch(format!("{:?} does not fit into {:?} at {start}", rows.layout(), self.layout())))
    }
}

/// The shape of matrices as (batch, [rows, columns]).
fn split_matrix(shape: &[usize]) -> Result<(&[usize], [usize; 2])> {
    match shape {
        [batch @ .., rows, columns] => Ok((batch, [*rows, *columns])),
        _ => Err(mismatch(format!("{shape:?} is no matrix"))),
    }
}
