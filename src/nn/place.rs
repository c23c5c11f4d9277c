//! Where arrays are made: on a device, or in the ledger of a dry pass.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Array, Ledger, Operation, array, numbers};
use crate::{
    base::{device::DeviceKind, limits},
    error::Result,
};

/// A device, or a dry pass for one.
#[derive(Debug, Clone)]
pub enum Place {
    /// Arrays are tensors on this device.
    Real(Device),
    /// Arrays are shapes, counted here.
    Dry(Ledger),
}

impl Place {
    /// The kind of device that computes, or would.
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Real(device) => DeviceKind::of(device),
            Self::Dry(ledger) => ledger.kind(),
        }
    }

    /// Whether it is the processor's memory.
    pub fn is_cpu(&self) -> bool {
        match self {
            Self::Real(device) => device.is_cpu(),
            Self::Dry(ledger) => ledger.kind().is_cpu(),
        }
    }

    /// Zeros, to be written to in place.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where the device cannot count so many ([`limits`]); when the device fails.
    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Array> {
        match self {
            Self::Real(device) => {
                if !device.is_cpu() {
                    limits::check_buffer(DeviceKind::of(device), shape)?;
                }
                match dtype {
                    DType::F32 if device.is_cpu() => {
                        Ok(Tensor::from_vec(numbers::zeros(shape.iter().product()), shape, device)?.into())
                    }
                    _ => Ok(Tensor::zeros(shape, dtype, device)?.into()),
                }
            }
            Self::Dry(ledger) => Ok(array::dry(ledger, shape, dtype)),
        }
    }

    /// An array of these f32 numbers; a dry pass does not ask for them.
    ///
    /// # Errors
    /// When they are not as many as the shape says or the device fails.
    pub fn floats(&self, shape: &[usize], values: impl FnOnce() -> Vec<f32>) -> Result<Array> {
        match self {
            Self::Real(device) => Ok(Tensor::from_vec(values(), shape, device)?.into()),
            Self::Dry(ledger) => Ok(array::dry(ledger, shape, DType::F32)),
        }
    }

    /// An array of these indices; a dry pass does not ask for them.
    ///
    /// # Errors
    /// When they are not as many as the shape says or the device fails.
    pub fn indices(&self, shape: &[usize], values: impl FnOnce() -> Vec<u32>) -> Result<Array> {
        match self {
            Self::Real(device) => Ok(Tensor::from_vec(values(), shape, device)?.into()),
            Self::Dry(ledger) => Ok(array::dry(ledger, shape, DType::U32)),
        }
    }

    /// What `work` gives; nothing where a dry pass knows the operation, and counts it again without running it
    /// ([`Ledger::again`]).
    ///
    /// # Errors
    /// What `work` fails with.
    pub(super) fn again<T>(&self, operation: Operation, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        match self {
            Self::Real(_) => work().map(Some),
            Self::Dry(ledger) => ledger.again(operation, work),
        }
    }

    /// Calls `work` with (start, count) for the pieces of `rows` of at most `size` each. A dry pass visits one of the whole
    /// pieces and counts it for all of them.
    ///
    /// # Errors
    /// The first that `work` gives.
    pub fn pieces(
        &self,
        rows: Range<usize>,
        size: usize,
        mut work: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let size = size.max(1);
        let whole = rows.len() / size;
        match self {
            Self::Dry(ledger) if whole > 1 => {
                ledger.repeat(whole, || work(rows.start, size))?;
                let rest = rows.start + whole * size..rows.end;
                if rest.is_empty() { Ok(()) } else { work(rest.start, rest.len()) }
            }
            _ => rows.clone().step_by(size).try_for_each(|start| work(start, size.min(rows.end - start))),
        }
    }
}
