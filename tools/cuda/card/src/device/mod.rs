//! The device: one card, its memory, its streams, and what was counted.

pub mod card;
pub mod memory;
mod modules;
mod pool;
mod report;
mod run;
mod sampled;
mod streams;
#[cfg(test)]
mod tests;
pub mod work;

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{machine::Fault, ptx::code::Kernel};
use card::Settings;
use memory::Memory;
use modules::Module;
use pool::{Freed, Pool};
use report::Report;
pub use streams::LEGACY;
use streams::Streams;
use work::Work;

/// The driver API's results. Source: cuda.h, `CUresult`.
pub mod result {
    #![allow(missing_docs, reason = "the names are NVIDIA's")]
    pub const SUCCESS: u32 = 0;
    pub const INVALID_VALUE: u32 = 1;
    pub const OUT_OF_MEMORY: u32 = 2;
    pub const NOT_INITIALIZED: u32 = 3;
    pub const INVALID_DEVICE: u32 = 101;
    pub const INVALID_IMAGE: u32 = 200;
    pub const INVALID_PTX: u32 = 218;
    pub const INVALID_HANDLE: u32 = 400;
    pub const NOT_FOUND: u32 = 500;
    pub const NOT_READY: u32 = 600;
    pub const ILLEGAL_ADDRESS: u32 = 700;
    pub const ILLEGAL_INSTRUCTION: u32 = 715;
    pub const MISALIGNED_ADDRESS: u32 = 716;
    pub const LAUNCH_FAILED: u32 = 719;
    pub const NOT_SUPPORTED: u32 = 801;
}

/// The stream that each host thread has of its own, by the handle that all of them use for it.
const PER_THREAD: u64 = 2;
/// Streams of threads have names above all handles.
const THREADS: u64 = 1 << 40;

/// The device.
pub struct Device {
    /// What it was asked to be.
    pub settings: Settings,
    memory: Memory,
    pool: Pool,
    streams: Streams,
    modules: BTreeMap<u64, Module>,
    kernels: BTreeMap<u64, Arc<Kernel>>,
    /// Pinned host memory: address and bytes.
    pinned: BTreeMap<u64, usize>,
    report: Report,
    /// Until when each thread of the host has waited for the device, in simulated seconds.
    hosts: BTreeMap<u64, f64>,
    /// What launches took that may come again, where launches are sampled.
    known: sampled::Known,
    /// The state of the order of streams.
    chance: u64,
    /// What every call says after a fault.
    broken: Option<u32>,
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);

/// The device, if `cuInit` made one.
pub fn device() -> MutexGuard<'static, Option<Device>> {
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn this_thread() -> u64 {
    static THREAD_COUNT: AtomicU64 = AtomicU64::new(0);
    thread_local!(static THIS: Cell<u64> = const { Cell::new(0) });
    THIS.with(|this| {
        if this.get() == 0 {
            this.set(1 + THREAD_COUNT.fetch_add(1, Ordering::Relaxed));
        }
        this.get()
    })
}

impl Device {
    /// A device of these settings.
    pub fn new(settings: Settings) -> Self {
        let mut streams = Streams::default();
        streams.open(LEGACY, false);
        Self {
            memory: Memory::new(settings.shapes),
            pool: Pool::new(settings.card.bytes),
            streams,
            modules: BTreeMap::new(),
            kernels: BTreeMap::new(),
            pinned: BTreeMap::new(),
            report: Report::default(),
            hosts: BTreeMap::new(),
            known: sampled::Known::default(),
            chance: settings.seed.unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            broken: None,
            settings,
        }
    }

    /// The stream that a handle means to this thread.
    pub fn stream(&mut self, handle: u64) -> u64 {
        match handle {
            0 | LEGACY => LEGACY,
            PER_THREAD => {
                let stream = THREADS + this_thread();
                if !self.streams.knows(stream) {
                    self.streams.open(stream, true);
                }
                stream
            }
            handle => handle,
        }
    }

    /// What a fault left behind.
    ///
    /// # Errors
    /// The code of the first fault.
    pub fn sound(&self) -> Result<(), u32> {
        self.broken.map_or(Ok(()), Err)
    }

    /// Says a fault once, and answers every later call with its code.
    pub fn breaks(&mut self, fault: &Fault) -> u32 {
        use crate::machine::FaultKind;
        let code = match fault.kind {
            FaultKind::IllegalAddress | FaultKind::Uninitialised => result::ILLEGAL_ADDRESS,
            FaultKind::Misaligned => result::MISALIGNED_ADDRESS,
            FaultKind::Instruction => result::ILLEGAL_INSTRUCTION,
            FaultKind::Deadlock => result::LAUNCH_FAILED,
        };
        eprintln!("card: {fault}");
        *self.broken.get_or_insert(code)
    }

    /// Queues an operation, and lets streams run as the seed has it.
    ///
    /// # Errors
    /// The code of a fault.
    pub fn ask(&mut self, handle: u64, work: Work) -> Result<(), u32> {
        self.sound()?;
        let stream = self.stream(handle);
        if !self.streams.knows(stream) {
            return Err(result::INVALID_HANDLE);
        }
        if self.settings.trace {
            eprintln!("card: on {stream:#x} {work:?}");
        }
        let now = self.host_clock();
        self.streams.ask(stream, work, now);
        self.drift()
    }

    /// What the clock of this thread of the host says, which launches and copies do not move; a new thread begins when the
    /// last of the others was heard of.
    fn host_clock(&mut self) -> f64 {
        let latest = self.hosts.values().copied().fold(0.0, f64::max);
        *self.hosts.entry(this_thread()).or_insert(latest)
    }

    /// This thread of the host has waited until then.
    fn waited(&mut self, until: f64) {
        let now = self.host_clock();
        self.hosts.insert(this_thread(), now.max(until));
    }

    /// Queues an operation and waits until it is done.
    ///
    /// # Errors
    /// The code of a fault.
    pub fn ask_and_wait(&mut self, handle: u64, work: Work) -> Result<(), u32> {
        self.ask(handle, work)?;
        self.synchronise_stream(handle)
    }

    /// Allocates in stream order.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`, or the code of a fault.
    pub fn allocate(&mut self, handle: u64, bytes: u64) -> Result<u64, u32> {
        self.sound()?;
        let stream = self.stream(handle);
        let mut at = self.pool.allocate(bytes, stream, |its, number| self.streams.done(its, number));
        if at.is_none() {
            // A driver with no memory left waits for what runs, and gives back what nobody uses.
            self.synchronise()?;
            at = self.pool.allocate(bytes, stream, |its, number| self.streams.done(its, number));
        }
        let at = at.ok_or_else(|| self.out_of_memory(bytes))?;
        self.ask(handle, Work::Allocate { at, bytes: bytes as usize })?;
        Ok(at)
    }

    /// Allocates at once.
    ///
    /// # Errors
    /// As [`Self::allocate`].
    pub fn allocate_plain(&mut self, bytes: u64) -> Result<u64, u32> {
        self.sound()?;
        let at = match self.pool.allocate_plain(bytes) {
            Some(at) => at,
            None => {
                self.synchronise()?;
                self.pool.allocate_plain(bytes).ok_or_else(|| self.out_of_memory(bytes))?
            }
        };
        self.memory.allocate(at, bytes as usize);
        Ok(at)
    }

    fn out_of_memory(&mut self, bytes: u64) -> u32 {
        let (used, unmapped, (pieces, largest)) = (self.pool.used, self.pool.unmapped(), self.pool.pieces());
        eprintln!(
            "card: no room for {bytes} bytes: {used} are allocated, {unmapped} are unmapped, and of {pieces} free pieces the largest has {largest}"
        );
        self.report.refused.push((bytes, used, unmapped));
        result::OUT_OF_MEMORY
    }

    /// Frees in stream order, or at once after waiting for everything.
    ///
    /// # Errors
    /// The code of a fault.
    pub fn free(&mut self, handle: Option<u64>, at: u64) -> Result<(), u32> {
        self.sound()?;
        let freed = match handle {
            None => {
                self.synchronise()?;
                Freed::Done
            }
            Some(handle) => {
                let stream = self.stream(handle);
                Freed::On(stream, self.streams.asked(stream) + 1)
            }
        };
        if !self.pool.free(at, freed) {
            return Err(result::INVALID_VALUE);
        }
        match handle {
            None => self.memory.free(at).map_err(|fault| self.breaks(&fault)),
            Some(handle) => self.ask(handle, Work::Free { at }),
        }
    }

    /// Bytes free and in all.
    pub fn memory_info(&self) -> (u64, u64) {
        (self.pool.unmapped(), self.pool.total())
    }

    /// A new stream.
    pub fn new_stream(&mut self, blocking: bool) -> u64 {
        let handle = self.streams.handle();
        self.streams.open(handle, blocking);
        handle
    }

    /// A new event.
    pub fn new_event(&mut self) -> u64 {
        let handle = self.streams.handle();
        self.streams.open_event(handle);
        handle
    }

    /// Forgets an event that has been reached; others are kept for the waits that mean them.
    pub fn close_event(&mut self, event: u64) {
        if self.event_reached(event) {
            self.streams.close_event(event);
        }
    }

    /// `cuEventRecord`
    ///
    /// # Errors
    /// The code of a fault, or of a handle that is none.
    pub fn record(&mut self, event: u64, handle: u64) -> Result<(), u32> {
        if !self.streams.knows_event(event) {
            return Err(result::INVALID_HANDLE);
        }
        let recording = self.streams.record(event);
        self.ask(handle, Work::Record { event, recording })
    }

    /// `cuStreamWaitEvent`
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn wait(&mut self, handle: u64, event: u64) -> Result<(), u32> {
        if !self.streams.knows_event(event) {
            return Err(result::INVALID_HANDLE);
        }
        let recording = self.streams.recorded(event);
        self.ask(handle, Work::Wait { event, recording })
    }

    /// Whether an event was reached.
    pub fn event_reached(&self, event: u64) -> bool {
        self.streams.reached(event, self.streams.recorded(event))
    }

    /// Simulated seconds between two events.
    pub fn between(&self, start: u64, end: u64) -> f64 {
        self.streams.event_clock(end) - self.streams.event_clock(start)
    }

    /// Remembers pinned host memory.
    pub fn pin(&mut self, at: u64, bytes: usize) {
        self.pinned.insert(at, bytes);
    }

    /// Forgets it.
    pub fn unpin(&mut self, at: u64) -> Option<usize> {
        self.pinned.remove(&at)
    }

    /// Whether a range of host memory is pinned.
    pub fn is_pinned(&self, at: u64, bytes: usize) -> bool {
        let before = self.pinned.range(..=at).next_back();
        before.is_some_and(|(start, length)| (at - start) as usize + bytes <= *length)
    }
}
