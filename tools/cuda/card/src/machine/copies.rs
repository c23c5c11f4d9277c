//! Copies into shared memory that go on while a thread computes. They end as late as they may, when their thread waits for them:
//! until then what they write counts as never written, so that whoever reads it too early, or had not finished reading it, is
//! caught. Source: PTX ISA, `cp.async`, `cp.async.commit_group`, `cp.async.wait_group`.

use super::{
    Fault, FaultKind,
    access::{moved, of},
    block::Block,
    warp::Warp,
};
use crate::ptx::code::{Address, LANES, Slot};

/// The most that one copies.
const MOST: usize = 16;

/// What the threads of a warp have begun to copy.
#[derive(Debug, Default)]
pub struct Copies {
    open: Vec<Copy>,
    /// Groups that each thread has committed.
    committed: [u64; LANES],
}

#[derive(Debug)]
struct Copy {
    lane: usize,
    /// Groups that its thread had committed before.
    group: u64,
    to: u64,
    bytes: [u8; MOST],
    width: usize,
}

/// So many bytes as (start, bytes) of accesses of at most 8.
fn pieces(bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let wholes = bytes / 8 * 8;
    (0..wholes).step_by(8).map(|at| (at, 8)).chain((wholes..bytes).map(|at| (at, 1)))
}

impl Copies {
    /// What these threads began since they last did this is a group.
    pub fn commit(&mut self, lanes: u32) {
        of(lanes).for_each(|lane| self.committed[lane] += 1);
    }
}

impl Block<'_> {
    /// `cp.async`: so many bytes of the source, or all, and zeros.
    pub(super) fn copy_async(
        &mut self,
        warp: &mut Warp,
        lanes: u32,
        to: &Address,
        from: &Address,
        bytes: Option<Slot>,
    ) -> Result<(), Fault> {
        let width = to.width;
        let ((_, targets), (_, sources)) = (self.addresses(warp, lanes, to, 1)?, self.addresses(warp, lanes, from, 1)?);
        let counts = bytes.map_or([width as u64; LANES], |slot| warp.lanes(slot).map(|count| count & 0xffff_ffff));
        let mut reading = 0;
        for lane in of(lanes) {
            let count = counts[lane] as usize;
            if count > width {
                return Err(Fault::new(FaultKind::Instruction, format!("{count} bytes of a copy of {width}")));
            }
            let mut copy =
                Copy { lane, group: warp.copies.committed[lane], to: targets[lane], bytes: [0; MOST], width };
            for (at, piece) in pieces(count) {
                let value = self.memory.read(sources[lane] + at as u64, piece)?;
                copy.bytes[at..at + piece].copy_from_slice(&value.to_le_bytes()[..piece]);
            }
            reading |= u32::from(count > 0) << lane;
            self.shared.forget(copy.to, width)?;
            warp.copies.open.push(copy);
        }
        self.counts.read += moved(&sources, reading, width);
        Ok(())
    }

    /// `cp.async.wait_group`: what these threads have begun to copy is there, but for so many of their latest groups and what is in
    /// none; without a number, all of it.
    pub(super) fn wait_for_copies(&mut self, warp: &mut Warp, lanes: u32, but: Option<u64>) -> Result<(), Fault> {
        let Copies { open, committed } = &mut warp.copies;
        let ends =
            |copy: &Copy| lanes >> copy.lane & 1 == 1 && but.is_none_or(|but| copy.group + but < committed[copy.lane]);
        let (ended, rest): (Vec<_>, Vec<_>) = std::mem::take(open).into_iter().partition(ends);
        *open = rest;
        for copy in ended {
            for (at, piece) in pieces(copy.width) {
                let mut value = [0; 8];
                value[..piece].copy_from_slice(&copy.bytes[at..at + piece]);
                self.shared.write(copy.to + at as u64, piece, u64::from_le_bytes(value))?;
            }
        }
        Ok(())
    }
}
