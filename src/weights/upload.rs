//! Weights on their way to a device while it computes.
//!
//! On CUDA the copies have a stream of their own. They go into a ring of [`SLOTS`] places of one block each, whose memory
//! stays: nothing is allocated or freed from one block to the next, which would make the copies wait for the kernels of the
//! block before. Order is kept by two events of each place: the kernels of a block wait until its copies are done, and the
//! copies into a place wait until the kernels of the block that lay there are done. Nothing is left to the events that the
//! driver's wrapper keeps for each buffer: candle records some of its kernels there on the buffer's stream, not their own.
//!
//! Only pinned memory travels beside computation, so weights pass through two pinned buffers: while one travels, the next
//! part is copied into the other, by all of the processor's cores and from where the file is mapped, where it holds the numbers
//! as they are wanted. Where the system pins no memory the driver stages them itself, and the call waits for it.

/// Places of a ring: one block computes, one is there, one is on its way.
pub const SLOTS: usize = 3;

#[cfg(feature = "cuda")]
pub use cuda::Ring;
#[cfg(not(feature = "cuda"))]
pub use none::Ring;

/// Without CUDA no device has such a ring.
#[cfg(not(feature = "cuda"))]
mod none {
    use candle_core::{DType, Device, Tensor};

    use crate::error::Result;

    /// There is none.
    #[derive(Clone)]
    pub enum Ring {}

    impl Ring {
        pub(in crate::weights) fn to(_device: &Device) -> Result<Option<Self>> {
            Ok(None)
        }

        pub(in crate::weights) fn send(&self, _tensor: &Tensor) -> Result<Tensor> {
            match *self {}
        }

        pub(in crate::weights) fn send_bytes(&self, _bytes: &[u8], _shape: &[usize], _dtype: DType) -> Result<Tensor> {
            match *self {}
        }

        /// Never called.
        pub fn fill<B>(&self, _load: impl FnOnce() -> Result<B>) -> Result<(usize, B)> {
            match *self {}
        }

        /// Never called.
        pub fn with<T>(&self, _turn: usize, _work: impl FnOnce() -> Result<T>) -> Result<T> {
            match *self {}
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use candle_core::{
        CpuStorage, CudaDevice, CudaStorage, DType, Device, Storage, Tensor,
        cuda_backend::{
            CudaDType,
            cudarc::driver::{
                CudaEvent, CudaStream, DevicePtr, DeviceRepr, DriverError, PinnedHostSlice, result, sys::CUdeviceptr,
            },
        },
        op::BackpropOp,
    };
    use half::{bf16, f16};
    use rayon::prelude::*;

    use super::SLOTS;
    use crate::error::Result;

    /// Bytes of a pinned buffer: starting a copy costs little beside it, and two of them little beside a block.
    const STAGE_BYTES: usize = 16 << 20;
    /// Bytes that a thread copies into one at a time: pages of the file that are not mapped yet are looked up by several at once.
    const TASK_BYTES: usize = 1 << 20;

    /// Places for blocks on a device, and a stream that fills them. Clones share them.
    #[derive(Clone)]
    pub struct Ring(Arc<Inner>);

    struct Inner {
        device: CudaDevice,
        copies: Arc<CudaStream>,
        /// Behind the last copy into each place.
        copied: [CudaEvent; SLOTS],
        /// Behind the last kernel of the block that lies in each place.
        used: [CudaEvent; SLOTS],
        state: Mutex<State>,
    }

    /// What only the thread that reads blocks touches.
    struct State {
        stages: Option<[Stage; 2]>,
        /// The memory of each place's block, tensor by tensor in the order they are read.
        rooms: [Vec<Tensor>; SLOTS],
        /// Blocks begun so far; the last lies in place `turn % SLOTS`.
        turn: usize,
        /// Tensors of that block that were read.
        filled: usize,
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

    fn events(stream: &CudaStream) -> Result<[CudaEvent; SLOTS]> {
        let event = || wrapped(stream.context().new_event(None));
        Ok([event()?, event()?, event()?])
    }

    fn wrapped<T>(result: Result<T, DriverError>) -> Result<T> {
        Ok(result.map_err(candle_core::Error::wrap)?)
    }

    impl Ring {
        /// One on this device, where it is a CUDA device.
        pub(in crate::weights) fn to(device: &Device) -> Result<Option<Self>> {
            let Device::Cuda(device) = device else { return Ok(None) };
            let copies = wrapped(device.cuda_stream().context().new_stream())?;
            let stages = Stage::new(&copies).and_then(|first| Ok([first, Stage::new(&copies)?])).ok();
            let (copied, used) = (events(&copies)?, events(&copies)?);
            let state = Mutex::new(State { stages, rooms: Default::default(), turn: 0, filled: 0 });
            Ok(Some(Self(Arc::new(Inner { device: device.clone(), copies, copied, used, state }))))
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Reads a block into the next place, once the kernels of the block that lay there are done. Gives its turn with it.
        ///
        /// # Errors
        /// What `load` says, or when the device fails.
        pub fn fill<B>(&self, load: impl FnOnce() -> Result<B>) -> Result<(usize, B)> {
            let turn = {
                let mut state = self.state();
                state.turn += 1;
                state.filled = 0;
                state.turn
            };
            wrapped(self.0.copies.wait(&self.0.used[turn % SLOTS]))?;
            let block = load()?;
            let mut state = self.state();
            let filled = state.filled;
            state.rooms[turn % SLOTS].truncate(filled);
            wrapped(self.0.copied[turn % SLOTS].record(&self.0.copies))?;
            Ok((turn, block))
        }

        /// Runs `work`, which computes with the block of this turn: its kernels wait for the block's copies, and the next
        /// copies into its place wait for them.
        ///
        /// # Errors
        /// What `work` says, or when the device fails.
        pub fn with<T>(&self, turn: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
            let kernels = self.0.device.cuda_stream();
            wrapped(kernels.wait(&self.0.copied[turn % SLOTS]))?;
            let result = work();
            wrapped(self.0.used[turn % SLOTS].record(&kernels))?;
            result
        }

        /// The same tensor in the place that is being filled.
        pub(in crate::weights) fn send(&self, tensor: &Tensor) -> Result<Tensor> {
            let tensor = tensor.contiguous()?;
            let (storage, layout) = tensor.storage_and_layout();
            let (start, end) = (layout.start_offset(), layout.start_offset() + tensor.elem_count());
            let bytes = match &*storage {
                Storage::Cpu(CpuStorage::BF16(values)) => bytes_of(&values[start..end]),
                Storage::Cpu(CpuStorage::F16(values)) => bytes_of(&values[start..end]),
                Storage::Cpu(CpuStorage::F32(values)) => bytes_of(&values[start..end]),
                Storage::Cpu(CpuStorage::U8(values)) => &values[start..end],
                _ => return Ok(tensor.to_device(&Device::Cuda(self.0.device.clone()))?),
            };
            self.send_bytes(bytes, tensor.dims(), tensor.dtype())
        }

        /// A tensor of these numbers in the place that is being filled; bf16, f16, f32 or bytes.
        pub(in crate::weights) fn send_bytes(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor> {
            let mut state = self.state();
            let room = self.room(&mut state, shape, dtype)?;
            let to = match dtype {
                DType::BF16 => address::<bf16>(&room, &self.0.copies),
                DType::F16 => address::<f16>(&room, &self.0.copies),
                DType::U8 => address::<u8>(&room, &self.0.copies),
                _ => address::<f32>(&room, &self.0.copies),
            };
            wrapped(self.copy_bytes(state.stages.as_mut(), bytes, to?))?;
            Ok(room)
        }

        /// Memory for such a tensor in the place that is being filled: what lies there already, where it fits.
        fn room(&self, state: &mut State, shape: &[usize], dtype: DType) -> Result<Tensor> {
            let (at, place) = (state.filled, state.turn % SLOTS);
            state.filled += 1;
            let rooms = &mut state.rooms[place];
            let fits = |room: &&Tensor| room.dims() == shape && room.dtype() == dtype;
            if let Some(room) = rooms.get(at).filter(fits) {
                return Ok(room.clone());
            }
            // Of a block of the other kind: its memory goes before the new comes.
            rooms.truncate(at);
            let room = self.allocated(shape, dtype)?;
            rooms.push(room.clone());
            Ok(room)
        }

        /// New memory on the kernels' stream, which the copies wait for.
        fn allocated(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
            let (device, count) = (&self.0.device, shape.iter().product());
            // SAFETY: every number is written by the copy that follows, and kernels wait for it.
            let storage = unsafe {
                match dtype {
                    DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<bf16>(count)?, device.clone()),
                    DType::F16 => CudaStorage::wrap_cuda_slice(device.alloc::<f16>(count)?, device.clone()),
                    DType::U8 => CudaStorage::wrap_cuda_slice(device.alloc::<u8>(count)?, device.clone()),
                    _ => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, device.clone()),
                }
            };
            wrapped(self.0.copies.join(&device.cuda_stream()))?;
            Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
        }

        /// Sends bytes through the pinned buffers in turn, each once its last copy has left it.
        fn copy_bytes(
            &self,
            stages: Option<&mut [Stage; 2]>,
            bytes: &[u8],
            to: CUdeviceptr,
        ) -> Result<(), DriverError> {
            let copies = &self.0.copies;
            copies.context().bind_to_thread()?;
            let Some(stages) = stages else {
                // SAFETY: the room is as large as the tensor, and nothing else uses it before the copies are done.
                return unsafe { result::memcpy_htod_async(to, bytes, copies.cu_stream()) };
            };
            for (index, part) in bytes.chunks(STAGE_BYTES).enumerate() {
                let Stage { buffer, sent } = &mut stages[index % 2];
                sent.synchronize()?;
                let pinned = &mut buffer.as_mut_slice()?[..part.len()];
                let parts = pinned.par_chunks_mut(TASK_BYTES).zip(part.par_chunks(TASK_BYTES));
                parts.for_each(|(to, from)| to.copy_from_slice(from));
                let to = to + (index * STAGE_BYTES) as CUdeviceptr;
                // SAFETY: as above, and the pinned buffer is left alone until `sent` says that the copy has read it.
                unsafe { result::memcpy_htod_async(to, pinned, copies.cu_stream()) }?;
                sent.record(copies)?;
            }
            Ok(())
        }
    }

    /// Numbers as bytes.
    fn bytes_of<T: DeviceRepr>(values: &[T]) -> &[u8] {
        // SAFETY: what a device takes as it is has no padding.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }

    /// Where a tensor lies on the device.
    fn address<T: CudaDType + DeviceRepr>(tensor: &Tensor, stream: &CudaStream) -> Result<CUdeviceptr> {
        let (storage, _) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok(storage.as_cuda_slice::<T>()?.device_ptr(stream).0),
            _ => Err(candle_core::Error::msg("a place that is not on a CUDA device").into()),
        }
    }
}
