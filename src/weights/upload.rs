//! Weights on their way to a device while it computes.
//!
//! On CUDA the copies have a stream of their own, so that they run beside the kernels of the block at work. No order has
//! to be kept by hand: cudarc records an event behind every write and read of a buffer, lets another stream wait for it,
//! and frees a buffer on its own stream behind its last read (cudarc 0.19, `CudaSlice`, `is_managing_stream_synchronization`).
//!
//! Only pinned memory travels beside computation, so weights pass through two pinned buffers: while one travels, the next
//! part is copied into the other. Where the system pins no memory the driver stages them itself, and the call waits for it.

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
    use std::sync::{Arc, Mutex, PoisonError};

    use candle_core::{
        CpuStorage, CudaDevice, CudaStorage, Device, Storage, Tensor,
        cuda_backend::{
            CudaDType,
            cudarc::driver::{CudaEvent, CudaStream, CudaViewMut, DeviceRepr, DriverError, PinnedHostSlice},
        },
        op::BackpropOp,
    };

    use crate::error::Result;

    /// Bytes of a pinned buffer: starting a copy costs little beside it, and two of them little beside a block.
    const STAGE_BYTES: usize = 16 << 20;

    /// A stream for copies beside the device's own stream for kernels.
    pub struct Lane {
        device: CudaDevice,
        stream: Arc<CudaStream>,
        stages: Option<Mutex<[Stage; 2]>>,
    }

    /// A pinned buffer, and the event behind the copy that last read it.
    struct Stage {
        buffer: PinnedHostSlice<u8>,
        sent: CudaEvent,
    }

    impl Stage {
        fn new(stream: &CudaStream) -> Result<Self, DriverError> {
            // SAFETY: a buffer is written before it is read.
            let buffer = unsafe { stream.context().alloc_pinned(STAGE_BYTES) }?;
            Ok(Self { buffer, sent: stream.context().new_event(None)? })
        }
    }

    impl Lane {
        pub fn new(device: &CudaDevice) -> Result<Self> {
            let stream = device.cuda_stream().context().new_stream().map_err(candle_core::Error::wrap)?;
            let stages = Stage::new(&stream).and_then(|first| Ok(Mutex::new([first, Stage::new(&stream)?]))).ok();
            Ok(Self { device: device.clone(), stream, stages })
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
            let copied = match &self.stages {
                Some(stages) => {
                    let size = size_of_val(values);
                    // SAFETY: numbers are bytes, here as there; both views span them all.
                    let (bytes, view) = unsafe {
                        (std::slice::from_raw_parts(values.as_ptr().cast(), size), slice.transmute_mut(size))
                    };
                    let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut view = view.expect("a view of the same size");
                    self.copy_staged(&mut stages, bytes, &mut view)
                }
                None => self.stream.memcpy_htod(values, &mut slice),
            };
            copied.map_err(candle_core::Error::wrap)?;
            Ok(CudaStorage::wrap_cuda_slice(slice, self.device.clone()))
        }

        /// Sends bytes through the pinned buffers in turn, each once its last copy has left it.
        fn copy_staged(
            &self,
            stages: &mut [Stage; 2],
            bytes: &[u8],
            to: &mut CudaViewMut<'_, u8>,
        ) -> Result<(), DriverError> {
            for (index, part) in bytes.chunks(STAGE_BYTES).enumerate() {
                let Stage { buffer, sent } = &mut stages[index % 2];
                sent.synchronize()?;
                let pinned = &mut buffer.as_mut_slice()?[..part.len()];
                pinned.copy_from_slice(part);
                let start = index * STAGE_BYTES;
                self.stream.memcpy_htod(&*pinned, &mut to.slice_mut(start..start + part.len()))?;
                sent.record(&self.stream)?;
            }
            Ok(())
        }
    }
}
