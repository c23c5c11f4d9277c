//! A warp executes instructions until all its lanes wait or have exited.

use super::{
    Fault, FaultKind,
    block::Block,
    exchange,
    warp::{Path, Wait, Warp},
};
use crate::ptx::code::{Carry, Instruction, LANES, Lanes, Op, Slot};

/// What comes after an instruction.
pub(super) enum After {
    /// The next instruction.
    Next,
    /// The paths have changed.
    Parted,
}

impl Block<'_> {
    /// Runs a warp as far as it goes.
    pub(super) fn run_warp(&mut self, warp: &mut Warp, index: usize) -> Result<(), Fault> {
        let kernel = self.launch.kernel;
        while let Some((path, stop)) = warp.next() {
            loop {
                let at = warp.paths[path].at;
                if at >= stop {
                    warp.join();
                    break;
                }
                self.counts.instructions += 1;
                let instruction = &kernel.code[at];
                let after = self.step(warp, path, instruction).map_err(|fault| {
                    let lane = warp.paths.get(path).map_or(0, |path| path.lanes.trailing_zeros() as usize % LANES);
                    fault.within(&format!(
                        "kernel {}, line {} of its PTX, block {:?} of {:?}, thread {:?} of {:?} or one of its warp",
                        kernel.name,
                        instruction.line,
                        self.ids.at,
                        self.ids.grid,
                        self.ids.thread(index, lane),
                        self.ids.block
                    ))
                })?;
                match after {
                    After::Next => warp.paths[path].at += 1,
                    After::Parted => break,
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, warp: &mut Warp, path: usize, instruction: &Instruction) -> Result<After, Fault> {
        let all = warp.paths[path].lanes;
        let lanes = match instruction.guard {
            None => all,
            Some((slot, negated)) => all & predicate(warp.lanes(slot), negated),
        };
        if lanes == 0 {
            return Ok(After::Next);
        }
        match &instruction.op {
            Op::Shuffle { mask, .. }
            | Op::Vote { mask, .. }
            | Op::Product { mask, .. }
            | Op::LoadMatrices { mask, .. }
            | Op::WarpBarrier(mask)
                if self.waits_for_lanes(warp, path, lanes, *mask) =>
            {
                return Ok(After::Parted);
            }
            Op::Compute { f, d, from, flops } => {
                let mut out = [0; LANES];
                f(warp.lanes(from[0]), warp.lanes(from[1]), warp.lanes(from[2]), &mut out);
                self.counts.flops += u64::from(*flops) * u64::from(lanes.count_ones());
                warp.write(*d, lanes, &out);
            }
            Op::Carry { f, d, from, carry } => carried(warp, lanes, *f, (*d, *carry), *from),
            Op::Four { f, d, from } => {
                let [a, b, c, e] = from.map(|slot| *warp.lanes(slot));
                warp.write(*d, lanes, &std::array::from_fn(|i| f(a[i], b[i], c[i], e[i])));
            }
            Op::Unpack { parts, bits, from } => unpack(warp, lanes, parts, *bits, *from),
            Op::Pack { d, parts, bits } => pack(warp, lanes, *d, parts, *bits),
            Op::Load { to, at, signed } => self.load(warp, lanes, to, at, *signed)?,
            Op::Store { from, at } => self.store(warp, lanes, from, at)?,
            Op::Atomic { f, d, at, from } => self.atomic(warp, lanes, (*f, *d), at, *from)?,
            Op::Shuffle { how, d, p, from, mask } => exchange::shuffle(warp, lanes, *how, (*d, *p), *from, *mask)?,
            Op::Vote { how, d, from, mask } => exchange::vote(warp, lanes, *how, *d, *from, *mask),
            Op::Product { what, .. } => self.product(warp, lanes, what)?,
            Op::LoadMatrices { to, at, transposed, .. } => self.load_matrices(warp, lanes, to, at, *transposed)?,
            Op::CopyAsync { to, from, bytes } => self.copy_async(warp, lanes, to, from, *bytes)?,
            Op::CommitCopies => warp.copies.commit(lanes),
            Op::WaitCopies { but } => self.wait_for_copies(warp, lanes, *but)?,
            Op::Barrier(_) if lanes != all => {
                return Err(Fault::new(FaultKind::Deadlock, "a barrier of the block behind a predicate"));
            }
            Op::Barrier(name) => return Ok(wait_for_block(warp, path, *name)),
            Op::Branch(target) => return Ok(branch(warp, path, lanes, *target)),
            Op::Exit => return Ok(exit(warp, path, lanes)),
            Op::WarpBarrier(_) | Op::Nothing => {}
            Op::Fail(what) => return Err(Fault::new(FaultKind::Instruction, what.clone())),
        }
        Ok(After::Next)
    }

    /// Whether lanes of the mask are still elsewhere: then this path waits for them.
    fn waits_for_lanes(&self, warp: &mut Warp, path: usize, lanes: u32, mask: u32) -> bool {
        if warp.paths.len() == 1 {
            return false;
        }
        let asked = warp.lanes(mask)[lanes.trailing_zeros() as usize] as u32;
        // `activemask` asks for nobody.
        if asked & warp.live() & !lanes == 0 {
            return false;
        }
        warp.paths[path].wait = Wait::Lanes;
        warp.join();
        true
    }
}

/// The lanes whose predicate holds.
pub(super) fn predicate(values: &Lanes, negated: bool) -> u32 {
    let set = values.iter().enumerate().fold(0, |set, (lane, value)| set | u32::from(*value != 0) << lane);
    if negated { !set } else { set }
}

fn branch(warp: &mut Warp, path: usize, lanes: u32, target: usize) -> After {
    let all = warp.paths[path].lanes;
    if lanes == all {
        warp.paths[path].at = target;
    } else {
        warp.paths[path].lanes = all & !lanes;
        warp.paths[path].at += 1;
        warp.paths.push(Path { at: target, lanes, wait: Wait::Not });
    }
    warp.join();
    After::Parted
}

fn exit(warp: &mut Warp, path: usize, lanes: u32) -> After {
    warp.paths[path].lanes &= !lanes;
    warp.paths[path].at += 1;
    warp.paths.retain(|path| path.lanes != 0);
    // Those who waited for the lanes that left look again.
    warp.paths.iter_mut().filter(|path| path.wait == Wait::Lanes).for_each(|path| path.wait = Wait::Not);
    After::Parted
}

fn wait_for_block(warp: &mut Warp, path: usize, name: Slot) -> After {
    let first = warp.paths[path].lanes.trailing_zeros() as usize;
    warp.paths[path].wait = Wait::Block(warp.lanes(name)[first]);
    warp.join();
    After::Parted
}

fn carried(warp: &mut Warp, lanes: u32, f: Carry, (d, carry): (Slot, Slot), from: [Slot; 3]) {
    let [a, b, c] = from.map(|slot| *warp.lanes(slot));
    let before = *warp.lanes(carry);
    let both: [(u64, u64); LANES] = std::array::from_fn(|i| f(a[i], b[i], c[i], before[i]));
    warp.write(carry, lanes, &both.map(|(_, carry)| carry));
    warp.write(d, lanes, &both.map(|(value, _)| value));
}

fn unpack(warp: &mut Warp, lanes: u32, parts: &[Slot], bits: u32, from: Slot) {
    let (whole, mask) = (*warp.lanes(from), (1 << bits) - 1);
    for (at, part) in parts.iter().enumerate() {
        warp.write(*part, lanes, &whole.map(|whole| whole >> (at as u32 * bits) & mask));
    }
}

fn pack(warp: &mut Warp, lanes: u32, d: Slot, parts: &[Slot], bits: u32) {
    let (mut whole, mask): (Lanes, u64) = ([0; LANES], (1 << bits) - 1);
    for (at, part) in parts.iter().enumerate() {
        for (out, value) in whole.iter_mut().zip(warp.lanes(*part)) {
            *out |= (value & mask) << (at as u32 * bits);
        }
    }
    warp.write(d, lanes, &whole);
}
