//! Initialisation, the device and its context.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{on_device, put};
use crate::device::{Device, card::Settings, device, result};

/// The one context there is.
const CONTEXT: *mut c_void = 0xc0de_0000 as *mut c_void;

extern "C" fn at_exit() {
    if let Some(device) = device().as_ref() {
        device.write_report();
    }
}

/// Makes the device.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> u32 {
    unsafe extern "C" {
        fn atexit(callback: extern "C" fn()) -> c_int;
    }
    let mut device = device();
    if device.is_none() {
        match Settings::new(|name| std::env::var(name).ok()) {
            Ok(settings) => *device = Some(Device::new(settings)),
            Err(wrong) => {
                eprintln!("card: {wrong}");
                return result::INVALID_VALUE;
            }
        }
        // SAFETY: a function of this library, which stays loaded.
        unsafe { atexit(at_exit) };
    }
    result::SUCCESS
}

/// CUDA 13.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { put(version, 13000) }.err().unwrap_or(result::SUCCESS)
}

/// One device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(count, 1) })
}

/// Number 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(found: *mut c_int, ordinal: c_int) -> u32 {
    if ordinal != 0 {
        return result::INVALID_DEVICE;
    }
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(found, 0) })
}

/// Its name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) -> u32 {
    on_device(|device| {
        let bytes = device.settings.card.name.bytes().take((length.max(1) - 1) as usize).chain([0]);
        // SAFETY: the caller's buffer has `length` bytes.
        bytes.enumerate().for_each(|(at, byte)| unsafe { name.add(at).write(byte as c_char) });
        Ok(())
    })
}

/// 16 bytes that name it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], _device: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(uuid, *b"a simulated card") })
}

/// Its memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|device| unsafe { put(bytes, device.memory_info().1 as usize) })
}

/// `CUdevice_attribute`: those that programs ask for here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, _device: c_int) -> u32 {
    on_device(|device| {
        let card = device.settings.card;
        let found = match attribute {
            1 => 1024,                                        // MAX_THREADS_PER_BLOCK
            2 | 3 => 1024,                                    // MAX_BLOCK_DIM_X, Y
            4 => 64,                                          // MAX_BLOCK_DIM_Z
            5 => c_int::MAX,                                  // MAX_GRID_DIM_X
            6 | 7 => 65535,                                   // MAX_GRID_DIM_Y, Z
            8 => 48 << 10,                                    // MAX_SHARED_MEMORY_PER_BLOCK
            10 => 32,                                         // WARP_SIZE
            12 => 65536,                                      // MAX_REGISTERS_PER_BLOCK
            16 => card.multiprocessors as c_int,              // MULTIPROCESSOR_COUNT
            39 => card.threads_per_multiprocessor() as c_int, // MAX_THREADS_PER_MULTIPROCESSOR
            75 => card.capability.0 as c_int,                 // COMPUTE_CAPABILITY_MAJOR
            76 => card.capability.1 as c_int,                 // COMPUTE_CAPABILITY_MINOR
            115 => 1,                                         // MEMORY_POOLS_SUPPORTED
            other => {
                eprintln!("card: device attribute {other} is not known");
                return Err(result::NOT_SUPPORTED);
            }
        };
        // SAFETY: the caller's pointer.
        unsafe { put(value, found) }
    })
}

/// The context of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(context, CONTEXT) })
}

/// The context stays.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> u32 {
    on_device(|_| Ok(()))
}

/// The context of this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(context, CONTEXT) })
}

/// There is only one.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> u32 {
    on_device(|_| Ok(()))
}

/// Waits for everything.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> u32 {
    on_device(Device::synchronise)
}

fn describe(code: u32) -> (&'static [u8], &'static [u8]) {
    match code {
        result::SUCCESS => (b"CUDA_SUCCESS\0", b"no error\0"),
        result::INVALID_VALUE => (b"CUDA_ERROR_INVALID_VALUE\0", b"invalid argument\0"),
        result::OUT_OF_MEMORY => (b"CUDA_ERROR_OUT_OF_MEMORY\0", b"out of memory\0"),
        result::NOT_INITIALIZED => (b"CUDA_ERROR_NOT_INITIALIZED\0", b"initialization error\0"),
        result::INVALID_DEVICE => (b"CUDA_ERROR_INVALID_DEVICE\0", b"invalid device ordinal\0"),
        result::INVALID_IMAGE => (b"CUDA_ERROR_INVALID_IMAGE\0", b"device kernel image is invalid\0"),
        result::INVALID_PTX => (b"CUDA_ERROR_INVALID_PTX\0", b"a PTX JIT compilation failed\0"),
        result::INVALID_HANDLE => (b"CUDA_ERROR_INVALID_HANDLE\0", b"invalid resource handle\0"),
        result::NOT_FOUND => (b"CUDA_ERROR_NOT_FOUND\0", b"named symbol not found\0"),
        result::NOT_READY => (b"CUDA_ERROR_NOT_READY\0", b"device not ready\0"),
        result::ILLEGAL_ADDRESS => (b"CUDA_ERROR_ILLEGAL_ADDRESS\0", b"an illegal memory access was encountered\0"),
        result::ILLEGAL_INSTRUCTION => {
            (b"CUDA_ERROR_ILLEGAL_INSTRUCTION\0", b"an illegal instruction was encountered\0")
        }
        result::MISALIGNED_ADDRESS => (b"CUDA_ERROR_MISALIGNED_ADDRESS\0", b"misaligned address\0"),
        result::LAUNCH_FAILED => (b"CUDA_ERROR_LAUNCH_FAILED\0", b"unspecified launch failure\0"),
        result::NOT_SUPPORTED => (b"CUDA_ERROR_NOT_SUPPORTED\0", b"operation not supported\0"),
        _ => (b"CUDA_ERROR_UNKNOWN\0", b"unknown error\0"),
    }
}

/// A result's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: u32, name: *mut *const c_char) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { put(name, describe(code).0.as_ptr().cast()) }.err().unwrap_or(result::SUCCESS)
}

/// A result in words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: u32, words: *mut *const c_char) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { put(words, describe(code).1.as_ptr().cast()) }.err().unwrap_or(result::SUCCESS)
}
