//! Loads, stores and atomic operations of a warp, every one checked.

use super::{
    Fault, FaultKind,
    block::Block,
    warp::{Warp, generic},
    window,
};
use crate::ptx::{
    Space,
    code::{Address, LANES, Lanes, Slot, Update},
};

/// Shared memory of a block, and which of its bytes were written: what the kernel declares, then what the launch gives.
pub(super) struct Shared {
    declared: usize,
    bytes: Vec<u8>,
    written: Vec<bool>,
}

impl Shared {
    /// So many bytes.
    pub(super) fn new(declared: usize, dynamic: usize) -> Self {
        let bytes = declared + dynamic;
        Self { declared, bytes: vec![0; bytes], written: vec![false; bytes] }
    }

    /// Another block begins.
    pub(super) fn clear(&mut self) {
        self.written.fill(false);
    }

    fn range(&self, offset: u64, width: usize) -> Result<std::ops::Range<usize>, Fault> {
        let (start, most) = match offset.checked_sub(window::DYNAMIC) {
            None => (offset as usize, self.declared),
            Some(beyond) => ((beyond as usize).saturating_add(self.declared), self.bytes.len()),
        };
        match start.checked_add(width) {
            Some(end) if end <= most => Ok(start..end),
            _ => Err(Fault::new(
                FaultKind::IllegalAddress,
                format!("{width} bytes at {offset:#x} of {} bytes of shared memory", self.bytes.len()),
            )),
        }
    }

    pub(super) fn read(&self, offset: u64, width: usize) -> Result<u64, Fault> {
        let range = self.range(offset, width)?;
        if !self.written[range.clone()].iter().all(|written| *written) {
            return Err(Fault::new(
                FaultKind::Uninitialised,
                format!("shared memory at {offset:#x} is read before it is written"),
            ));
        }
        Ok(from_bytes(&self.bytes[range]))
    }

    pub(super) fn write(&mut self, offset: u64, width: usize, value: u64) -> Result<(), Fault> {
        let range = self.range(offset, width)?;
        self.written[range.clone()].fill(true);
        self.bytes[range].copy_from_slice(&value.to_le_bytes()[..width]);
        Ok(())
    }

    /// Bytes that are on their way count as never written.
    pub(super) fn forget(&mut self, offset: u64, width: usize) -> Result<(), Fault> {
        let range = self.range(offset, width)?;
        self.written[range].fill(false);
        Ok(())
    }
}

fn from_bytes(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// The lanes of a mask, as indices.
pub(super) fn of(lanes: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| lanes >> lane & 1 == 1)
}

/// Bytes that an access of a warp moves: memory answers in sectors of 32 bytes, and lanes that reach into the sector of the
/// lane before share it.
pub(super) fn moved(addresses: &Lanes, lanes: u32, width: usize) -> u64 {
    const SECTOR: u64 = 32;
    let (mut last, mut sectors) = (u64::MAX, 0);
    for lane in of(lanes) {
        let first = addresses[lane] / SECTOR;
        let end = (addresses[lane] + width as u64 - 1) / SECTOR;
        sectors += end - first + u64::from(first != last);
        last = end;
    }
    sectors * SECTOR
}

fn extended(value: u64, width: usize) -> u64 {
    let shift = 64 - 8 * width as u32;
    ((value << shift) as i64 >> shift) as u64
}

fn misaligned(address: u64, width: usize) -> Fault {
    Fault::new(FaultKind::Misaligned, format!("{width} bytes at {address:#x}, which is no multiple of {width}"))
}

impl Block<'_> {
    /// Where each lane reaches, and the space they reach into.
    pub(super) fn addresses(
        &self,
        warp: &Warp,
        lanes: u32,
        at: &Address,
        elements: usize,
    ) -> Result<(Space, Lanes), Fault> {
        let mut addresses: Lanes = match at.base {
            Some(slot) => *warp.lanes(slot),
            None => [0; LANES],
        };
        let mut space = at.space;
        // Registers of shared addresses may have 32 bits.
        addresses.iter_mut().for_each(|address| *address = address.wrapping_add(at.offset as u64));
        if space == Space::Generic {
            space = generic(addresses[lanes.trailing_zeros() as usize]).0;
            for lane in of(lanes) {
                let (its, offset) = generic(addresses[lane]);
                if its != space {
                    return Err(Fault::new(FaultKind::Instruction, "lanes that reach into different spaces at once"));
                }
                addresses[lane] = offset;
            }
        }
        let whole = at.width * elements;
        if whole.is_power_of_two()
            && let Some(lane) = of(lanes).find(|lane| !addresses[*lane].is_multiple_of(whole as u64))
        {
            return Err(misaligned(addresses[lane], whole));
        }
        Ok((space, addresses))
    }

    pub(super) fn load(
        &mut self,
        warp: &mut Warp,
        lanes: u32,
        to: &[Slot],
        at: &Address,
        signed: bool,
    ) -> Result<(), Fault> {
        let (space, addresses) = self.addresses(warp, lanes, at, to.len())?;
        if space == Space::Global {
            self.counts.read += moved(&addresses, lanes, at.width * to.len());
        }
        for (element, slot) in to.iter().enumerate() {
            let mut values = [0; LANES];
            for lane in of(lanes) {
                let address = addresses[lane].wrapping_add((element * at.width) as u64);
                let value = self.read(warp, lane, space, address, at.width)?;
                values[lane] = if signed { extended(value, at.width) } else { value };
            }
            warp.write(*slot, lanes, &values);
        }
        Ok(())
    }

    pub(super) fn store(&mut self, warp: &mut Warp, lanes: u32, from: &[Slot], at: &Address) -> Result<(), Fault> {
        let (space, addresses) = self.addresses(warp, lanes, at, from.len())?;
        if space == Space::Global {
            self.counts.written += moved(&addresses, lanes, at.width * from.len());
            self.counts.stored += u64::from(lanes.count_ones()) * from.len() as u64;
        }
        for (element, slot) in from.iter().enumerate() {
            let values = *warp.lanes(*slot);
            for lane in of(lanes) {
                let address = addresses[lane].wrapping_add((element * at.width) as u64);
                self.write(warp, lane, space, address, at.width, values[lane])?;
            }
        }
        Ok(())
    }

    pub(super) fn atomic(
        &mut self,
        warp: &mut Warp,
        lanes: u32,
        (f, d): (Update, Option<Slot>),
        at: &Address,
        from: [Slot; 2],
    ) -> Result<(), Fault> {
        let (space, addresses) = self.addresses(warp, lanes, at, 1)?;
        // What a register holds beyond the width is not compared.
        let [b, c] = from.map(|slot| warp.lanes(slot).map(|bits| bits & u64::MAX >> (64 - 8 * at.width)));
        let mut old = [0; LANES];
        for lane in of(lanes) {
            old[lane] = match space {
                Space::Global => {
                    self.counts.read += moved(&addresses, 1 << lane, at.width);
                    self.counts.written += moved(&addresses, 1 << lane, at.width);
                    self.memory.update(addresses[lane], at.width, |old| f(old, b[lane], c[lane]))?
                }
                _ => {
                    let old = self.read(warp, lane, space, addresses[lane], at.width)?;
                    self.write(warp, lane, space, addresses[lane], at.width, f(old, b[lane], c[lane]))?;
                    old
                }
            };
        }
        if let Some(d) = d {
            warp.write(d, lanes, &old);
        }
        Ok(())
    }

    fn read(&mut self, warp: &Warp, lane: usize, space: Space, address: u64, width: usize) -> Result<u64, Fault> {
        match space {
            Space::Global | Space::Generic => self.memory.read(address, width),
            Space::Shared => self.shared.read(address, width),
            Space::Local => Ok(from_bytes(&warp.local[self.local(lane, address, width)?])),
            Space::Param => {
                let range = address as usize..(address as usize).saturating_add(width);
                self.launch.parameters.get(range).map(from_bytes).ok_or_else(|| {
                    Fault::new(FaultKind::IllegalAddress, format!("{width} bytes at {address:#x} of the parameters"))
                })
            }
        }
    }

    fn write(
        &mut self,
        warp: &mut Warp,
        lane: usize,
        space: Space,
        address: u64,
        width: usize,
        value: u64,
    ) -> Result<(), Fault> {
        match space {
            Space::Global | Space::Generic => self.memory.write(address, width, value),
            Space::Shared => self.shared.write(address, width, value),
            Space::Local => {
                let range = self.local(lane, address, width)?;
                warp.local[range].copy_from_slice(&value.to_le_bytes()[..width]);
                Ok(())
            }
            Space::Param => Err(Fault::new(FaultKind::Instruction, "a kernel writes its own parameters")),
        }
    }

    fn local(&self, lane: usize, offset: u64, width: usize) -> Result<std::ops::Range<usize>, Fault> {
        let bytes = self.launch.kernel.local_bytes;
        match usize::try_from(offset).ok().filter(|offset| offset.saturating_add(width) <= bytes) {
            Some(offset) => Ok(lane * bytes + offset..lane * bytes + offset + width),
            None => Err(Fault::new(
                FaultKind::IllegalAddress,
                format!("{width} bytes at {offset:#x} of {bytes} bytes of local memory"),
            )),
        }
    }
}
