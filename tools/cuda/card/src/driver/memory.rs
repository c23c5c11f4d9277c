//! Memory of the device and pinned memory of the host, and copies between them.

use std::{
    alloc::{Layout, alloc, dealloc},
    ffi::{c_int, c_uint, c_void},
};

use super::{on_device, put};
use crate::device::{
    result,
    work::{Host, Work},
};

/// Pinned memory is given in pages.
const PAGE: usize = 4096;

/// The device's one pool.
const POOL: u64 = 0x9001;

/// Allocates at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(at: *mut u64, bytes: usize) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|device| unsafe { put(at, device.allocate_plain(bytes as u64)?) })
}

/// Frees, once everything is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(at: u64) -> u32 {
    on_device(|device| device.free(None, at))
}

/// Allocates in stream order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(at: *mut u64, bytes: usize, stream: u64) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|device| unsafe { put(at, device.allocate(stream, bytes as u64)?) })
}

/// Frees in stream order.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(at: u64, stream: u64) -> u32 {
    on_device(|device| device.free(Some(stream), at))
}

/// Free bytes and all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32 {
    on_device(|device| {
        let (left, all) = device.memory_info();
        // SAFETY: the caller's pointers.
        unsafe { put(free, left as usize).and(put(total, all as usize)) }
    })
}

/// The device's pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut u64, _device: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(pool, POOL) })
}

/// The device's pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetMemPool(pool: *mut u64, _device: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(pool, POOL) })
}

/// Gives back what nobody uses.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolTrimTo(_pool: u64, _least: usize) -> u32 {
    on_device(|device| device.synchronise())
}

fn layout(bytes: usize) -> Result<Layout, u32> {
    Layout::from_size_align(bytes.max(1), PAGE).map_err(|_| result::INVALID_VALUE)
}

/// Pinned memory of the host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(at: *mut *mut c_void, bytes: usize, _flags: c_uint) -> u32 {
    on_device(|device| {
        // SAFETY: the layout has at least one byte.
        let memory = unsafe { alloc(layout(bytes)?) };
        if memory.is_null() {
            return Err(result::OUT_OF_MEMORY);
        }
        device.pin(memory as u64, bytes);
        // SAFETY: the caller's pointer.
        unsafe { put(at, memory.cast()) }
    })
}

/// Gives it back; copies that read it are done first, as with a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(at: *mut c_void) -> u32 {
    on_device(|device| {
        device.synchronise()?;
        let bytes = device.unpin(at as u64).ok_or(result::INVALID_VALUE)?;
        // SAFETY: allocated by `cuMemHostAlloc` with this layout.
        unsafe { dealloc(at.cast(), layout(bytes)?) };
        Ok(())
    })
}

/// Host to device; done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> u32 {
    on_device(|device| device.ask_and_wait(0, Work::Upload { to, from: Host(from as *mut u8), bytes }))
}

/// Host to device. Pinned memory is read when the stream comes to it; other memory has been read when the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64) -> u32 {
    on_device(|device| {
        if device.is_pinned(from as u64, bytes) {
            return device.ask(stream, Work::Upload { to, from: Host(from as *mut u8), bytes });
        }
        if bytes > STAGED {
            // A driver stages large copies piece by piece, and returns with the last.
            return device.ask_and_wait(stream, Work::Upload { to, from: Host(from as *mut u8), bytes });
        }
        // SAFETY: the caller's buffer.
        let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec();
        device.ask(stream, Work::UploadStaged { to, from })
    })
}

/// Bytes up to which a copy from memory that is not pinned is taken at once. Source: CUDA driver API, "API synchronization
/// behavior": 64 KB.
const STAGED: usize = 64 << 10;

/// Device to host; done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> u32 {
    on_device(|device| device.ask_and_wait(0, Work::Download { to: Host(to.cast()), from, bytes }))
}

/// Device to host; memory that is not pinned has been written when the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: u64) -> u32 {
    on_device(|device| {
        let work = Work::Download { to: Host(to.cast()), from, bytes };
        if device.is_pinned(to as u64, bytes) { device.ask(stream, work) } else { device.ask_and_wait(stream, work) }
    })
}

/// Within the device, on the default stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32 {
    on_device(|device| device.ask(0, Work::Copy { to, from, bytes }))
}

/// Within the device.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> u32 {
    on_device(|device| device.ask(stream, Work::Copy { to, from, bytes }))
}

/// Sets bytes, on the default stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: u8, bytes: usize) -> u32 {
    on_device(|device| device.ask(0, Work::Set { to, value, bytes }))
}

/// Sets bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: u64) -> u32 {
    on_device(|device| device.ask(stream, Work::Set { to, value, bytes }))
}
