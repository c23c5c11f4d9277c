//! The program's allocator: small things in small pages, large ones in huge pages, and a hint where the system gives no more.

use std::{
    alloc::{GlobalAlloc, Layout},
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use mimalloc::MiMalloc;

/// Allocations of so many bytes and more lie in huge pages where the system has them: attention over 4608 tokens is 6 to 10% faster.
/// Smaller ones do not: pages of 2 MiB that are touched here and there took 30 to 45 MB that nobody used.
const LARGE: usize = 4 << 20;
/// The side of a huge page.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// mimalloc: the system's allocator returns large buffers to the kernel at once and pays for every page again, up to twice the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

impl Allocator {
    /// The pointer as it came, of an allocation of so many bytes. That there is none is told.
    fn made(pointer: *mut u8, bytes: usize) -> *mut u8 {
        if pointer.is_null() {
            say_that_memory_is_out();
        } else if bytes >= LARGE {
            lay_in_huge_pages(pointer, bytes);
        }
        pointer
    }
}

/// What follows ends the process: the system gives no memory.
#[cold]
fn say_that_memory_is_out() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        let advice = b"hint: the system gives this process no more memory: raise its limits (ulimit -v, ulimit -d, its container's), \
                       set --memory to less than --dry-run plans, or ask for a smaller picture\n";
        // Unbuffered: nothing is allocated. A closed stderr leaves nobody to tell.
        let _ = std::io::stderr().write_all(advice);
    }
}

/// Asks for huge pages where whole ones lie within the allocation, so that none reaches beyond it.
#[cfg(target_os = "linux")]
fn lay_in_huge_pages(pointer: *mut u8, bytes: usize) {
    let before = pointer.align_offset(HUGE_PAGE);
    let whole = bytes.saturating_sub(before) / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 {
        // SAFETY: the range lies within an allocation that was just made; advice changes no contents. A refusal costs speed alone.
        unsafe { libc::madvise(pointer.wrapping_add(before).cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn lay_in_huge_pages(_: *mut u8, _: usize) {}

/// Whether all memory lies in huge pages, asked for or not: some systems are set so (`transparent_hugepage/enabled`). The first call
/// asks the system for none but those that are asked for, which Linux knows from 6.18 on; call it before much is allocated.
pub fn has_huge_pages_everywhere() -> bool {
    static EVERYWHERE: OnceLock<bool> = OnceLock::new();
    *EVERYWHERE.get_or_init(|| !small_pages_unless_asked())
}

/// Has the system lay this process in huge pages where it asks for them, and nowhere else.
#[cfg(target_os = "linux")]
fn small_pages_unless_asked() -> bool {
    /// Of `linux/prctl.h`.
    const PR_THP_DISABLE_EXCEPT_ADVISED: libc::c_ulong = 1 << 1;
    let zero: libc::c_ulong = 0;
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    // SAFETY: this option takes four numbers, and changes how later pages are laid out alone.
    !setting.contains("[always]")
        || unsafe {
            libc::prctl(libc::PR_SET_THP_DISABLE, 1 as libc::c_ulong, PR_THP_DISABLE_EXCEPT_ADVISED, zero, zero)
        } == 0
}

#[cfg(not(target_os = "linux"))]
fn small_pages_unless_asked() -> bool {
    true
}

// SAFETY: every call goes to the allocator inside as it came, and its pointers are returned as they are.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        Self::made(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        Self::made(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        Self::made(unsafe { MiMalloc.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.dealloc(pointer, layout) };
    }
}
