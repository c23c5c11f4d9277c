//! What every launch of a kernel of our own needs.

use candle_core::{CudaStorage, Layout, Result, cuda_backend::cudarc::driver::LaunchConfig};

/// An array, as an operation is given it.
pub type Given<'a> = (&'a CudaStorage, &'a Layout);

/// So many blocks along both axes, of so many threads, with so many bytes of their own memory that are asked for at the launch.
///
/// # Errors
/// When a driver does not count so many.
pub fn launch([across, down]: [usize; 2], threads: usize, room: usize) -> Result<LaunchConfig> {
    let number = |count: usize| u32::try_from(count).map_err(candle_core::Error::wrap);
    Ok(LaunchConfig {
        grid_dim: (number(across)?, number(down)?, 1),
        block_dim: (number(threads)?, 1, 1),
        shared_mem_bytes: number(room)?,
    })
}
