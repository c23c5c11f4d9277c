//! Launches that are sampled in shape-only mode, each kind of them once: what reaches the same places of allocations of the
//! same sizes takes the same, and faults or does not.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{Device, memory};
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
    /// An address: where in an allocation of so many bytes, and a hash of what that holds, unless it is addresses only.
    Address { offset: u64, bytes: usize, held: Option<u64> },
}

/// What launches took.
pub(super) type Known = HashMap<Kind, Counts>;

impl Device {
    /// What a launch takes, of three of its blocks or of one like it before.
    ///
    /// # Errors
    /// The first fault of a thread.
    pub(super) fn sampled(&mut self, launch: &Launch<'_>) -> Result<Counts, Fault> {
        if launch.blocks() <= WHOLE {
            return launch.sample(&self.memory);
        }
        let kind = self.kind(launch)?;
        if let Some(counts) = self.known.get(&kind) {
            return Ok(*counts);
        }
        let counts = launch.sample(&self.memory)?;
        self.known.insert(kind, counts);
        Ok(counts)
    }

    fn kind(&self, launch: &Launch<'_>) -> Result<Kind, Fault> {
        let words = launch.parameters.chunks(8).map(|bytes| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.word(u64::from_le_bytes(word))
        });
        Ok(Kind {
            kernel: launch.kernel.name.clone(),
            grid: launch.grid,
            block: launch.block,
            shared: launch.dynamic_shared,
            words: words.collect::<Result<_, _>>()?,
        })
    }

    fn word(&self, word: u64) -> Result<Word, Fault> {
        let Some((start, allocation)) = self.memory.find(word, 0).ok().filter(|_| word >= memory::BASE) else {
            return Ok(Word::Plain(word));
        };
        let held = match allocation.hollow {
            true => None,
            false => Some(hash(self.memory.slice(start, allocation.bytes)?)),
        };
        Ok(Word::Address { offset: word - start, bytes: allocation.bytes, held })
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
        let counts = device.known.values().next().unwrap();
        assert_eq!((counts.written, counts.stored), (bytes, bytes / 4));
        launch(&mut device, (fill, stream), first, blocks / 2).unwrap();
        assert_eq!(device.known.len(), 2);
        assert_eq!(launch(&mut device, (fill, stream), smaller, blocks), Err(result::ILLEGAL_ADDRESS));
    }
}
