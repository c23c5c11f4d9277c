//! What a process holds beside what its stages need.

use crate::{
    base::{allocator::has_huge_pages_everywhere, device::DeviceKind, memory::Bytes},
    error::Error,
};

/// What the process itself takes before any weight is read (configs, tokenizers, the program's own data), and what each thread that
/// computes keeps for itself (its part of the allocator, its panels of products). Measured with 2, 8 and 32 threads.
const OWN: [u64; 2] = [5_500_000, 300_000];
/// The same where the system lays all memory in pages of 2 MiB, however little of them is used.
const OWN_IN_HUGE_PAGES: [u64; 2] = [30_000_000, 8_000_000];
/// What the process takes of a card's memory beside its stages.
const OWN_ON_A_CARD: u64 = 30_000_000;
/// What the allocator takes beyond what its stages need: this much, and this share of the need, whose buffers come and go in many sizes;
/// of large allocations it keeps none that would raise the peak. Measured on two threads, from 64 to 2048 px, with all memory and within
/// little.
const ALLOCATOR: (u64, [u64; 2]) = (1_000_000, [2, 13]);
/// The most that it takes so.
const ALLOCATOR_MOST: u64 = 28_000_000;

/// Of what may be taken of a card, what is taken where there is a choice: a driver gives memory in pieces, and takes more than is
/// allocated.
const SHARE_OF_A_CARD: f64 = 0.9;

/// The process around a stage: what it holds beyond what the stage needs.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// What it takes whatever the stage.
    own: u64,
    /// Whether memory is a card's.
    on_a_card: bool,
}

impl Process {
    /// Where this kind of device computes.
    pub fn on(kind: DeviceKind) -> Self {
        if !kind.is_cpu() {
            return Self { own: OWN_ON_A_CARD, on_a_card: true };
        }
        let [process, thread] = if has_huge_pages_everywhere() { OWN_IN_HUGE_PAGES } else { OWN };
        Self { own: process + thread * rayon::current_num_threads() as u64, on_a_card: false }
    }

    /// All that is held in a stage that needs this much.
    pub(super) fn peak(self, need: u64) -> u64 {
        let (least, [part, whole]) = ALLOCATOR;
        let kept = if self.on_a_card { 0 } else { (least + need / whole * part).min(ALLOCATOR_MOST) };
        need.saturating_add(kept).saturating_add(self.own)
    }

    /// Of a budget, what is taken where a stage has the choice.
    pub(super) fn of_choice(self, budget: u64) -> u64 {
        if self.on_a_card { (budget as f64 * SHARE_OF_A_CARD) as u64 } else { budget }
    }

    /// The most that a stage may need whose peak has to stay within a budget.
    pub(super) fn room(self, budget: u64) -> u64 {
        let bytes = budget.saturating_sub(self.own);
        if self.on_a_card {
            return bytes;
        }
        let (least, [part, whole]) = ALLOCATOR;
        bytes.saturating_sub(ALLOCATOR_MOST).max(bytes.saturating_sub(least) / (whole + part) * whole)
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
