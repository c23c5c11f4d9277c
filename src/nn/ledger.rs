//! What a dry pass has seen: the code of a network runs over shapes, computes nothing, and writes here what it would hold,
//! launch and multiply. The plan of every stage is read from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::{device::DeviceKind, limits};

/// The counts of one dry pass. Clones share them.
///
/// Memory is counted as it comes and goes: [`Ledger::hold`] gives a guard that frees on drop. Work is counted as often as
/// [`Ledger::repeat`] says, so that one of many equal blocks stands for them all.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: DeviceKind,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    now: u64,
    peak: u64,
    scratch: u64,
    largest_buffer: u64,
    largest_launch: u64,
    flops: u128,
    launches: u64,
    /// How often what is counted now would really happen.
    times: u64,
}

/// Bytes that would be held for as long as this lives.
#[derive(Debug)]
pub struct Held {
    bytes: u64,
    ledger: Ledger,
}

impl Ledger {
    /// Nothing seen yet, on a device of this kind.
    pub fn new(kind: DeviceKind) -> Self {
        let counts = Counts {
            now: 0,
            peak: 0,
            scratch: 0,
            largest_buffer: 0,
            largest_launch: 0,
            flops: 0,
            launches: 0,
            times: 1,
        };
        Self(Arc::new(Inner { kind, counts: Mutex::new(counts) }))
    }

    /// The kind of device that would compute.
    pub fn kind(&self) -> DeviceKind {
        self.0.kind
    }

    /// Whether streamed weights would travel through a ring of places that stay ([`crate::weights::Ring`]).
    pub(super) fn has_rings(&self) -> bool {
        matches!(self.0.kind, DeviceKind::Cuda { .. })
    }

    /// A buffer of `elements` numbers of `width` bytes, until the guard is dropped.
    pub fn hold(&self, elements: usize, width: usize) -> Held {
        let (elements, bytes) = (elements as u64, elements as u64 * width as u64);
        let mut counts = self.counts();
        counts.now += bytes;
        counts.peak = counts.peak.max(counts.now);
        counts.largest_buffer = counts.largest_buffer.max(elements);
        drop(counts);
        Held { bytes, ledger: self.clone() }
    }

    /// Bytes beside those held now, that come and go within one operation.
    pub fn pass(&self, bytes: u64) {
        let mut counts = self.counts();
        counts.peak = counts.peak.max(counts.now + bytes);
    }

    /// Bytes of working room that threads keep until the end; the most that was asked for counts, beside the peak.
    pub fn scratch(&self, bytes: u64) {
        let mut counts = self.counts();
        counts.scratch = counts.scratch.max(bytes);
    }

    /// A kernel launched over so many elements.
    pub fn launch(&self, elements: usize) {
        let mut counts = self.counts();
        counts.launches += counts.times;
        counts.largest_launch = counts.largest_launch.max(elements as u64);
    }

    /// A launch that copies, clears or multiplies buffers: it counts, and only the buffers limit it.
    pub fn launch_over_buffers(&self) {
        let mut counts = self.counts();
        counts.launches += counts.times;
    }

    /// Floating-point operations, a multiply-add counted as two.
    pub fn work(&self, flops: u64) {
        let mut counts = self.counts();
        counts.flops += u128::from(counts.times) * u128::from(flops);
    }

    /// Runs `visit` once and counts its work and launches `times` times; memory that it frees is free each time.
    pub fn repeat<T>(&self, times: usize, visit: impl FnOnce() -> T) -> T {
        let before = self.counts().times;
        self.counts().times = before * times as u64;
        let result = visit();
        self.counts().times = before;
        result
    }

    /// Bytes held now.
    pub fn now_bytes(&self) -> u64 {
        self.counts().now
    }

    /// The most bytes held at once so far, the threads' scratch included.
    pub fn peak_bytes(&self) -> u64 {
        let counts = self.counts();
        counts.peak + counts.scratch
    }

    /// Elements of the largest buffer.
    pub fn largest_buffer(&self) -> u64 {
        self.counts().largest_buffer
    }

    /// The most elements a kernel was launched over.
    pub fn largest_launch(&self) -> u64 {
        self.counts().largest_launch
    }

    /// Floating-point operations, a multiply-add counted as two.
    pub fn flops(&self) -> u128 {
        self.counts().flops
    }

    /// Kernels launched. The CPU's own kernels count as none.
    pub fn launches(&self) -> u64 {
        self.counts().launches
    }

    /// Whether the device can count all that was launched and held ([`limits`]).
    pub fn is_countable(&self) -> bool {
        let counts = self.counts();
        limits::are_countable(self.0.kind, counts.largest_launch, counts.largest_buffer)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Where they are counted.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How many they are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.counts().now -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_and_goes_and_the_peak_stays() {
        let ledger = Ledger::new(DeviceKind::Cpu);
        let first = ledger.hold(100, 4);
        assert_eq!((first.bytes(), ledger.now_bytes()), (400, 400));
        drop(ledger.clone().hold(50, 2));
        ledger.pass(30);
        assert_eq!((ledger.now_bytes(), ledger.peak_bytes()), (400, 500));
        ledger.pass(200);
        drop(first);
        ledger.scratch(7);
        ledger.scratch(5);
        assert_eq!((ledger.now_bytes(), ledger.peak_bytes()), (0, 607));
        assert_eq!(ledger.largest_buffer(), 100);
    }

    #[test]
    fn what_repeats_counts_its_work_each_time_and_its_memory_once() {
        let ledger = Ledger::new(DeviceKind::Metal);
        let visit = |ledger: &Ledger| {
            let _held = ledger.hold(10, 1);
            ledger.work(3);
            ledger.launch(10);
        };
        visit(&ledger);
        ledger.repeat(4, || {
            visit(&ledger);
            ledger.repeat(5, || visit(&ledger));
        });
        visit(&ledger);
        assert_eq!((ledger.flops(), ledger.launches()), (3 * 26, 26));
        assert_eq!((ledger.peak_bytes(), ledger.now_bytes()), (10, 0));
    }

    #[test]
    fn both_limits_are_seen() {
        let card = DeviceKind::Cuda { capability: (8, 0) };
        for (kind, launched, held, countable) in [
            (card, 1 << 31, 1, false),
            (card, (1 << 31) - 1, (1 << 32) - 1, true),
            (card, 1, 1 << 32, false),
            (DeviceKind::Cpu, 1 << 33, 1 << 33, true),
        ] {
            let ledger = Ledger::new(kind);
            ledger.launch(launched);
            ledger.launch_over_buffers();
            drop(ledger.hold(held, 2));
            assert_eq!(ledger.is_countable(), countable, "{kind:?} {launched} {held}");
            assert_eq!((ledger.largest_launch(), ledger.launches()), (launched as u64, 2));
        }
    }
}
