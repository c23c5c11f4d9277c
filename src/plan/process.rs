//! What a process holds beside what its stages need.

use crate::{
    base::{device::DeviceKind, memory::Bytes},
    error::Error,
};

/// What the process itself takes before any weight is read: configs, tokenizers, the program's own data.
const PROCESS_BYTES: u64 = 30_000_000;
/// What each thread that computes keeps for itself: its part of the allocator, its panels of products. Measured with 2, 8, 16 and
/// 32 threads: 7 to 4 MB.
const THREAD_BYTES: u64 = 6_000_000;
/// The most that the allocator keeps for later of what was freed; what is larger goes back to the system at once.
/// Measured as what a run takes beyond the need of its stages: 12 MB at 64 px, up to 40 MB at 512 px, 20 MB at 1024 px.
const ALLOCATOR_KEEPS_BYTES: u64 = 35_000_000;

/// The process around a stage: what it holds beyond what the stage needs.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// What it takes whatever the stage.
    own: u64,
    /// What earlier stages freed; `None` where freed memory goes back at once.
    freed: Option<u64>,
}

impl Process {
    /// Where this kind of device computes, after stages that needed this much.
    pub fn after(kind: DeviceKind, freed: u64) -> Self {
        let threads = if kind.is_cpu() { rayon::current_num_threads() as u64 } else { 0 };
        Self { own: PROCESS_BYTES + THREAD_BYTES * threads, freed: kind.is_cpu().then_some(freed) }
    }

    /// All that is held in a stage that needs this much: what the allocator keeps is what was freed before, and half as much again
    /// of the stage's own, which comes and goes in many sizes; never more than it keeps of anything.
    pub(super) fn peak(self, need: u64) -> u64 {
        let kept = self.freed.map_or(0, |freed| (freed + need / 2).min(ALLOCATOR_KEEPS_BYTES));
        need.saturating_add(kept).saturating_add(self.own)
    }

    /// The most that a stage may need whose peak has to stay within a budget.
    pub(super) fn room(self, budget: u64) -> u64 {
        let bytes = budget.saturating_sub(self.own);
        let Some(freed) = self.freed else { return bytes };
        bytes.saturating_sub(ALLOCATOR_KEEPS_BYTES).max(bytes.saturating_sub(freed) / 3 * 2)
    }
}

/// What is said of a stage that takes more than it may.
pub(super) fn too_small(what: &str, least: u64, budget: u64) -> Error {
    let what = format!("{what} takes at least {} and may take {}", Bytes(least), Bytes(budget));
    let hint = format!(
        "allow --memory {} or more where the machine and its container have it, or ask for a smaller picture",
        Bytes(least.div_ceil(100_000_000) * 100_000_000).flag()
    );
    Error::Memory { what, hint }
}
