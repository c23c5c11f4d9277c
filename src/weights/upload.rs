//! Weights on their way to a device while it computes.
//!
//! On CUDA the copies have a stream of their own, so that they run beside the kernels of the block at work. No order has
//! to be kept by hand: cudarc records an event behind every write and read of a buffer, lets another stream wait for it,
//! and frees a buffer on its own stream behind its last read (cudarc 0.19, `CudaSlice`, `is_managing_stream_synchronization`).
//! The driver stages pageable memory through its own pinned buffers; the call returns once the source has been read.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// A way to a device beside its computation.
#[derive(Clone)]
pub(super) struct Upload {
    #[cfg(feature = "cuda")]
    cuda: std::sync::Arc<cuda::Lane>,
}

impl Upload {
    /// Opens one; `None` for devices that have none, such as the CPU.
    pub fn to(device: &Device) -> Result<Option<Self>> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Some(Self { cuda: std::sync::Arc::new(cuda::Lane::new(device)?) })),
            _ => Ok(None),
        }
    }

    /// The same tensor on the device.
    #[cfg(feature = "cuda")]
    pub fn send(&self, tensor: &Tensor) -> Result<Tensor> {
        self.cuda.send(tensor)
    }

    /// The same tensor: without CUDA nothing has such a way.
    #[cfg(not(feature = "cuda"))]
    pub fn send(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.clone())
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use candle_core::{
        CpuStorage, CudaDevice, CudaStorage, Device, Storage, Tensor,
        cuda_backend::{
            CudaDType,
            cudarc::driver::{CudaStream, DeviceRepr},
        },
        op::BackpropOp,
    };

    use crate::error::Result;

    /// A stream for copies beside the device's own stream for kernels.
    pub struct Lane {
        device: CudaDevice,
        stream: Arc<CudaStream>,
    }

    impl Lane {
        pub fn new(device: &CudaDevice) -> Result<Self> {
            let stream = device.cuda_stream().context().new_stream().map_err(candle_core::Error::wrap)?;
            Ok(Self { device: device.clone(), stream })
        }

        pub fn send(&self, tensor: &Tensor) -> Result<Tensor> {
            let tensor = tensor.contiguous()?;
            let (storage, layout) = tensor.storage_and_layout();
            let (start, count) = (layout.start_offset(), tensor.elem_count());
            let sent = match &*storage {
                Storage::Cpu(CpuStorage::BF16(values)) => self.copy(&values[start..start + count])?,
                Storage::Cpu(CpuStorage::F16(values)) => self.copy(&values[start..start + count])?,
                Storage::Cpu(CpuStorage::F32(values)) => self.copy(&values[start..start + count])?,
                _ => return Ok(tensor.to_device(&Device::Cuda(self.device.clone()))?),
            };
            Ok(Tensor::from_storage(Storage::Cuda(sent), tensor.dims(), BackpropOp::none(), false))
        }

        fn copy<T: CudaDType + DeviceRepr>(&self, values: &[T]) -> Result<CudaStorage> {
            // SAFETY: every number is written by the copy below, and no other stream reads before that: it waits for its event.
            let mut slice = unsafe { self.stream.alloc::<T>(values.len()) }.map_err(candle_core::Error::wrap)?;
            self.stream.memcpy_htod(values, &mut slice).map_err(candle_core::Error::wrap)?;
            Ok(CudaStorage::wrap_cuda_slice(slice, self.device.clone()))
        }
    }
}
