//! The stream-ordered allocator: a pool of chunks that are mapped when they are needed, cut into allocations, and given back
//! at the next synchronisation once nothing lies in them. Source: CUDA, "Stream Ordered Memory Allocator": the release
//! threshold is 0 by default. How a driver cuts its chunks is not written anywhere; here, best fit in chunks of 32 MiB steps.

use std::collections::BTreeMap;

use super::{card::CONTEXT_BYTES, memory};

/// Allocations begin at multiples of this. Source: CUDA programming guide, "at least 256 bytes"; drivers use 512.
const GRAIN: u64 = 512;
/// Chunks are multiples of this.
const CHUNK: u64 = 32 << 20;
/// Plain `cuMemAlloc` maps pages of this size.
pub const PAGE: u64 = 2 << 20;
/// Addresses between chunks belong to nobody, so that what runs over one is seen.
const GUARD: u64 = 1 << 20;

/// Who may use a free range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// Anybody.
    Done,
    /// What comes later on this stream: operations before it may still use it. With the number of the free on it.
    On(u64, u64),
}

impl Freed {
    /// Who may use both ranges; nobody may where two streams freed them.
    fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Done, other) => Some(other),
            (own, Self::Done) => Some(own),
            (Self::On(a, first), Self::On(b, second)) => (a == b).then_some(Self::On(a, first.max(second))),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Range {
    bytes: u64,
    freed: Freed,
}

#[derive(Debug)]
struct Chunk {
    bytes: u64,
    /// Free ranges by address.
    free: BTreeMap<u64, Range>,
    /// Whether it belongs to the pool; else it is one plain allocation.
    pooled: bool,
}

impl Chunk {
    /// A range is free, and one with its neighbours that the same stream freed, or that anybody may use.
    fn give_back(&mut self, at: u64, range: Range) {
        let (mut at, mut range) = (at, range);
        let before = self.free.range(..at).next_back().map(|(start, range)| (*start, *range));
        if let Some((start, before)) = before.filter(|(start, before)| start + before.bytes == at)
            && let Some(freed) = before.freed.with(range.freed)
        {
            self.free.remove(&start);
            (at, range) = (start, Range { bytes: before.bytes + range.bytes, freed });
        }
        let end = at + range.bytes;
        if let Some(behind) = self.free.get(&end).copied()
            && let Some(freed) = range.freed.with(behind.freed)
        {
            self.free.remove(&end);
            range = Range { bytes: range.bytes + behind.bytes, freed };
        }
        self.free.insert(at, range);
    }
}

/// All of the device's memory, as addresses.
#[derive(Debug)]
pub struct Pool {
    total: u64,
    chunks: BTreeMap<u64, Chunk>,
    /// Bytes of each allocation, as it takes them.
    taken: BTreeMap<u64, u64>,
    next: u64,
    /// Bytes allocated, and at most so far.
    pub used: u64,
    /// Their most.
    pub most_used: u64,
    /// Bytes of chunks at most.
    pub most_mapped: u64,
    /// Chunks mapped so far: what is given back at a synchronisation is mapped anew afterwards, which takes a driver time.
    pub maps: u64,
    /// The most used and mapped since they were last asked for.
    recent: (u64, u64),
}

impl Pool {
    /// An empty device of so many bytes.
    pub fn new(total: u64) -> Self {
        let next = memory::BASE + CHUNK;
        let (chunks, taken) = (BTreeMap::new(), BTreeMap::new());
        Self { total, chunks, taken, next, used: 0, most_used: 0, most_mapped: 0, maps: 0, recent: (0, 0) }
    }

    /// Bytes allocated and bytes of chunks, the most of each since this was asked before.
    pub fn recent(&mut self) -> (u64, u64) {
        let now = (self.used, self.mapped());
        std::mem::replace(&mut self.recent, now)
    }

    /// Bytes of all chunks.
    pub fn mapped(&self) -> u64 {
        self.chunks.values().map(|chunk| chunk.bytes).sum()
    }

    /// Bytes that no chunk takes: what `cuMemGetInfo` calls free.
    pub fn unmapped(&self) -> u64 {
        self.total.saturating_sub(CONTEXT_BYTES + self.mapped())
    }

    /// Free pieces in what is mapped: how many, and the bytes of the largest.
    pub fn pieces(&self) -> (usize, u64) {
        let free = || self.chunks.values().flat_map(|chunk| chunk.free.values());
        (free().count(), free().map(|range| range.bytes).max().unwrap_or(0))
    }

    /// The device's bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// An address for so many bytes that a stream allocates; `done` says whether a free has been executed.
    pub fn allocate(&mut self, bytes: u64, stream: u64, done: impl Fn(u64, u64) -> bool) -> Option<u64> {
        let bytes = bytes.max(1).next_multiple_of(GRAIN);
        let usable = |range: &Range| match range.freed {
            Freed::Done => true,
            Freed::On(its, at) => its == stream || done(its, at),
        };
        let fits = |range: &Range| range.bytes >= bytes && usable(range);
        let best = self
            .chunks
            .iter()
            .filter(|(_, chunk)| chunk.pooled)
            .flat_map(|(start, chunk)| chunk.free.iter().map(move |(at, range)| (*start, *at, *range)))
            .filter(|(_, _, range)| fits(range))
            .min_by_key(|(_, _, range)| range.bytes);
        let (chunk, at) = match best {
            Some((chunk, at, _)) => (chunk, at),
            None => {
                let start = self.map(bytes.next_multiple_of(CHUNK), true)?;
                (start, start)
            }
        };
        let chunk = self.chunks.get_mut(&chunk)?;
        let range = chunk.free.remove(&at)?;
        if range.bytes > bytes {
            chunk.free.insert(at + bytes, Range { bytes: range.bytes - bytes, freed: range.freed });
        }
        self.take(at, bytes);
        Some(at)
    }

    /// An address for a plain allocation.
    pub fn allocate_plain(&mut self, bytes: u64) -> Option<u64> {
        let bytes = bytes.max(1).next_multiple_of(PAGE);
        let at = self.map(bytes, false)?;
        self.take(at, bytes);
        Some(at)
    }

    fn take(&mut self, at: u64, bytes: u64) {
        self.taken.insert(at, bytes);
        self.used += bytes;
        self.most_used = self.most_used.max(self.used);
        self.recent.0 = self.recent.0.max(self.used);
    }

    fn map(&mut self, bytes: u64, pooled: bool) -> Option<u64> {
        if bytes > self.unmapped() {
            return None;
        }
        let start = self.addresses(bytes);
        self.next = start + bytes.next_multiple_of(GUARD) + GUARD;
        let free = BTreeMap::from_iter(pooled.then_some((start, Range { bytes, freed: Freed::Done })));
        self.chunks.insert(start, Chunk { bytes, free, pooled });
        self.maps += 1;
        self.most_mapped = self.most_mapped.max(self.mapped());
        self.recent.1 = self.recent.1.max(self.mapped());
        Some(start)
    }

    /// Addresses of no chunk: behind those that were given last, so that what was given back is reached by nobody for as long as
    /// there are others, and from the first again once there are none.
    fn addresses(&self, bytes: u64) -> u64 {
        let (first, end) = (memory::BASE + CHUNK, memory::BASE + memory::SPAN as u64);
        let bytes = bytes.next_multiple_of(GUARD) + GUARD;
        let mut at = self.next;
        if at + bytes > end {
            at = first;
        }
        for (start, chunk) in self.chunks.range(at..) {
            if at + bytes <= *start {
                break;
            }
            at = (start + chunk.bytes).next_multiple_of(GUARD) + GUARD;
        }
        assert!(at + bytes <= end, "the device's addresses are in pieces");
        at
    }

    /// Takes back what lies at an address; false where nothing does.
    pub fn free(&mut self, at: u64, freed: Freed) -> bool {
        let Some(bytes) = self.taken.remove(&at) else { return false };
        self.used -= bytes;
        let Some((start, chunk)) = self.chunks.range_mut(..=at).next_back() else { return false };
        if !chunk.pooled {
            let start = *start;
            self.chunks.remove(&start);
            return true;
        }
        chunk.give_back(at, Range { bytes, freed });
        true
    }

    /// Frees that have been executed: anybody may use their ranges, and chunks in which nothing lies are given back.
    pub fn synchronised(&mut self, done: impl Fn(u64, u64) -> bool) {
        for chunk in self.chunks.values_mut() {
            for (at, range) in std::mem::take(&mut chunk.free) {
                let freed = match range.freed {
                    Freed::On(stream, number) if !done(stream, number) => range.freed,
                    _ => Freed::Done,
                };
                chunk.give_back(at, Range { bytes: range.bytes, freed });
            }
        }
        let is_empty = |chunk: &Chunk| {
            let mut free = chunk.free.values();
            chunk.pooled && free.any(|range| range.bytes == chunk.bytes && range.freed == Freed::Done)
        };
        self.chunks.retain(|_, chunk| !is_empty(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(mib: u64) -> Pool {
        Pool::new(CONTEXT_BYTES + (mib << 20))
    }

    #[test]
    fn what_a_stream_freed_it_may_use_at_once_and_others_when_it_is_done() {
        let mut pool = pool(64);
        let first = pool.allocate(20 << 20, 1, |_, _| false).unwrap();
        assert!(pool.free(first, Freed::On(1, 5)));
        assert_eq!(pool.allocate(20 << 20, 1, |_, _| false), Some(first));
        assert!(pool.free(first, Freed::On(1, 6)));
        assert_ne!(pool.allocate(20 << 20, 2, |_, _| false), Some(first));
        assert_eq!(pool.allocate(20 << 20, 2, |_, at| at <= 6), Some(first));
        assert!(!pool.free(first + 512, Freed::Done));
    }

    #[test]
    fn what_one_stream_freed_side_by_side_is_one_range_at_once() {
        let mut pool = pool(32);
        let parts: Vec<_> = (0..4).map(|_| pool.allocate(8 << 20, 1, |_, _| true).unwrap()).collect();
        for (at, (stream, number)) in [(2, (1, 9)), (1, (1, 8)), (3, (2, 1))] {
            assert!(pool.free(parts[at], Freed::On(stream, number)));
        }
        // For others, it is free when both are.
        assert_eq!(pool.allocate(16 << 20, 2, |stream, number| stream == 1 && number < 9), None);
        assert_eq!(pool.allocate(16 << 20, 1, |_, _| false), Some(parts[1]));
        // What another stream freed does not join it.
        assert!(pool.free(parts[1], Freed::On(1, 10)));
        assert_eq!(pool.allocate(24 << 20, 1, |_, _| false), None);
        pool.synchronised(|_, _| true);
        assert_eq!(pool.allocate(24 << 20, 1, |_, _| false), Some(parts[1]));
    }

    #[test]
    fn addresses_come_again_when_all_were_given_and_never_while_they_are_held() {
        let mut pool = pool(64 << 10);
        let kept = pool.allocate(32 << 20, 1, |_, _| true).unwrap();
        let mut last = kept;
        let mut turned = 0;
        for _ in 0..100 {
            let at = pool.allocate(30 << 30, 1, |_, _| true).unwrap();
            assert!(at >= kept + (32 << 20) || at + (30 << 30) <= kept);
            turned += usize::from(at < last);
            last = at;
            pool.free(at, Freed::Done);
            pool.synchronised(|_, _| true);
        }
        assert!(turned > 1, "30 GiB a hundred times in a terabyte of addresses");
        assert!(pool.free(kept, Freed::Done));
    }

    #[test]
    fn memory_ends_and_comes_back_when_the_device_is_synchronised() {
        let mut pool = pool(64);
        let all = pool.allocate(64 << 20, 1, |_, _| true).unwrap();
        assert_eq!((pool.unmapped(), pool.used), (0, 64 << 20));
        assert_eq!(pool.allocate(1, 1, |_, _| true), None);
        pool.free(all, Freed::On(1, 0));
        assert_eq!(pool.unmapped(), 0);
        pool.synchronised(|_, _| true);
        assert_eq!((pool.unmapped(), pool.used, pool.most_used), (64 << 20, 0, 64 << 20));
        assert_eq!(pool.recent(), (64 << 20, 64 << 20));
        assert_eq!(pool.recent(), (0, 0));
    }

    #[test]
    fn fragments_are_no_room_for_what_is_larger() {
        let mut pool = pool(32);
        let parts: Vec<_> = (0..4).map(|_| pool.allocate(8 << 20, 1, |_, _| true).unwrap()).collect();
        pool.free(parts[0], Freed::Done);
        pool.free(parts[2], Freed::Done);
        pool.synchronised(|_, _| true);
        assert_eq!(pool.allocate(16 << 20, 1, |_, _| true), None);
        pool.free(parts[1], Freed::Done);
        pool.synchronised(|_, _| true);
        assert_eq!(pool.allocate(24 << 20, 1, |_, _| true), Some(parts[0]));
    }
}
