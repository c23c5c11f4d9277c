//! Tensors in the CPU's memory as slices.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor, WithDType};

use super::{kernels::cpu::linear::Weight, mismatch};
use crate::error::Result;

/// A tensor whose memory is held for reading.
pub(super) struct View<'a, S> {
    tensor: &'a Tensor,
    storage: S,
}

/// Holds a tensor's memory for reading.
pub(super) fn view(tensor: &Tensor) -> View<'_, impl Deref<Target = Storage>> {
    View { tensor, storage: tensor.storage_and_layout().0 }
}

impl<S: Deref<Target = Storage>> View<'_, S> {
    /// The numbers of a contiguous f32 tensor.
    pub(super) fn f32(&self) -> Result<&[f32]> {
        let layout = self.tensor.layout();
        match layout.contiguous_offsets() {
            Some((start, end)) => Ok(&self.values::<f32>()?[start..end]),
            None => Err(mismatch(format!("a tensor of shape {:?} is not contiguous", layout.shape()))),
        }
    }

    /// The numbers of a matrix from its first on; its rows may be apart.
    pub(super) fn weight(&self) -> Result<Weight<'_>> {
        let start = self.tensor.layout().start_offset();
        match self.tensor.dtype() {
            DType::BF16 => Ok(Weight::Bf16(&self.values()?[start..])),
            DType::F16 => Ok(Weight::F16(&self.values()?[start..])),
            _ => Ok(Weight::F32(&self.values()?[start..])),
        }
    }

    /// The bytes of a matrix from its first on.
    pub(super) fn bytes(&self) -> Result<&[u8]> {
        Ok(&self.values()?[self.tensor.layout().start_offset()..])
    }

    fn values<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(storage.as_slice::<T>()?),
            _ => Err(mismatch("a tensor that is not in the CPU's memory")),
        }
    }
}

/// Runs `work` on the numbers of a contiguous f32 tensor, in place: whoever shares its storage sees the change.
pub(super) fn in_place(tensor: &Tensor, work: impl Fn(&mut [f32])) -> Result<()> {
    Ok(tensor.inplace_op1(&InPlace(work))?)
}

struct InPlace<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "in-place rows"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                (self.0)(&mut values[start..end]);
                Ok(())
            }
            _ => candle_core::bail!("in-place work wants a contiguous f32 tensor, not {:?}", layout.shape()),
        }
    }
}
