//! Launches that are sampled in shape-only mode, each kind of them once: what reaches the same places of allocations of the
//! same sizes takes the same, and faults or does not.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    Device,
    memory::{self, Allocation},
};
use crate::machine::{Counts, Fault, Launch};

/// Blocks up to which a launch is executed whole, so that what it leaves in small allocations means something.
const WHOLE: u64 = 3;

/// What is the same in launches that take the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    kernel: String,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    /// The parameters word by word.
    words: Vec<Word>,
}

/// Eight bytes of the parameters.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Word {
    /// A number.
    Plain(u64),
    /// An address: in which of the allocations, and how far behind the first address in it.
    Address { allocation: usize, offset: u64 },
    /// The same in memory that is held, whose contents may be what a kernel is told.
    Held { offset: u64, bytes: usize, hash: u64 },
}

/// An allocation of addresses only that a launch is given addresses in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Given {
    start: u64,
    bytes: usize,
    /// The first of the addresses, from the start.
    base: u64,
}

/// Addresses that are the same but for multiples of this are read in the same sectors.
const ALIGNED: u64 = 256;

/// What a launch took, and how far it reached from the first address in each allocation.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) counts: Counts,
    reach: Vec<(i64, i64)>,
}

/// What launches took, by their kind and by the sizes of what they were given and how that lies.
pub(super) type Known = HashMap<(Kind, Vec<(usize, u64)>), Taken>;

impl Device {
    /// What a launch takes, of three of its blocks or of one like it before that reached no further than this one may.
    ///
    /// # Errors
    /// The first fault of a thread.
    pub(super) fn sampled(&mut self, launch: &Launch<'_>) -> Result<Counts, Fault> {
        if launch.blocks() <= WHOLE {
            return Ok(launch.sample(&self.memory)?.0);
        }
        let (kind, given) = self.kind(launch)?;
        let key = (kind, given.iter().map(|given| (given.bytes, given.base % ALIGNED)).collect());
        let within = |given: &Given, reach: &(i64, i64)| {
            let (first, behind) = (given.base as i64 + reach.0, given.base as i64 + reach.1);
            first >= 0 && behind <= given.bytes as i64
        };
        if let Some(taken) = self.known.get(&key)
            && given.iter().zip(&taken.reach).all(|(given, reach)| within(given, reach))
        {
            return Ok(taken.counts);
        }
        let (counts, touched) = launch.sample(&self.memory)?;
        let from = |given: &Given| {
            let base = given.start + given.base;
            touched
                .get(&given.start)
                .map_or((0, 0), |(first, behind)| (*first as i64 - base as i64, *behind as i64 - base as i64))
        };
        // A kernel that reached memory it was not given an address in would reach something else from another place.
        let is_told = |start: &u64| given.iter().any(|given| given.start == *start);
        if touched.keys().all(|start| is_told(start) || self.memory.find(*start, 0).is_ok_and(|(_, of)| !of.hollow)) {
            self.known.insert(key, Taken { counts, reach: given.iter().map(from).collect() });
        }
        Ok(counts)
    }

    /// The kind of a launch, and the allocations it is given addresses in, in the order of its parameters.
    fn kind(&self, launch: &Launch<'_>) -> Result<(Kind, Vec<Given>), Fault> {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let words: Vec<_> = launch.parameters.chunks(8).map(word).collect();
        let mut given: Vec<Given> = Vec::new();
        for (start, allocation, offset) in
            words.iter().filter_map(|word| self.place(*word)).filter(|(_, of, _)| of.hollow)
        {
            match given.iter_mut().find(|given| given.start == start) {
                Some(given) => given.base = given.base.min(offset),
                None => given.push(Given { start, bytes: allocation.bytes, base: offset }),
            }
        }
        let words = words.into_iter().map(|word| self.word(word, &given)).collect::<Result<_, _>>()?;
        let (kernel, shared) = (launch.kernel.name.clone(), launch.dynamic_shared);
        Ok((Kind { kernel, grid: launch.grid, block: launch.block, shared, words }, given))
    }

    /// Where the allocation begins that an address lies in, the allocation, and how far behind its start.
    fn place(&self, word: u64) -> Option<(u64, Allocation, u64)> {
        let (start, allocation) = self.memory.find(word, 0).ok().filter(|_| word >= memory::BASE)?;
        Some((start, allocation, word - start))
    }

    fn word(&self, word: u64, given: &[Given]) -> Result<Word, Fault> {
        let Some((start, Allocation { bytes, .. }, offset)) = self.place(word) else { return Ok(Word::Plain(word)) };
        Ok(match given.iter().position(|given| given.start == start) {
            Some(allocation) => Word::Address { allocation, offset: offset - given[allocation].base },
            None => Word::Held { offset, bytes, hash: hash(self.memory.slice(start, bytes)?) },
        })
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use crate::device::{Device, card::Settings, result, work::Work};

    /// Each thread of the grid writes one f32 of what its parameter points to.
    const FILL: &str = ".version 8.0
.target sm_80
.address_size 64
.visible .entry fill(.param .u64 at) {
  .reg .b32 %r<5>;
  .reg .b64 %d<4>;
  ld.param.u64 %d1, [at];
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %tid.x;
  mad.lo.s32 %r4, %r1, %r2, %r3;
  mul.wide.u32 %d2, %r4, 4;
  add.s64 %d3, %d1, %d2;
  st.global.u32 [%d3], %r4;
  ret;
}
";

    fn device() -> (Device, u64, u64) {
        let mut device = Device::new(Settings::new(|name| (name == "CARD_SHAPES").then(|| "1".into())).unwrap());
        let module = device.load_module(FILL).unwrap();
        let fill = device.function(module, "fill").unwrap();
        let stream = device.new_stream(false);
        (device, fill, stream)
    }

    fn launch(device: &mut Device, (fill, stream): (u64, u64), at: u64, blocks: u32) -> Result<(), u32> {
        let kernel = device.kernel(fill).unwrap();
        let parameters = at.to_le_bytes().to_vec();
        device.ask(stream, Work::Launch { kernel, grid: [blocks, 1, 1], block: [256, 1, 1], shared: 0, parameters })
    }

    #[test]
    fn a_launch_like_one_before_takes_the_same_and_one_that_reaches_further_is_caught() {
        let (mut device, fill, stream) = device();
        let (blocks, bytes) = (1 << 12, 1 << 22);
        let first = device.allocate(stream, bytes).unwrap();
        let second = device.allocate(stream, bytes).unwrap();
        let smaller = device.allocate(stream, bytes - 4).unwrap();
        for at in [first, second, first] {
            launch(&mut device, (fill, stream), at, blocks).unwrap();
        }
        assert_eq!(device.known.len(), 1);
        let counts = device.known.values().next().unwrap().counts;
        assert_eq!((counts.written, counts.stored), (bytes, bytes / 4));
        launch(&mut device, (fill, stream), first, blocks / 2).unwrap();
        assert_eq!(device.known.len(), 2);
        assert_eq!(launch(&mut device, (fill, stream), smaller, blocks), Err(result::ILLEGAL_ADDRESS));
    }

    #[test]
    fn a_launch_further_on_in_the_same_memory_takes_the_same_until_it_reaches_behind_it() {
        let (mut device, fill, stream) = device();
        let (blocks, bytes) = (1 << 12, 1 << 23);
        let at = device.allocate(stream, bytes).unwrap();
        for offset in [0, 1 << 10, bytes / 2] {
            launch(&mut device, (fill, stream), at + offset, blocks).unwrap();
        }
        assert_eq!(device.known.len(), 1);
        // Sectors are cut otherwise there.
        launch(&mut device, (fill, stream), at + 4, blocks).unwrap();
        assert_eq!(device.known.len(), 2);
        assert_eq!(launch(&mut device, (fill, stream), at + bytes / 2 + 256, blocks), Err(result::ILLEGAL_ADDRESS));
    }
}
