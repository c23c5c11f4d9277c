//! A tensor that is real or dry. Code written over [`Array`] computes on a device, or counts in a [`Ledger`] what it would
//! hold and launch there; which of both is decided by whoever makes the first arrays.
//!
//! A dry array has what decides about work and memory: a layout, a number type, a buffer that views share. Views, and
//! copies of what lies in order already, are free in both forms, as they are in candle.

use std::{cell::Cell, sync::Arc};

use candle_core::{D, DType, Layout, Shape, Tensor};
use candle_nn::{ops, rotary_emb};

use super::{Held, Ledger, Place, mismatch, view};
use crate::{
    base::{device::DeviceKind, limits},
    error::Result,
};

thread_local! {
    static LAUNCHES: Cell<u64> = const { Cell::new(0) };
}

/// Kernels of tensors that this thread has launched so far, on any device: what a dry pass' [`Ledger::launches`] is held
/// against.
pub fn launches() -> u64 {
    LAUNCHES.get()
}

/// A tensor, or what a dry pass knows of one.
#[derive(Debug, Clone)]
pub enum Array {
    /// Numbers on a device.
    Real(Tensor),
    /// A layout, and a buffer in a ledger.
    Dry(DryArray),
}

/// What a dry pass knows of a tensor.
#[derive(Debug, Clone)]
pub struct DryArray {
    layout: Layout,
    dtype: DType,
    buffer: Arc<Held>,
}

impl From<Tensor> for Array {
    fn from(tensor: Tensor) -> Self {
        Self::Real(tensor)
    }
}

/// A new dry array.
pub(super) fn dry(ledger: &Ledger, shape: &[usize], dtype: DType) -> Array {
    let layout = Layout::contiguous(shape);
    let buffer = Arc::new(ledger.hold(layout.shape().elem_count(), dtype.size_in_bytes()));
    Array::Dry(DryArray { layout, dtype, buffer })
}

/// How a launch is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Launch {
    /// A kernel whose threads are the elements of its result.
    Elements,
    /// A copy or a product, which buffers alone limit.
    Buffers,
}

impl Array {
    /// The tensor.
    ///
    /// # Errors
    /// When this is a dry array: a bug of the caller.
    pub fn real(&self) -> Result<&Tensor> {
        match self {
            Self::Real(tensor) => Ok(tensor),
            Self::Dry(_) => Err(mismatch("numbers were asked of a dry pass")),
        }
    }

    /// The ledger, in a dry pass.
    pub fn ledger(&self) -> Option<&Ledger> {
        match self {
            Self::Real(_) => None,
            Self::Dry(array) => Some(array.buffer.ledger()),
        }
    }

    /// Where arrays beside this one are made.
    pub fn place(&self) -> Place {
        match self {
            Self::Real(tensor) => Place::Real(tensor.device().clone()),
            Self::Dry(array) => Place::Dry(array.buffer.ledger().clone()),
        }
    }

    /// Whether it lies, or would lie, in the processor's memory.
    pub fn is_cpu(&self) -> bool {
        match self {
            Self::Real(tensor) => tensor.device().is_cpu(),
            Self::Dry(array) => array.buffer.ledger().kind().is_cpu(),
        }
    }

    /// The number type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Real(tensor) => tensor.dtype(),
            Self::Dry(array) => array.dtype,
        }
    }

    /// Shape, strides and offset.
    pub fn layout(&self) -> &Layout {
        match self {
            Self::Real(tensor) => tensor.layout(),
            Self::Dry(array) => &array.layout,
        }
    }

    /// The shape's numbers.
    pub fn dims(&self) -> &[usize] {
        self.layout().dims()
    }

    /// The shape's number `index`; 0 where there are not so many.
    pub fn dim(&self, index: usize) -> usize {
        self.dims().get(index).copied().unwrap_or(0)
    }

    /// The shape of a matrix.
    ///
    /// # Errors
    /// When it is none.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        Ok(self.layout().shape().dims2()?)
    }

    /// The shape of matrices in a row.
    ///
    /// # Errors
    /// When it is none.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        Ok(self.layout().shape().dims3()?)
    }

    /// Numbers in it.
    pub fn elem_count(&self) -> usize {
        self.layout().shape().elem_count()
    }

    /// Whether its numbers lie side by side in order.
    pub fn is_contiguous(&self) -> bool {
        self.layout().is_contiguous()
    }

    /// Writes what would happen into the ledger of a dry pass.
    pub(super) fn note(&self, write: impl FnOnce(&Ledger)) {
        if let Some(ledger) = self.ledger() {
            write(ledger);
        }
    }

    /// One kernel, or one copy, that makes a new array.
    fn launch(
        &self,
        how: Launch,
        shape: &[usize],
        dtype: DType,
        real: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        match self {
            Self::Real(tensor) => {
                if !tensor.device().is_cpu() {
                    let kind = DeviceKind::of(tensor.device());
                    match how {
                        Launch::Elements => limits::check_launch(kind, shape)?,
                        Launch::Buffers => limits::check_buffer(kind, shape)?,
                    }
                }
                LAUNCHES.set(LAUNCHES.get() + 1);
                Ok(Self::Real(real(tensor)?))
            }
            Self::Dry(array) => {
                let ledger = array.buffer.ledger();
                let made = dry(ledger, shape, dtype);
                match how {
                    Launch::Elements => ledger.launch(made.elem_count()),
                    Launch::Buffers => ledger.launch_over_buffers(),
                }
                Ok(made)
            }
        }
    }

    /// A kernel whose result has this array's shape and number type.
    fn map(&self, real: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        self.launch(Launch::Elements, self.dims(), self.dtype(), real)
    }

    /// Another view of the same numbers.
    fn view(
        &self,
        real: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
        layout: impl FnOnce(&Layout) -> candle_core::Result<Layout>,
    ) -> Result<Self> {
        match self {
            Self::Real(tensor) => Ok(Self::Real(real(tensor)?)),
            Self::Dry(array) => Ok(Self::Dry(DryArray { layout: layout(&array.layout)?, ..array.clone() })),
        }
    }

    /// `count` of dimension `dim` from `start` on; shares the numbers.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn narrow(&self, dim: usize, start: usize, count: usize) -> Result<Self> {
        self.view(|x| x.narrow(dim, start, count), |layout| layout.narrow(dim, start, count))
    }

    /// Two dimensions exchanged; shares the numbers.
    ///
    /// # Errors
    /// When there are no such dimensions.
    pub fn transpose(&self, first: usize, second: usize) -> Result<Self> {
        self.view(|x| x.transpose(first, second), |layout| layout.transpose(first, second))
    }

    /// Stretched to a shape by repeating without copying; shares the numbers.
    ///
    /// # Errors
    /// When the shape does not follow from this one.
    pub fn broadcast_as(&self, shape: &[usize]) -> Result<Self> {
        self.view(|x| x.broadcast_as(shape), |layout| layout.broadcast_as(shape))
    }

    /// Another shape of as many numbers; a copy where they do not lie in order.
    ///
    /// # Errors
    /// When they are not as many.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if Shape::from(shape).elem_count() != self.elem_count() {
            return Err(mismatch(format!("{:?} does not become {shape:?}", self.dims())));
        }
        if !self.is_contiguous() {
            return self.launch(Launch::Elements, shape, self.dtype(), |x| x.reshape(shape));
        }
        self.view(|x| x.reshape(shape), |layout| Ok(Layout::contiguous_with_offset(shape, layout.start_offset())))
    }

    /// Without dimension `dim`, which is 1.
    ///
    /// # Errors
    /// When it is not.
    pub fn squeeze(&self, dim: usize) -> Result<Self> {
        if self.dim(dim) != 1 {
            return Err(mismatch(format!("dimension {dim} of {:?} is not 1", self.dims())));
        }
        let mut shape = self.dims().to_vec();
        shape.remove(dim);
        self.reshape(&shape)
    }

    /// With a dimension of 1 before dimension `dim`.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn unsqueeze(&self, dim: usize) -> Result<Self> {
        let mut shape = self.dims().to_vec();
        shape.insert(dim.min(shape.len()), 1);
        self.reshape(&shape)
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

    /// The product, number by number, with an array of the same shape, or of one that stretches to it.
    ///
    /// # Errors
    /// When it does not.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.with(other, Tensor::broadcast_mul)
    }

    fn with(&self, other: &Self, real: impl FnOnce(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        other.layout().broadcast_as(self.dims())?;
        if self.dtype() != other.dtype() {
            return Err(mismatch(format!("{:?} numbers meet {:?} numbers", self.dtype(), other.dtype())));
        }
        self.map(|x| real(x, other.real_tensor()?))
    }

    /// As [`Array::real`], within candle's closures.
    fn real_tensor(&self) -> candle_core::Result<&Tensor> {
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

    /// `x·sigmoid(x)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn silu(&self) -> Result<Self> {
        self.map(Tensor::silu)
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
        self.launch(Launch::Buffers, &shape, self.dtype(), |x| x.matmul(other.real_tensor()?))
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
        match self {
            Self::Real(tensor) => {
                LAUNCHES.set(LAUNCHES.get() + 1);
                Ok(tensor.slice_set(rows.real()?, dim, start)?)
            }
            Self::Dry(array) => {
                self.check_slice(rows, dim, start)?;
                array.buffer.ledger().launch_over_buffers();
                Ok(())
            }
        }
    }

    fn check_slice(&self, rows: &Self, dim: usize, start: usize) -> Result<()> {
        let mut sides = self.dims().iter().zip(rows.dims()).enumerate();
        let fits = sides.all(|(side, (own, of))| if side == dim { start + of <= *own } else { own == of });
        if fits && self.dims().len() == rows.dims().len() && self.is_contiguous() && rows.is_contiguous() {
            return Ok(());
        }
        Err(mismatch(format!("{:?} does not fit into {:?} at {start}", rows.layout(), self.layout())))
    }

    /// A new f32 array of this shape where this one is, written by `fill`: what the CPU's own kernels make.
    pub(super) fn computed(&self, shape: &[usize], fill: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self> {
        match self {
            Self::Real(tensor) => {
                let mut values = vec![0.0; shape.iter().product()];
                fill(&mut values)?;
                Ok(Self::Real(Tensor::from_vec(values, shape, tensor.device())?))
            }
            Self::Dry(array) => Ok(dry(array.buffer.ledger(), shape, DType::F32)),
        }
    }

    /// Runs `work` on the numbers of a contiguous f32 array in the CPU's memory, in place.
    pub(super) fn change(&self, work: impl Fn(&mut [f32])) -> Result<()> {
        match self {
            Self::Real(tensor) => view::in_place(tensor, work),
            Self::Dry(_) => Ok(()),
        }
    }

    /// The last number of the shape.
    pub fn channels(&self) -> usize {
        self.layout().dim(D::Minus1).unwrap_or(0)
    }
}

/// The shape of matrices as (batch, [rows, columns]).
fn split_matrix(shape: &[usize]) -> Result<(&[usize], [usize; 2])> {
    match shape {
        [batch @ .., rows, columns] => Ok((batch, [*rows, *columns])),
        _ => Err(mismatch(format!("{shape:?} is no matrix"))),
    }
}
