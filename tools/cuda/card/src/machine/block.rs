//! A thread block: its warps, their shared memory and the barriers where they meet.

use super::{
    Counts, Fault, FaultKind, Launch,
    access::Shared,
    warp::{Ids, Wait, Warp},
};
use crate::{
    device::memory::{Memory, Reach, View},
    ptx::code::LANES,
};

/// The room in which one block after the other runs.
pub struct Block<'a> {
    pub(super) launch: &'a Launch<'a>,
    pub(super) memory: View<'a>,
    pub(super) shared: Shared,
    pub(super) counts: Counts,
    pub(super) ids: Ids,
    warps: Vec<Warp>,
}

impl<'a> Block<'a> {
    /// Room for blocks of this launch.
    pub fn new(launch: &'a Launch<'a>, memory: &'a Memory) -> Self {
        let ids = Ids { grid: launch.grid, block: launch.block, at: [0; 3] };
        let warps = ids.threads().div_ceil(LANES);
        Self {
            launch,
            memory: memory.view(),
            shared: Shared::new(launch.kernel.shared_bytes, launch.dynamic_shared),
            counts: Counts::default(),
            ids,
            warps: (0..warps).map(|_| Warp::new(launch.kernel)).collect(),
        }
    }

    /// Notes from here on what of the memory is touched.
    pub fn noting(mut self) -> Self {
        self.memory.reach = Some(Reach::new());
        self
    }

    /// What was touched, where that was noted.
    pub fn reach(self) -> Reach {
        self.memory.reach.unwrap_or_default()
    }

    /// What the blocks took so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Runs block `index` of the grid to its end.
    pub fn run(&mut self, index: u64) -> Result<(), Fault> {
        let [x, y, _] = self.launch.grid.map(u64::from);
        self.ids.at = [index % x, index / x % y, index / (x * y)].map(|at| at as u32);
        self.shared.clear();
        let kernel = self.launch.kernel;
        let mut warps = std::mem::take(&mut self.warps);
        for (at, warp) in warps.iter_mut().enumerate() {
            warp.begin(kernel, at, &self.ids);
        }
        let result = self.run_warps(&mut warps);
        self.warps = warps;
        result
    }

    fn run_warps(&mut self, warps: &mut [Warp]) -> Result<(), Fault> {
        let count = warps.len();
        let mut turn = self.launch.seed;
        loop {
            for step in 0..count {
                // Seeds turn the order of the warps, and every other one reverses it.
                let at = (step + (turn >> 1) as usize) % count;
                let at = if turn & 1 == 1 { count - 1 - at } else { at };
                self.run_warp(&mut warps[at], at)?;
            }
            turn = turn.wrapping_mul(6364136223846793005).wrapping_add(turn & 1);
            if warps.iter().all(|warp| warp.paths.is_empty()) {
                return Ok(());
            }
            self.pass_barrier(warps)?;
        }
    }

    /// All threads that are left wait at one barrier: they go on behind it.
    fn pass_barrier(&self, warps: &mut [Warp]) -> Result<(), Fault> {
        let waits = || warps.iter().flat_map(|warp| &warp.paths).map(|path| path.wait);
        let first = waits().next().unwrap_or(Wait::Not);
        let together = matches!(first, Wait::Block(_)) && waits().all(|wait| wait == first);
        if !together {
            let message = format!(
                "kernel {}: threads of block {:?} wait for others that never come",
                self.launch.kernel.name, self.ids.at
            );
            return Err(Fault::new(FaultKind::Deadlock, message));
        }
        for warp in warps {
            for path in &mut warp.paths {
                path.wait = Wait::Not;
                path.at += 1;
            }
            warp.join();
        }
        Ok(())
    }
}
