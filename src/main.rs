//! dype, the command line: parse, run, exit code.

use std::{
    alloc::{GlobalAlloc, Layout},
    io::Write,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

/// The system allocator returns large buffers to the kernel at once and pays for every page again: up to twice the time.
#[global_allocator]
static ALLOCATOR: Advising = Advising(mimalloc::MiMalloc);

fn main() -> ExitCode {
    dype::main()
}

/// An allocator that says what to do where the system gives no memory: what follows ends the process.
struct Advising(mimalloc::MiMalloc);

impl Advising {
    fn checked(pointer: *mut u8) -> *mut u8 {
        static TOLD: AtomicBool = AtomicBool::new(false);
        if pointer.is_null() && !TOLD.swap(true, Ordering::Relaxed) {
            let advice = b"hint: the system gives this process no more memory: raise its limits (ulimit -v, ulimit -d, its container's), \
                           set --memory to less than --dry-run plans, or ask for a smaller picture\n";
            // Unbuffered: nothing is allocated. A closed stderr leaves nobody to tell.
            let _ = std::io::stderr().write_all(advice);
        }
        pointer
    }
}

// SAFETY: every call goes to the allocator inside as it came, and its pointers are returned as they are.
unsafe impl GlobalAlloc for Advising {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        Self::checked(unsafe { self.0.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        Self::checked(unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        Self::checked(unsafe { self.0.realloc(pointer, layout, size) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.0.dealloc(pointer, layout) };
    }
}
