//! What a dry pass has seen: the code of a network runs over shapes, computes nothing, and writes here what it would hold,
//! launch and multiply. The plan of every stage is read from it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    base::{device::DeviceKind, limits},
    error::Result,
};

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

#[derive(Debug, Default)]
struct Counts {
    now: u64,
    peak: u64,
    scratch: u64,
    largest_buffer: u64,
    largest_launch: u64,
    done: Work,
    /// How often what is counted now would really happen.
    times: u64,
    /// What operations took that may come again.
    known: BTreeMap<Operation, Taken>,
}

/// What tells an operation from others: which it is, and the sizes of what it is done with.
pub(super) type Operation = [usize; 10];

/// What an operation took: bytes beyond those held before it, and work.
#[derive(Debug, Clone, Copy)]
struct Taken {
    peak: u64,
    work: Work,
}

#[derive(Debug, Clone, Copy, Default)]
struct Work {
    flops: u128,
    /// Those of them that are attention's.
    attention_flops: u128,
    launches: u64,
}

impl Work {
    /// What each of so many times took that came after `before`.
    fn each_since(self, before: Self, times: u64) -> Self {
        let times = times.max(1);
        Self {
            flops: (self.flops - before.flops) / u128::from(times),
            attention_flops: (self.attention_flops - before.attention_flops) / u128::from(times),
            launches: (self.launches - before.launches) / times,
        }
    }

    fn add(&mut self, more: Self, times: u64) {
        self.flops += u128::from(times) * more.flops;
        self.attention_flops += u128::from(times) * more.attention_flops;
        self.launches += times * more.launches;
    }
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
        let counts = Counts { times: 1, ..Counts::default() };
        Self(Arc::new(Inner { kind, counts: Mutex::new(counts) }))
    }

    /// The kind of device that would compute.
    pub fn kind(&self) -> DeviceKind {
        self.0.kind
    }

    /// Whether streamed weights would travel through a ring of places that stay ([`crate::weights::Ring`]).
    pub(super) fn has_rings(&self) -> bool {
        self.0.kind.is_cuda()
    }

    /// A buffer of `elements` numbers of `width` bytes, until the guard is dropped.
    pub fn hold(&self, elements: usize, width: usize) -> Held {
        let elements = elements as u64;
        let mut counts = self.counts();
        counts.largest_buffer = counts.largest_buffer.max(elements);
        drop(counts);
        self.hold_bytes(elements * width as u64)
    }

    fn hold_bytes(&self, bytes: u64) -> Held {
        let mut counts = self.counts();
        counts.now += bytes;
        counts.peak = counts.peak.max(counts.now);
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
        counts.done.launches += counts.times;
        counts.largest_launch = counts.largest_launch.max(elements as u64);
    }

    /// A launch that copies, clears or multiplies buffers: it counts, and only the buffers limit it.
    pub fn launch_over_buffers(&self) {
        let mut counts = self.counts();
        counts.done.launches += counts.times;
    }

    /// Floating-point operations, a multiply-add counted as two.
    pub fn work(&self, flops: u64) {
        let mut counts = self.counts();
        counts.done.flops += u128::from(counts.times) * u128::from(flops);
    }

    /// Runs `visit`, whose work is attention.
    pub fn attending<T>(&self, visit: impl FnOnce() -> T) -> T {
        let before = self.flops();
        let result = visit();
        let mut counts = self.counts();
        counts.done.attention_flops += counts.done.flops - before;
        result
    }

    /// Runs `visit` once and counts its work and launches `times` times; memory that it frees is free each time.
    pub fn repeat<T>(&self, times: usize, visit: impl FnOnce() -> T) -> T {
        let before = self.counts().times;
        self.counts().times = before * times as u64;
        let result = visit();
        self.counts().times = before;
        result
    }

    /// Runs `visit`, whose memory counts and whose work does not: it has been done before.
    pub fn without_work<T>(&self, visit: impl FnOnce() -> T) -> T {
        let before = self.counts().done;
        let result = visit();
        self.counts().done = before;
        result
    }

    /// Runs `visit` for an operation that is new here, and gives its result; counts one that is known again without running it,
    /// and gives nothing. What it makes is still to be held then.
    ///
    /// # Errors
    /// What `visit` fails with.
    pub(super) fn again<T>(&self, operation: Operation, visit: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let known = self.counts().known.get(&operation).copied();
        if let Some(Taken { peak, work }) = known {
            let mut counts = self.counts();
            let times = counts.times;
            counts.peak = counts.peak.max(counts.now + peak);
            counts.done.add(work, times);
            return Ok(None);
        }
        let (peak, now, before) = {
            let mut counts = self.counts();
            let now = counts.now;
            (std::mem::replace(&mut counts.peak, now), now, counts.done)
        };
        let result = visit()?;
        let mut counts = self.counts();
        let taken = Taken { peak: counts.peak - now, work: counts.done.each_since(before, counts.times) };
        counts.known.insert(operation, taken);
        counts.peak = counts.peak.max(peak);
        Ok(Some(result))
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
        self.counts().done.flops
    }

    /// Those of the [`Ledger::flops`] that are attention's: scores, and sums of values.
    pub fn attention_flops(&self) -> u128 {
        self.counts().done.attention_flops
    }

    /// Kernels launched. The CPU's own kernels count as none.
    pub fn launches(&self) -> u64 {
        self.counts().done.launches
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

impl Clone for Held {
    /// As many bytes again.
    fn clone(&self) -> Self {
        self.ledger.hold_bytes(self.bytes)
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
    fn what_comes_again_takes_the_same_and_is_run_once() {
        let ledger = Ledger::new(DeviceKind::Metal);
        let _beside = ledger.hold(1000, 1);
        drop(ledger.hold(5000, 1));
        let mut runs = 0;
        let mut visit = |operation: usize| {
            ledger.again([operation; 10], || {
                runs += 1;
                let _scratch = ledger.hold(30, 1);
                ledger.work(7);
                ledger.attending(|| ledger.work(2));
                ledger.launch(30);
                Ok(ledger.hold(10, 1))
            })
        };
        let first = ledger.repeat(3, || visit(0)).expect("counted").expect("it is new");
        assert_eq!((ledger.now_bytes(), ledger.peak_bytes()), (1010, 6000));
        let _more = ledger.hold(5000, 1);
        assert!(ledger.repeat(2, || visit(0)).expect("counted").is_none());
        assert_eq!((ledger.now_bytes(), ledger.peak_bytes()), (6010, 6050));
        assert!(visit(1).expect("counted").is_some(), "another");
        assert_eq!((ledger.flops(), ledger.attention_flops(), ledger.launches(), runs), (6 * 9, 6 * 2, 6, 2));
        drop(first);
    }

    #[test]
    fn what_has_been_done_before_takes_memory_and_no_work() {
        let ledger = Ledger::new(DeviceKind::Metal);
        let visit = |bytes: usize| {
            ledger.again([0; 10], || {
                ledger.work(7);
                ledger.launch(bytes);
                Ok(ledger.hold(bytes, 1))
            })
        };
        drop(ledger.without_work(|| visit(30)).expect("counted"));
        assert_eq!((ledger.peak_bytes(), ledger.flops(), ledger.launches()), (30, 0, 0));
        drop(visit(30).expect("counted"));
        assert_eq!((ledger.flops(), ledger.launches()), (7, 1), "when it comes again, it is work");
    }

    #[test]
    fn attention_is_counted_apart_however_often_it_repeats() {
        let ledger = Ledger::new(DeviceKind::Cpu);
        ledger.work(5);
        ledger.repeat(4, || ledger.attending(|| ledger.repeat(3, || ledger.work(2))));
        ledger.work(1);
        assert_eq!((ledger.flops(), ledger.attention_flops()), (30, 24));
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
