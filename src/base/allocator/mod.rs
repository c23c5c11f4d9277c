//! The program's allocator: small things in small pages, large ones in huge pages, which are used again, and a hint where the system
//! gives no more.

mod kept;

use std::{
    alloc::{GlobalAlloc, Layout},
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use mimalloc::MiMalloc;

/// Allocations of so many bytes and more are kept when they are freed ([`kept`]). Of smaller ones mimalloc keeps pages for each size: with
/// 1 MiB here, a decode in narrow bands that was planned at 82 MB took 118.
const LARGE: usize = 1 << 16;
/// Allocations of so many bytes and more lie in huge pages where the system has them: attention over 4608 tokens is 6 to 10% faster.
/// Smaller ones do not: pages of 2 MiB that are touched here and there took 30 to 45 MB that nobody used.
const IN_HUGE_PAGES: usize = 4 << 20;
/// Bytes of a huge page.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// mimalloc: the system's allocator returns large buffers to the kernel at once and pays for every page again, up to twice the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// The pointer as it came. That there is none is told.
fn told(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        say_that_memory_is_out();
    }
    pointer
}

/// Gives back to the system what is kept of freed allocations: the next stage allocates in other sizes, and others may wait for memory.
pub fn give_back() {
    kept::kept().clear();
}

/// Bytes of freed allocations that the next ones can take.
pub fn kept_bytes() -> u64 {
    kept::kept().idle_bytes() as u64
}

/// A large allocation, and whether it may hold what somebody wrote before.
fn large(layout: Layout, new: impl Fn(Layout) -> *mut u8) -> (*mut u8, bool) {
    let room = kept::room(layout);
    // Statements of their own: the lock is let go.
    let found = kept::kept().take(room);
    if let Some(start) = found {
        return (start, true);
    }
    loop {
        let over = kept::kept().over_the_peak();
        let Some(idle) = over else { break };
        idle.free();
    }
    let mut start = new(room);
    if start.is_null() {
        give_back();
        start = new(room);
    }
    if start.is_null() {
        kept::kept().forget(room);
    } else if room.size() >= IN_HUGE_PAGES {
        lay_in_huge_pages(start, room.size());
    }
    (told(start), false)
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
fn lay_in_huge_pages(start: *mut u8, bytes: usize) {
    advise(start, bytes, HUGE_PAGE, libc::MADV_HUGEPAGE);
}

/// Takes the pages of an allocation that is about to be freed: the allocator inside keeps them for a while, and the peak would rise.
#[cfg(target_os = "linux")]
fn take_pages(start: *mut u8, bytes: usize) {
    static PAGE: OnceLock<usize> = OnceLock::new();
    // SAFETY: it only tells. Where it does not, pages are taken to be the largest that are usual.
    let page = *PAGE.get_or_init(|| usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10));
    advise(start, bytes, page, libc::MADV_DONTNEED);
}

/// Advice for the whole pages of this side within an allocation of which nobody needs the contents.
#[cfg(target_os = "linux")]
fn advise(start: *mut u8, bytes: usize, page: usize, advice: libc::c_int) {
    let before = start.align_offset(page);
    let whole = bytes.saturating_sub(before) / page * page;
    if whole > 0 {
        // SAFETY: the range lies within an allocation that is ours alone. A refusal costs speed or memory alone.
        unsafe { libc::madvise(start.wrapping_add(before).cast(), whole, advice) };
    }
}

#[cfg(not(target_os = "linux"))]
fn lay_in_huge_pages(_: *mut u8, _: usize) {}

#[cfg(not(target_os = "linux"))]
fn take_pages(_: *mut u8, _: usize) {}

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

// SAFETY: every call goes to the allocator inside, large ones with the room that `kept::room` makes of their layout, which is the same when
// they are freed; one that is used again has been freed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let new = |layout| unsafe { MiMalloc.alloc(layout) };
        if layout.size() < LARGE { told(new(layout)) } else { large(layout, new).0 }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let new = |layout| unsafe { MiMalloc.alloc_zeroed(layout) };
        if layout.size() < LARGE {
            return told(new(layout));
        }
        let (start, is_used) = large(layout, new);
        if is_used {
            // SAFETY: it has room for as much.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size().max(size) < LARGE {
            // SAFETY: the caller's promise, passed on.
            return told(unsafe { MiMalloc.realloc(pointer, layout, size) });
        }
        // SAFETY: the caller promises that this size is a layout's.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if layout.size().min(size) >= LARGE && kept::room(wanted) == kept::room(layout) {
            return pointer;
        }
        // SAFETY: the caller's promise; both are as long as what is copied, and nobody else has the new one.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if layout.size() < LARGE {
            // SAFETY: the caller's promise, passed on.
            unsafe { MiMalloc.dealloc(pointer, layout) };
        } else {
            let over = kept::kept().give(pointer, kept::room(layout));
            if let Some(idle) = over {
                idle.free();
            }
        }
    }
}
