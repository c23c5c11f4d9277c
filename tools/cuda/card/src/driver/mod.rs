//! `libcuda.so.1`: the driver API, by NVIDIA's names and signatures. Source: cuda.h of CUDA 13, as cudarc declares it.
#![allow(non_snake_case, reason = "the names are NVIDIA's")]

mod context;
mod events;
mod holes;
mod launch;
mod memory;
mod unsupported;

use crate::device::{Device, device, result};

/// Runs `work` on the device; the code it fails with, or success.
pub fn on_device(work: impl FnOnce(&mut Device) -> Result<(), u32>) -> u32 {
    match device().as_mut() {
        None => result::NOT_INITIALIZED,
        Some(device) => work(device).err().unwrap_or(result::SUCCESS),
    }
}

/// Writes a result where the caller wants it.
///
/// # Safety
/// `to` must be null or valid for a write.
pub unsafe fn put<T>(to: *mut T, value: T) -> Result<(), u32> {
    if to.is_null() {
        return Err(result::INVALID_VALUE);
    }
    // SAFETY: not null, and the caller's to write.
    unsafe { to.write(value) };
    Ok(())
}
