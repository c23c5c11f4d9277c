//! Weights on their way to a device while it computes.
//!
//! On CUDA the copies have a stream of their own. They go into a ring of [`SLOTS`] places of one block each, whose memory
//! stays: nothing is allocated or freed from one block to the next, which would make the copies wait for the kernels of the
//! block before. Order is kept by two events of each place: the kernels of a block wait until its copies are done, and the
//! copies into a place wait until the kernels of the block that lay there are done. Nothing is left to the events that the
//! driver's wrapper keeps for each buffer: candle records some of its kernels there on the buffer's stream, not their own.
//!
//! Only pinned memory travels beside computation, so weights pass through two pinned buffers: while one travels, the next
//! part is copied into the other. Where the system pins no memory the driver stages them itself, and the call waits for it.

/// Places of a ring: one block computes, one is there, one is on its way.
pub const SLOTS: usize = 3;

#[cfg(feature = "cuda")]
pub use cuda::Ring;
#[cfg(not(feature = "cuda"))]
pub use none::Ring;

/// Without CUDA no device has such a ring.
#[cfg(not(feature = "cuda"))]
mod none {
    use candle_core::{Device, Tensor};

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

    use super::SLOTS;
    use crate::error::Result;

    /// Bytes of a pinned buffer: starting a copy costs little beside it, and two of them little beside a block.
    const STAGE_BYTES: usize = 16 << 20;

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
            match &*storage {
                Storage::Cpu(CpuStorage::BF16(values)) => self.copy(&tensor, &values[start..end]),
                Storage::Cpu(CpuStorage::F16(values)) => self.copy(&tensor, &values[start..end]),
                Storage::Cpu(CpuStorage::F32(values)) => self.copy(&tensor, &values[start..end]),
                Storage::Cpu(CpuStorage::U8(values)) => self.copy(&tensor, &values[start..end]),
                _ => Ok(tensor.to_device(&Device::Cuda(self.0.device.clone()))?),
            }
        }

        fn copy<T: CudaDType + DeviceRepr>(&self, like: &Tensor, values: &[T]) -> Result<Tensor> {
            let mut state = self.state();
            let room = self.room(&mut state, like)?;
            let to = address::<T>(&room, &self.0.copies)?;
            // SAFETY: numbers are bytes.
            let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
            wrapped(self.copy_bytes(state.stages.as_mut(), bytes, to))?;
            Ok(room)
        }

        /// Memory for a tensor like this in the place that is being filled: what lies there already, where it fits.
        fn room(&self, state: &mut State, like: &Tensor) -> Result<Tensor> {
            let (at, place) = (state.filled, state.turn % SLOTS);
            state.filled += 1;
            let rooms = &mut state.rooms[place];
            let fits = |room: &&Tensor| room.dims() == like.dims() && room.dtype() == like.dtype();
            if let Some(room) = rooms.get(at).filter(fits) {
                return Ok(room.clone());
            }
            // Of a block of the other kind: its memory goes before the new comes.
            rooms.truncate(at);
            let room = self.allocated(like)?;
            rooms.push(room.clone());
            Ok(room)
        }

        /// New memory on the kernels' stream, which the copies wait for.
        fn allocated(&self, like: &Tensor) -> Result<Tensor> {
            let (device, count) = (&self.0.device, like.elem_count());
            // SAFETY: every number is written by the copy that follows, and kernels wait for it.
            let storage = unsafe {
                match like.dtype() {
                    DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<bf16>(count)?, device.clone()),
                    DType::F16 => CudaStorage::wrap_cuda_slice(device.alloc::<f16>(count)?, device.clone()),
                    DType::U8 => CudaStorage::wrap_cuda_slice(device.alloc::<u8>(count)?, device.clone()),
                    _ => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, device.clone()),
                }
            };
            wrapped(self.0.copies.join(&device.cuda_stream()))?;
            Ok(Tensor::from_storage(Storage::Cuda(storage), like.dims(), BackpropOp::none(), false))
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
                pinned.copy_from_slice(part);
                let to = to + (index * STAGE_BYTES) as CUdeviceptr;
                // SAFETY: as above, and the pinned buffer is left alone until `sent` says that the copy has read it.
                unsafe { result::memcpy_htod_async(to, pinned, copies.cu_stream()) }?;
                sent.record(copies)?;
            }
            Ok(())
        }
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
