//! An allocator that counts, for tests of what was planned.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// The system's allocator, with a count of the bytes alive, of the most there ever were, and of how often it was asked for some.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One at a time: the counters are the process', so every test beside one that counts takes this too. The harness, which starts a
/// test as the last one ends, comes to rest first.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut asked = COUNT.load(Relaxed);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(50));
        match COUNT.load(Relaxed) {
            now if now == asked => return alone,
            now => asked = now,
        }
    }
}

/// The most bytes that were alive during `work`, beyond those alive before it.
pub fn peak_of(work: impl FnOnce()) -> u64 {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    (PEAK.load(Relaxed) - before) as u64
}

/// The same of work that threads share and that should take so much: done again, ten times at most, while it took less by more than
/// that share. On a busy machine threads are not at their most at once in every run.
#[allow(dead_code, reason = "not every test that counts asks for it")]
pub fn peak_towards(foretold: u64, share: f64, mut work: impl FnMut()) -> u64 {
    let least = foretold as f64 * (1.0 - share);
    let mut most = 0;
    for _ in 0..10 {
        most = most.max(peak_of(&mut work));
        if most as f64 > least {
            break;
        }
    }
    most
}

/// The most bytes that were alive since the last time this was asked, of which it tells from then on.
#[allow(dead_code, reason = "not every test that counts asks for it")]
pub fn peak_since() -> u64 {
    let live = LIVE.load(Relaxed);
    PEAK.swap(live, Relaxed).max(live) as u64
}

/// Bytes alive.
#[allow(dead_code, reason = "not every test that counts asks for it")]
pub fn live() -> u64 {
    LIVE.load(Relaxed) as u64
}

/// How often `work` asked for memory.
#[allow(dead_code, reason = "not every test that counts asks for it")]
pub fn allocations_of(work: impl FnOnce()) -> usize {
    let before = COUNT.load(Relaxed);
    work();
    COUNT.load(Relaxed) - before
}
