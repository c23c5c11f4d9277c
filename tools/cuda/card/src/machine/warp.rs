//! 32 threads that execute together, and what happens where they part: each path has a counter of its own, and the one
//! furthest behind goes first, so that paths meet again as early as they can. Any order is allowed since Volta's independent
//! thread scheduling; where threads exchange values the instruction itself says which of them must be there.

use super::copies::Copies;
use crate::{
    machine::window,
    ptx::code::{Kernel, LANES, Lanes, Slot, Special},
};

/// All lanes.
pub const FULL: u32 = u32::MAX;

/// Why a path does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It runs.
    Not,
    /// For other lanes of its warp, at an instruction that needs them.
    Lanes,
    /// At a barrier of the block, by its number.
    Block(u64),
}

/// Lanes that are at the same instruction.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// The instruction.
    pub at: usize,
    /// The lanes.
    pub lanes: u32,
    /// What it waits for.
    pub wait: Wait,
}

/// A warp of a block.
pub struct Warp {
    /// Registers by number.
    pub registers: Vec<Lanes>,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    /// Where its lanes are; those in none have exited.
    pub paths: Vec<Path>,
    /// What is on its way into shared memory.
    pub copies: Copies,
}

impl Warp {
    /// A warp whose constants are in place.
    pub fn new(kernel: &Kernel) -> Self {
        let mut registers = vec![[0; LANES]; kernel.registers];
        for (slot, value) in &kernel.constants {
            registers[*slot as usize] = [*value; LANES];
        }
        Self { registers, local: vec![0; LANES * kernel.local_bytes], paths: Vec::new(), copies: Copies::default() }
    }

    /// Begins a block: warp `index` of it, `threads` threads in all.
    pub fn begin(&mut self, kernel: &Kernel, index: usize, ids: &Ids) {
        let here = ids.threads().saturating_sub(index * LANES).min(LANES);
        let lanes = if here == LANES { FULL } else { (1 << here) - 1 };
        self.paths.clear();
        self.copies = Copies::default();
        self.paths.push(Path { at: 0, lanes, wait: Wait::Not });
        for (slot, special) in &kernel.specials {
            self.registers[*slot as usize] = ids.special(*special, index);
        }
    }

    /// Lanes that have not exited.
    pub fn live(&self) -> u32 {
        self.paths.iter().fold(0, |lanes, path| lanes | path.lanes)
    }

    /// The path that goes next, and where it must stop because another is there.
    pub fn next(&self) -> Option<(usize, usize)> {
        let running = || self.paths.iter().enumerate().filter(|(_, path)| path.wait == Wait::Not);
        let (index, _) = running().min_by_key(|(_, path)| path.at)?;
        // A path that waits for lanes is met where it stands.
        let others = self.paths.iter().enumerate().filter(|(other, path)| {
            *other != index && !matches!(path.wait, Wait::Block(_)) && path.at > self.paths[index].at
        });
        Some((index, others.map(|(_, path)| path.at).min().unwrap_or(usize::MAX)))
    }

    /// Joins paths that are at the same instruction and wait for the same. One that came to where another waits for lanes
    /// joins it too: the instruction looks again who is there.
    pub fn join(&mut self) {
        let mut index = 0;
        while index < self.paths.len() {
            let path = self.paths[index];
            let barrier = |wait: Wait| matches!(wait, Wait::Block(_));
            let meets = |a: Wait, b: Wait| a == b || !(barrier(a) || barrier(b));
            let twin = |other: &Path| other.at == path.at && meets(other.wait, path.wait);
            match self.paths[..index].iter().position(twin) {
                Some(earlier) => {
                    let earlier = &mut self.paths[earlier];
                    earlier.lanes |= path.lanes;
                    if earlier.wait != path.wait {
                        earlier.wait = Wait::Not;
                    }
                    self.paths.swap_remove(index);
                }
                None => index += 1,
            }
        }
    }

    /// The registers of an instruction's operands.
    pub fn lanes(&self, slot: Slot) -> &Lanes {
        &self.registers[slot as usize]
    }

    /// Writes a register in these lanes.
    pub fn write(&mut self, slot: Slot, lanes: u32, values: &Lanes) {
        let register = &mut self.registers[slot as usize];
        if lanes == FULL {
            *register = *values;
            return;
        }
        for (lane, value) in values.iter().enumerate() {
            if lanes >> lane & 1 == 1 {
                register[lane] = *value;
            }
        }
    }
}

/// Which block of which grid.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// This block.
    pub at: [u32; 3],
}

impl Ids {
    /// Threads of a block.
    pub fn threads(&self) -> usize {
        self.block.iter().map(|n| *n as usize).product()
    }

    /// Where lane `lane` of warp `warp` is in its block.
    pub fn thread(&self, warp: usize, lane: usize) -> [u32; 3] {
        let index = (warp * LANES + lane) as u32;
        let [x, y, _] = self.block;
        [index % x, index / x % y, index / (x * y)]
    }

    fn special(&self, special: Special, warp: usize) -> Lanes {
        std::array::from_fn(|lane| match special {
            Special::Thread(axis) => self.thread(warp, lane)[axis].into(),
            Special::Threads(axis) => self.block[axis].into(),
            Special::Block(axis) => self.at[axis].into(),
            Special::Blocks(axis) => self.grid[axis].into(),
            Special::Lane => lane as u64,
            Special::Warp => warp as u64,
            Special::LanesBelow => (1 << lane) - 1,
        })
    }
}

/// The state space a generic address lies in, and the offset there.
pub fn generic(address: u64) -> (crate::ptx::Space, u64) {
    use crate::ptx::Space;
    match address {
        address if address >= window::LOCAL => (Space::Local, address - window::LOCAL),
        address if address >= window::SHARED => (Space::Shared, address - window::SHARED),
        address => (Space::Global, address),
    }
}
