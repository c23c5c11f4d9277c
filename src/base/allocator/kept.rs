//! Large allocations that were freed and wait for the next of their size.
//!
//! Every block of a transformer allocates what the one before it has just freed. The system clears each page that it gives, and that
//! took a tenth of a step in bf16. So large allocations are kept, but never so many that the process holds more than it has needed at
//! once before: its peak stays what it would be.

use std::{
    alloc::{GlobalAlloc, Layout},
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mimalloc::MiMalloc;

use super::take_pages;

/// Kept allocations at most; a block makes some twenty.
const PLACES: usize = 64;
/// Sizes between two powers of two. An allocation has room for the next of them, so that one kept serves for another that differs by
/// less than half a percent.
const SIZES_PER_DOUBLING: usize = 256;

/// A freed allocation, and the room it has.
#[derive(Clone, Copy)]
#[must_use = "it has to be freed"]
pub(super) struct Idle {
    start: *mut u8,
    room: Layout,
}

impl Idle {
    /// Gives it back to the system. Nobody else should wait meanwhile.
    pub(super) fn free(self) {
        take_pages(self.start, self.room.size());
        // SAFETY: it came from there with this room, was freed, and is kept no more.
        unsafe { MiMalloc.dealloc(self.start, self.room) };
    }
}

/// What is kept, the longest first.
pub(super) struct Kept {
    idle: [Idle; PLACES],
    count: usize,
    /// Bytes of what is kept.
    idle_bytes: usize,
    /// Bytes of large allocations in use.
    used_bytes: usize,
    /// The most that were in use at once.
    most_bytes: usize,
}

// SAFETY: what is kept belongs to nobody else.
unsafe impl Send for Kept {}

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

/// Those of the process. Nothing in here may panic or allocate.
pub(super) fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room of an allocation: its size rounded up by less than 1/256.
pub(super) fn room(layout: Layout) -> Layout {
    let step = (layout.size().max(1).next_power_of_two() / 2 / SIZES_PER_DOUBLING).max(1);
    let size = layout.size().next_multiple_of(step);
    Layout::from_size_align(size, layout.align()).unwrap_or(layout)
}

impl Kept {
    const fn new() -> Self {
        let nothing = Idle { start: ptr::null_mut(), room: Layout::new::<()>() };
        Self { idle: [nothing; PLACES], count: 0, idle_bytes: 0, used_bytes: 0, most_bytes: 0 }
    }

    /// Bytes that are kept.
    pub(super) fn idle_bytes(&self) -> usize {
        self.idle_bytes
    }

    /// One that has this room; where none is kept, what is [over the peak](Self::over_the_peak) has to be freed.
    pub(super) fn take(&mut self, room: Layout) -> Option<*mut u8> {
        self.used_bytes += room.size();
        self.most_bytes = self.most_bytes.max(self.used_bytes);
        // The last that was freed is the likeliest to lie in a cache.
        let serves = |idle: &Idle| idle.room.size() == room.size() && idle.start.align_offset(room.align()) == 0;
        let at = self.idle[..self.count].iter().rposition(serves)?;
        Some(self.remove(at).start)
    }

    /// One that has been freed; another takes its place where all are taken, and has to be.
    pub(super) fn give(&mut self, start: *mut u8, room: Layout) -> Option<Idle> {
        self.used_bytes = self.used_bytes.saturating_sub(room.size());
        let over = (self.count == PLACES).then(|| self.remove(0));
        self.idle[self.count] = Idle { start, room };
        self.count += 1;
        self.idle_bytes += room.size();
        over
    }

    /// That an allocation which was counted has not been made.
    pub(super) fn forget(&mut self, room: Layout) {
        self.used_bytes = self.used_bytes.saturating_sub(room.size());
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        while self.count > 0 {
            self.remove(0).free();
        }
        self.most_bytes = self.used_bytes;
    }

    /// The oldest of those that would raise the peak.
    pub(super) fn over_the_peak(&mut self) -> Option<Idle> {
        (self.count > 0 && self.used_bytes + self.idle_bytes > self.most_bytes).then(|| self.remove(0))
    }

    fn remove(&mut self, at: usize) -> Idle {
        let idle = self.idle[at];
        self.idle.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.idle_bytes -= idle.room.size();
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn layout(bytes: usize) -> Layout {
        room(Layout::from_size_align(bytes, 64).expect("a size"))
    }

    /// Another allocation of this size; whether it was kept.
    fn allocate(kept: &mut Kept, bytes: usize) -> (*mut u8, bool) {
        let room = layout(bytes);
        let found = kept.take(room);
        while let Some(idle) = kept.over_the_peak() {
            idle.free();
        }
        // SAFETY: it has a size.
        (found.unwrap_or_else(|| unsafe { MiMalloc.alloc(room) }), found.is_some())
    }

    #[test]
    fn a_freed_allocation_serves_for_the_next_of_nearly_its_size() {
        let mut kept = Kept::new();
        let (start, _) = allocate(&mut kept, 100 * MB);
        assert!(kept.give(start, layout(100 * MB)).is_none());
        assert_eq!(allocate(&mut kept, 100 * MB - 5), (start, true));
        assert!(kept.give(start, layout(100 * MB)).is_none());
        let (other, was_kept) = allocate(&mut kept, 50 * MB);
        assert!(!was_kept);
        assert!(kept.give(other, layout(50 * MB)).is_none());
        kept.clear();
        assert_eq!((kept.count, kept.idle_bytes, kept.used_bytes), (0, 0, 0));
    }

    #[test]
    fn what_is_kept_never_raises_the_peak() {
        let (mut kept, mut used, mut most, mut state) = (Kept::new(), Vec::new(), 0, 1_u64);
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 33) as usize;
            if random.is_multiple_of(2) && !used.is_empty() {
                let (start, bytes) = used.swap_remove(random / 2 % used.len());
                assert!(kept.give(start, layout(bytes)).is_none(), "no more than {PLACES}");
            } else if used.len() < 40 {
                let bytes = MB * (4 + random / 2 % 9);
                used.push((allocate(&mut kept, bytes).0, bytes));
            }
            let in_use: usize = used.iter().map(|(_, bytes)| layout(*bytes).size()).sum();
            most = most.max(in_use);
            assert_eq!(kept.used_bytes, in_use);
            assert!(in_use + kept.idle_bytes <= most && kept.count <= PLACES, "{in_use} + {}, {most}", kept.idle_bytes);
        }
        used.into_iter().for_each(|(start, bytes)| assert!(kept.give(start, layout(bytes)).is_none()));
        kept.clear();
    }

    #[test]
    fn room_is_little_more_than_what_is_asked_for() {
        for bytes in [4 * MB, 4 * MB + 1, 56_623_104, 226_492_416, 5_000_000_000] {
            let room = layout(bytes).size();
            assert!((bytes..=bytes + bytes / 256).contains(&room), "{bytes}: {room}");
            assert_eq!(layout(room).size(), room, "a size of its own");
        }
    }
}
