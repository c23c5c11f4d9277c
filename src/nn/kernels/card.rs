//! What every launch of a kernel of our own needs.

use candle_core::{
    CudaStorage, Error, Layout, Result,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{CudaView, DeviceRepr, LaunchConfig},
    },
};

/// An array, as an operation is given it.
pub type Given<'a> = (&'a CudaStorage, &'a Layout);

/// Its numbers from where it begins.
///
/// # Errors
/// When they are of another type.
pub fn numbers<'a, T: CudaDType + DeviceRepr>((storage, layout): Given<'a>) -> Result<CudaView<'a, T>> {
    Ok(storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..))
}

/// What is said where a kernel is asked of a processor.
pub fn on_processor(what: &str) -> Error {
    Error::msg(format!("{what} by a kernel of CUDA's, on a processor"))
}

/// So many blocks along both axes, of so many threads, with so many bytes of their own memory that are asked for at the launch.
///
/// # Errors
/// When a driver does not count so many.
pub fn launch([across, down]: [usize; 2], threads: usize, room: usize) -> Result<LaunchConfig> {
    let number = |count: usize| u32::try_from(count).map_err(Error::wrap);
    Ok(LaunchConfig {
        grid_dim: (number(across)?, number(down)?, 1),
        block_dim: (number(threads)?, 1, 1),
        shared_mem_bytes: number(room)?,
    })
}
