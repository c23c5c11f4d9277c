//! Modules, functions and launches.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{on_device, put};
use crate::{
    device::{Device, result, work::Work},
    ptx::code::Kernel,
};

/// Threads of a block at most.
const MOST_THREADS: u64 = 1024;
/// Shared memory of a block unless its function asks for more.
const SHARED: usize = 48 << 10;

/// Loads a module: PTX text that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut u64, image: *const c_void) -> u32 {
    on_device(|device| {
        // SAFETY: an image of PTX ends with a zero byte; others have one in their headers.
        let text = unsafe { CStr::from_ptr(image.cast::<c_char>()) };
        if [b"\x7fELF", b"\x50\xed\x55\xba"].iter().any(|magic| text.to_bytes().starts_with(*magic)) {
            eprintln!(
                "card: a module arrives as machine code (a cubin or fat binary), which is not executed here: PTX is"
            );
            return Err(result::INVALID_IMAGE);
        }
        let text = text.to_str().map_err(|_| result::INVALID_IMAGE)?;
        let handle = device.load_module(text)?;
        // SAFETY: the caller's pointer.
        unsafe { put(module, handle) }
    })
}

/// Unloads it.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: u64) -> u32 {
    on_device(|device| device.unload(module))
}

/// A kernel by name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) -> u32 {
    on_device(|device| {
        // SAFETY: the caller's string.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| result::INVALID_VALUE)?;
        let handle = device.function(module, name)?;
        // SAFETY: the caller's pointer.
        unsafe { put(function, handle) }
    })
}

/// Launches a kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: u64,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: u64,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> u32 {
    on_device(|device| {
        let kernel = device.kernel(function).ok_or(result::INVALID_HANDLE)?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        within_limits(device, &kernel, (grid, block), shared as usize)?;
        if !extra.is_null() {
            eprintln!("card: kernel {} is launched with 'extra', which is not known here", kernel.name);
            return Err(result::NOT_SUPPORTED);
        }
        // SAFETY: the caller gives a pointer for each parameter of the kernel.
        let parameters = unsafe { gathered(&kernel, parameters) };
        device.ask(stream, Work::Launch { kernel, grid, block, shared: shared as usize, parameters })
    })
}

fn within_limits(
    device: &Device,
    kernel: &Kernel,
    (grid, block): ([u32; 3], [u32; 3]),
    shared: usize,
) -> Result<(), u32> {
    let threads: u64 = block.iter().map(|n| u64::from(*n)).product();
    let most = [c_int::MAX as u32, 65535, 65535];
    let fits = threads <= MOST_THREADS
        && threads > 0
        && block[2] <= 64
        && grid.iter().zip(most).all(|(n, most)| *n > 0 && *n <= most)
        && kernel.shared_bytes + shared <= SHARED;
    if fits {
        return Ok(());
    }
    eprintln!(
        "card: kernel {} over {grid:?} blocks of {block:?} threads and {} bytes of shared memory is over the limits of {}",
        kernel.name,
        kernel.shared_bytes + shared,
        device.settings.card.name
    );
    Err(result::INVALID_VALUE)
}

/// The bytes of all parameters, each where the kernel looks for it.
///
/// # Safety
/// `pointers` must hold a pointer to each of the kernel's parameters.
unsafe fn gathered(kernel: &Kernel, pointers: *mut *mut c_void) -> Vec<u8> {
    let mut bytes = vec![0; kernel.parameter_bytes()];
    for (index, (offset, length)) in kernel.parameters.iter().enumerate() {
        // SAFETY: the caller's promise.
        let value = unsafe { std::slice::from_raw_parts((*pointers.add(index)).cast::<u8>(), *length) };
        bytes[*offset..offset + length].copy_from_slice(value);
    }
    bytes
}

/// What a function is, as far as it is asked for: the most threads of a block, or the shared memory it declares.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: u64) -> u32 {
    on_device(|device| {
        let kernel = device.kernel(function).ok_or(result::INVALID_HANDLE)?;
        let found = match attribute {
            0 => MOST_THREADS as c_int,
            1 => kernel.shared_bytes as c_int,
            3 => kernel.local_bytes as c_int,
            other => {
                eprintln!("card: function attribute {other} is not known");
                return Err(result::NOT_SUPPORTED);
            }
        };
        // SAFETY: the caller's pointer.
        unsafe { put(value, found) }
    })
}
