//! Kernels executed: a grid of thread blocks, block by block, shared among the processor's cores.

mod access;
mod block;
mod copies;
mod exchange;
mod fault;
mod matrices;
mod step;
#[cfg(test)]
mod tests;
mod warp;
pub mod window;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    device::memory::{Memory, Reach},
    ptx::code::Kernel,
};
pub use fault::{Fault, FaultKind};

/// Blocks below which a second core costs more than it gives.
const BLOCKS_WORTH_SHARING: u64 = 8;

/// A kernel with all that its launch says.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Blocks of the grid, by axis.
    pub grid: [u32; 3],
    /// Threads of a block, by axis.
    pub block: [u32; 3],
    /// Bytes of shared memory beyond what the kernel declares.
    pub dynamic_shared: usize,
    /// Its parameters' bytes.
    pub parameters: &'a [u8],
    /// In which order warps of a block run between barriers; any order must give one result.
    pub seed: u64,
}

/// What executing took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes read from global memory, in sectors; no cache is counted on.
    pub read: u64,
    /// Bytes written to it.
    pub written: u64,
    /// Numbers written to it.
    pub stored: u64,
    /// Floating point operations.
    pub flops: u64,
    /// Those of products of matrices of 16-bit numbers, which have units of their own.
    pub product_flops: u64,
    /// Those of products of matrices of e4m3.
    pub float8_flops: u64,
    /// Instructions, once for each warp.
    pub instructions: u64,
}

impl Counts {
    /// Adds `other`, so many times.
    pub fn add(&mut self, other: Self, times: u64) {
        self.read += other.read * times;
        self.written += other.written * times;
        self.stored += other.stored * times;
        self.flops += other.flops * times;
        self.product_flops += other.product_flops * times;
        self.float8_flops += other.float8_flops * times;
        self.instructions += other.instructions * times;
    }
}

impl Counts {
    /// What was counted after `before`.
    fn since(self, before: Self) -> Self {
        Self {
            read: self.read - before.read,
            written: self.written - before.written,
            stored: self.stored - before.stored,
            flops: self.flops - before.flops,
            product_flops: self.product_flops - before.product_flops,
            float8_flops: self.float8_flops - before.float8_flops,
            instructions: self.instructions - before.instructions,
        }
    }
}

impl Launch<'_> {
    /// Blocks of the grid.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|n| u64::from(*n)).product()
    }

    /// Executes all blocks.
    ///
    /// # Errors
    /// The first fault of a thread.
    pub fn run(&self, memory: &Memory) -> Result<Counts, Fault> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let sharing = !self.kernel.ordered && self.blocks() >= BLOCKS_WORTH_SHARING && cores > 1;
        if !sharing {
            return self.run_blocks(memory, 0..self.blocks());
        }
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let outcome = Mutex::new(Ok(Counts::default()));
        let piece = (self.blocks() / (cores * 8)).max(1);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    let mut block = block::Block::new(self, memory);
                    while !stop.load(Ordering::Relaxed) {
                        let start = next.fetch_add(piece, Ordering::Relaxed);
                        if start >= self.blocks() {
                            break;
                        }
                        let result = (start..(start + piece).min(self.blocks())).try_for_each(|at| block.run(at));
                        if let Err(fault) = result {
                            stop.store(true, Ordering::Relaxed);
                            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(fault);
                        }
                    }
                    if let Ok(total) = &mut *outcome.lock().unwrap_or_else(PoisonError::into_inner) {
                        total.add(block.counts(), 1);
                    }
                });
            }
        });
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes these blocks, one after the other.
    ///
    /// # Errors
    /// The first fault of a thread.
    pub fn run_blocks(&self, memory: &Memory, blocks: impl IntoIterator<Item = u64>) -> Result<Counts, Fault> {
        let mut block = block::Block::new(self, memory);
        for at in blocks {
            block.run(at)?;
        }
        Ok(block.counts())
    }

    /// Executes the first, the middle and the last block, and counts the first and the middle one for all others: what a
    /// launch of any size reaches and takes, in the time of three blocks. Gives what they touched too.
    ///
    /// # Errors
    /// The first fault of a thread.
    pub fn sample(&self, memory: &Memory) -> Result<(Counts, Reach), Fault> {
        let blocks = self.blocks();
        let mut room = block::Block::new(self, memory).noting();
        let (mut counts, mut before) = (Counts::default(), Counts::default());
        let sampled = if blocks <= 3 {
            vec![(0, 1), (1, 1), (2, 1)]
        } else {
            vec![(0, 1), (blocks / 2, blocks - 2), (blocks - 1, 1)]
        };
        for (at, times) in sampled.into_iter().filter(|(at, _)| *at < blocks) {
            room.run(at)?;
            counts.add(room.counts().since(before), times);
            before = room.counts();
        }
        Ok((counts, room.reach()))
    }
}
