//! A tensor that is real or dry. Code written over [`Array`] computes on a device, or counts in a [`Ledger`] what it would
//! hold and launch there; which of both is decided by whoever makes the first arrays.
//!
//! A dry array has what decides about work and memory: a layout, a number type, a buffer that views share. Views, and
//! copies of what lies in order already, are free in both forms, as they are in candle.

use std::{cell::Cell, sync::Arc};

use candle_core::{D, DType, Layout, Shape, Tensor};

use super::{Held, Ledger, Place, mismatch, numbers, view};
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
pub(super) enum Launch {
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

    /// One copy into this array's own buffer.
    pub(super) fn write(&self, real: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Real(tensor) => {
                LAUNCHES.set(LAUNCHES.get() + 1);
                real(tensor)
            }
            Self::Dry(array) => {
                array.buffer.ledger().launch_over_buffers();
                Ok(())
            }
        }
    }

    /// Writes what would happen into the ledger of a dry pass.
    pub(super) fn note(&self, write: impl FnOnce(&Ledger)) {
        if let Some(ledger) = self.ledger() {
            write(ledger);
        }
    }

    /// One kernel, or one copy, that makes a new array.
    pub(super) fn launch(
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
    pub(super) fn map(&self, real: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
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

    /// Dimensions in another order; shares the numbers.
    ///
    /// # Errors
    /// When `order` does not name each once.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        self.view(|x| x.permute(order), |layout| layout.permute(order))
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

    /// A new f32 array of this shape where this one is, every number of which is written by `fill` before it reads any: what the CPU's
    /// own kernels make.
    pub(super) fn computed(&self, shape: &[usize], fill: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self> {
        match self {
            Self::Real(tensor) => {
                let values = numbers::written(shape.iter().product(), fill)?;
                Ok(Self::Real(Tensor::from_vec(values, shape, tensor.device())?))
            }
            Self::Dry(array) => Ok(dry(array.buffer.ledger(), shape, DType::F32)),
        }
    }

    /// The numbers, on the host, in f32; zeros in a dry pass.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_floats(&self) -> Result<Vec<f32>> {
        match self.to_dtype(DType::F32)? {
            Self::Real(tensor) => Ok(tensor.flatten_all()?.to_vec1()?),
            Self::Dry(array) => Ok(vec![0.0; array.layout.shape().elem_count()]),
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
