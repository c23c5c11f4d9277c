//! How blocks reach a forward pass: all resident, or one by one.

use std::{sync::mpsc, thread};

use super::{Ledger, Place};
use crate::error::{Error, Result};

/// Where the weights of the blocks live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsMode {
    /// All on the device, from the start to the end.
    Resident,
    /// At most two: the one that computes and the one that is being read.
    Stream,
}

/// Reads block `index`.
type Load<B> = Box<dyn Fn(usize) -> Result<B> + Send + Sync>;

/// All blocks of one network, in their order.
pub struct Blocks<B> {
    load: Load<B>,
    /// How many there are of each kind, one kind after another; blocks of a kind differ in their numbers alone.
    kinds: Vec<usize>,
    resident: Option<Vec<B>>,
    /// Whether a streamed block is read while the one before it computes.
    ahead: bool,
    dry: Option<Ledger>,
}

impl<B: Send> Blocks<B> {
    /// Blocks of these kinds, all read now.
    ///
    /// # Errors
    /// What reading one says.
    pub fn resident(kinds: &[usize], dry: Option<&Ledger>, load: Load<B>) -> Result<Self> {
        let resident = (0..kinds.iter().sum()).map(&load).collect::<Result<_>>()?;
        Ok(Self { load, kinds: kinds.to_vec(), resident: Some(resident), ahead: false, dry: dry.cloned() })
    }

    /// Blocks of these kinds, read when their turn comes. With `ahead` the next is read by another thread while one
    /// computes, and two are held at once; without, one is held.
    pub fn streamed(kinds: &[usize], ahead: bool, dry: Option<&Ledger>, load: Load<B>) -> Self {
        Self { load, kinds: kinds.to_vec(), resident: None, ahead, dry: dry.cloned() }
    }

    /// A text encoder's blocks, each used once and gone. On the CPU the next is read ahead; an accelerator takes longer to
    /// receive a block than to compute it, so that looking ahead would only cost memory.
    pub fn one_by_one(
        kinds: &[usize],
        place: &Place,
        load: impl Fn(usize) -> Result<B> + Send + Sync + 'static,
    ) -> Self {
        let dry = match place {
            Place::Real(_) => None,
            Place::Dry(ledger) => Some(ledger),
        };
        Self::streamed(kinds, place.is_cpu(), dry, Box::new(load))
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.kinds.iter().sum()
    }

    /// Calls `visit` with every block in order. A streamed block is dropped when `visit` returns. A dry pass visits few
    /// blocks of each kind and counts them for all.
    ///
    /// # Errors
    /// What reading a block or `visit` says.
    pub fn for_each(&self, mut visit: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        match (&self.resident, &self.dry) {
            (Some(blocks), None) => blocks.iter().enumerate().try_for_each(|(i, block)| visit(i, block)),
            (Some(blocks), Some(ledger)) => self.starts().try_for_each(|(first, count)| match blocks.get(first) {
                Some(block) => ledger.repeat(count, || visit(first, block)),
                None => Ok(()),
            }),
            (None, Some(ledger)) => self.stream_dry(ledger, visit),
            (None, None) if self.ahead => self.stream_ahead(visit),
            (None, None) => (0..self.count()).try_for_each(|index| visit(index, &(self.load)(index)?)),
        }
    }

    /// Where each kind begins, and how many it has.
    fn starts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.kinds.iter().scan(0, |next, count| {
            let first = *next;
            *next += count;
            Some((first, *count))
        })
    }

    fn stream_ahead(&self, mut visit: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            // No room in the channel: the reader holds one finished block until it is asked for, and reads no further.
            let (sender, receiver) = mpsc::sync_channel(0);
            let (load, count) = (&self.load, self.count());
            scope.spawn(move || {
                for index in 0..count {
                    // A closed channel means that a visit failed: nobody wants the rest.
                    if sender.send(load(index)).is_err() {
                        break;
                    }
                }
            });
            for index in 0..count {
                let block = receiver.recv().map_err(|_| Error::model("the thread that reads blocks is gone", ""))?;
                visit(index, &block?)?;
            }
            Ok(())
        })
    }

    /// What a stream holds: beside each block the next, of its own kind or, for the last of a kind, of the next.
    fn stream_dry(&self, ledger: &Ledger, mut visit: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        let mut beside = |index: usize, next: Option<usize>, times: usize| {
            let block = (self.load)(index)?;
            let _next = next.filter(|_| self.ahead).map(&self.load).transpose()?;
            ledger.repeat(times, || visit(index, &block))
        };
        for (first, count) in self.starts().filter(|(_, count)| *count > 0) {
            let last = first + count - 1;
            if count > 1 {
                beside(first, Some(last), count - 1)?;
            }
            beside(last, Some(last + 1).filter(|next| *next < self.count()), 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{base::device::DeviceKind, nn::Held};

    struct Block(usize, Arc<AtomicUsize>);

    impl Drop for Block {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn blocks_come_in_order_and_at_most_two_are_held() {
        for (ahead, most) in [(false, 1), (true, 2)] {
            let (held, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (count, most_held) = (Arc::clone(&held), Arc::clone(&peak));
            let load = move |index| {
                most_held.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Ok(Block(index, Arc::clone(&count)))
            };
            let mut seen = Vec::new();
            let blocks = Blocks::streamed(&[2, 3], ahead, None, Box::new(load));
            blocks
                .for_each(|index, block| {
                    assert_eq!(block.0, index);
                    seen.push(index);
                    Ok(())
                })
                .expect("runs");
            assert_eq!(seen, [0, 1, 2, 3, 4]);
            assert!(peak.load(Ordering::SeqCst) <= most);
            assert_eq!(held.load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn an_error_of_either_side_ends_the_stream() {
        for ahead in [false, true] {
            let fails = |index| if index == 2 { Err(Error::model("missing", "")) } else { Ok(index) };
            let mut ran = 0;
            let blocks = Blocks::streamed(&[5], ahead, None, Box::new(fails));
            let count = |_: usize, _: &usize| {
                ran += 1;
                Ok(())
            };
            assert!(blocks.for_each(count).is_err());
            assert_eq!(ran, 2);
            let blocks = Blocks::streamed(&[5], ahead, None, Box::new(Ok));
            assert!(blocks.for_each(|_, _| Err(Error::model("broken", ""))).is_err());
            assert!(Blocks::resident(&[5], None, Box::new(fails)).is_err());
        }
    }

    /// Blocks of 100 bytes, then of 1000: what is held, what is read, and what the visits count for.
    fn dry(mode: WeightsMode, kinds: &[usize]) -> (u64, u64, Vec<usize>) {
        let ledger = Ledger::new(DeviceKind::Cpu);
        let read = Arc::new(Mutex::new(Vec::new()));
        let (of, note, first) = (ledger.clone(), Arc::clone(&read), kinds[0]);
        let load: Load<Held> = Box::new(move |index| {
            note.lock().expect("not poisoned").push(index);
            Ok(of.hold(if index < first { 100 } else { 1000 }, 1))
        });
        let blocks = match mode {
            WeightsMode::Resident => Blocks::resident(kinds, Some(&ledger), load).expect("read"),
            WeightsMode::Stream => Blocks::streamed(kinds, true, Some(&ledger), load),
        };
        let visit = |_: usize, _: &Held| {
            ledger.work(1);
            Ok(())
        };
        blocks.for_each(visit).expect("visited");
        let read = read.lock().expect("not poisoned").clone();
        (ledger.peak_bytes(), ledger.flops(), read)
    }

    #[test]
    fn a_dry_pass_holds_what_would_be_held_and_counts_every_block() {
        assert_eq!(dry(WeightsMode::Resident, &[3, 2]), (2300, 5, vec![0, 1, 2, 3, 4]));
        let (peak, visits, _) = dry(WeightsMode::Stream, &[19, 38]);
        assert_eq!((peak, visits), (2000, 57));
        let (peak, visits, _) = dry(WeightsMode::Stream, &[19, 1]);
        assert_eq!((peak, visits), (1100, 20));
        let (peak, visits, read) = dry(WeightsMode::Stream, &[1, 0]);
        assert_eq!((peak, visits, read), (100, 1, vec![0]));
    }
}
