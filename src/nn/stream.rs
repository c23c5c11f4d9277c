//! How blocks reach a forward pass: all resident, or one by one.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use super::{Ledger, Parameters};
use crate::{
    error::{Error, Result},
    weights::{Ring, SLOTS},
};

/// Where the weights of the blocks live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsMode {
    /// All on the device, from the start to the end.
    Resident,
    /// Few: the one that computes and the one that is being read; on CUDA the places of a ring, which stay.
    Stream,
}

/// Reads block `index`.
type Load<B> = Box<dyn Fn(usize) -> Result<B> + Send + Sync>;

/// All blocks of one network, in their order.
pub struct Blocks<B> {
    load: Load<B>,
    /// How many there are of each kind, one kind after another; blocks of a kind differ in their numbers alone.
    kinds: Vec<usize>,
    keeps: Keeps<B>,
    /// Whether a streamed block is read while the one before it computes.
    ahead: bool,
    dry: Option<Ledger>,
}

/// What is held between forward passes.
enum Keeps<B> {
    /// All blocks.
    All(Vec<B>),
    /// A ring's places, if there is one.
    Ring(Option<Ring>),
    /// What those places would hold.
    DryRing(Mutex<VecDeque<B>>),
}

impl<B: Send> Blocks<B> {
    /// Blocks of these kinds; resident ones are read now, streamed ones when their turn comes, each while the one before
    /// computes. `load` reads block `index` from the parameters it is given.
    ///
    /// # Errors
    /// What reading one says, or when the device fails.
    pub fn new(
        kinds: &[usize],
        mode: WeightsMode,
        parameters: &Parameters,
        load: impl Fn(usize, &Parameters) -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (dry, kinds) = (parameters.ledger().cloned(), told_apart(kinds, parameters));
        let parameters = match mode {
            WeightsMode::Resident => parameters.clone(),
            WeightsMode::Stream => parameters.beside_computation()?,
        };
        let ring = parameters.ring().cloned();
        let load: Load<B> = Box::new(move |index| load(index, &parameters));
        let keeps = match mode {
            WeightsMode::Resident => Keeps::All((0..kinds.iter().sum()).map(&load).collect::<Result<_>>()?),
            WeightsMode::Stream if dry.as_ref().is_some_and(Ledger::has_rings) => Keeps::DryRing(Mutex::default()),
            WeightsMode::Stream => Keeps::Ring(ring),
        };
        Ok(Self { load, kinds, keeps, ahead: true, dry })
    }

    /// A text encoder's blocks, each used once and gone. On the CPU the next is read ahead; an accelerator takes longer to
    /// receive a block than to compute it, so that looking ahead would only cost memory.
    pub fn one_by_one(
        kinds: &[usize],
        parameters: &Parameters,
        load: impl Fn(usize, &Parameters) -> Result<B> + Send + Sync + 'static,
    ) -> Self {
        let (ahead, dry) = (parameters.place().is_cpu(), parameters.ledger().cloned());
        let kinds = told_apart(kinds, parameters);
        let parameters = parameters.clone();
        let load: Load<B> = Box::new(move |index| load(index, &parameters));
        Self { load, kinds, keeps: Keeps::Ring(None), ahead, dry }
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
        self.for_each_while(|index, block| visit(index, block).map(|()| true))
    }

    /// The same until a visit says false: of streamed blocks those behind the next are not read then. A dry pass visits all.
    ///
    /// # Errors
    /// As [`Blocks::for_each`].
    pub fn for_each_while(&self, mut visit: impl FnMut(usize, &B) -> Result<bool>) -> Result<()> {
        let mut all = |index: usize, block: &B| visit(index, block).map(drop);
        match (&self.keeps, &self.dry) {
            (Keeps::All(blocks), None) => {
                for (index, block) in blocks.iter().enumerate() {
                    if !visit(index, block)? {
                        break;
                    }
                }
                Ok(())
            }
            (Keeps::All(blocks), Some(ledger)) => {
                self.starts().try_for_each(|(first, count)| match blocks.get(first) {
                    Some(block) => ledger.repeat(count, || all(first, block)),
                    None => Ok(()),
                })
            }
            (Keeps::DryRing(places), Some(ledger)) => self.fill_dry(places, ledger, all),
            (_, Some(ledger)) => self.stream_dry(ledger, all),
            (Keeps::Ring(ring), None) if self.ahead => self.stream_ahead(ring.as_ref(), visit),
            (_, None) => {
                for index in 0..self.count() {
                    if !visit(index, &(self.load)(index)?)? {
                        break;
                    }
                }
                Ok(())
            }
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

    fn stream_ahead(&self, ring: Option<&Ring>, mut visit: impl FnMut(usize, &B) -> Result<bool>) -> Result<()> {
        // Of `self`, the thread that reads needs this alone.
        let load = &self.load;
        let read = move |index| match ring {
            Some(ring) => ring.fill(|| load(index)),
            None => Ok((index, load(index)?)),
        };
        let count = self.count();
        thread::scope(|scope| {
            // No room in the channel: the reader holds one finished block until it is asked for, and reads no further.
            let (sender, receiver) = mpsc::sync_channel(0);
            scope.spawn(move || {
                for index in 0..count {
                    // A closed channel means that a visit failed or was the last: nobody wants the rest.
                    if sender.send(read(index)).is_err() {
                        break;
                    }
                }
            });
            for index in 0..count {
                let block = receiver.recv().map_err(|_| Error::model("the thread that reads blocks is gone", ""))?;
                let (turn, block) = block?;
                let goes_on = match ring {
                    Some(ring) => ring.with(turn, || visit(index, &block))?,
                    None => visit(index, &block)?,
                };
                if !goes_on {
                    break;
                }
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

    /// The same for a ring, whose places stay filled: a block goes when the third after it is read into its place.
    fn fill_dry(
        &self,
        places: &Mutex<VecDeque<B>>,
        ledger: &Ledger,
        mut visit: impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
        for (first, count) in self.starts() {
            // Places that blocks of the last kind still fill stand for the change from one kind to the next.
            for index in first..first + count.min(SLOTS) {
                if places.len() == SLOTS {
                    places.pop_front();
                }
                places.push_back((self.load)(index)?);
                let times = if index + 1 - first == SLOTS { count + 1 - SLOTS } else { 1 };
                match places.back() {
                    Some(block) => ledger.repeat(times, || visit(index, block))?,
                    None => unreachable!("a block was pushed"),
                }
            }
        }
        Ok(())
    }
}

/// How many blocks there are of each kind; with LoRA files each may hold another amount, and is its own kind.
fn told_apart(kinds: &[usize], parameters: &Parameters) -> Vec<usize> {
    if parameters.is_adapted() { vec![1; kinds.iter().sum()] } else { kinds.to_vec() }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use candle_core::DType;

    use super::*;
    use crate::{base::device::DeviceKind, nn::Array};

    const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 0) };

    /// Parameters on the CPU that nothing is read from.
    fn nothing() -> Parameters {
        Parameters::of_nothing(DType::F32)
    }

    struct Block(usize, Arc<AtomicUsize>);

    impl Drop for Block {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn blocks_come_in_order_and_at_most_two_are_held() {
        let (held, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, most_held) = (Arc::clone(&held), Arc::clone(&peak));
        let load = move |index, _: &Parameters| {
            most_held.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Ok(Block(index, Arc::clone(&count)))
        };
        let mut seen = Vec::new();
        let blocks = Blocks::new(&[2, 3], WeightsMode::Stream, &nothing(), load).expect("nothing is read yet");
        blocks
            .for_each(|index, block| {
                assert_eq!(block.0, index);
                seen.push(index);
                Ok(())
            })
            .expect("runs");
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert!(peak.load(Ordering::SeqCst) <= 2);
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn an_error_of_either_side_ends_the_stream() {
        let fails = |index, _: &Parameters| if index == 2 { Err(Error::model("missing", "")) } else { Ok(index) };
        let mut ran = 0;
        let blocks = Blocks::new(&[5], WeightsMode::Stream, &nothing(), fails).expect("nothing is read yet");
        let count = |_: usize, _: &usize| {
            ran += 1;
            Ok(())
        };
        assert!(blocks.for_each(count).is_err());
        assert_eq!(ran, 2);
        let blocks = Blocks::one_by_one(&[5], &nothing(), |index, _| Ok(index));
        assert!(blocks.for_each(|_, _| Err(Error::model("broken", ""))).is_err());
        assert!(Blocks::new(&[5], WeightsMode::Resident, &nothing(), fails).is_err());
    }

    /// Blocks of 100 numbers, then of 1000: the most bytes held, the bytes held at the end, what the visits count for.
    fn dry(kind: DeviceKind, mode: WeightsMode, kinds: &[usize]) -> (u64, u64, u128) {
        let ledger = Ledger::new(kind);
        let parameters = Parameters::of_configuration(DType::U8, &ledger);
        let first = kinds[0];
        let load = move |index, parameters: &Parameters| -> Result<Array> {
            parameters.get("weight", &[if index < first { 100 } else { 1000 }])
        };
        let blocks = Blocks::new(kinds, mode, &parameters, load).expect("read");
        let visit = |_: usize, _: &Array| {
            ledger.work(1);
            Ok(())
        };
        blocks.for_each(visit).expect("visited");
        (ledger.peak_bytes(), ledger.now_bytes(), ledger.flops())
    }

    #[test]
    fn a_dry_pass_holds_what_would_be_held_and_counts_every_block() {
        let (resident, stream) = (WeightsMode::Resident, WeightsMode::Stream);
        assert_eq!(dry(DeviceKind::Cpu, resident, &[3, 2]), (2300, 2300, 5));
        assert_eq!(dry(DeviceKind::Cpu, stream, &[19, 38]), (2000, 0, 57));
        assert_eq!(dry(DeviceKind::Cpu, stream, &[19, 1]), (1100, 0, 20));
        assert_eq!(dry(DeviceKind::Cpu, stream, &[1, 0]), (100, 0, 1));
        // A ring of three places that stay.
        assert_eq!(dry(CARD, stream, &[19, 38]), (3000, 3000, 57));
        assert_eq!(dry(CARD, stream, &[19, 1]), (1200, 1200, 20));
        assert_eq!(dry(CARD, stream, &[1, 1]), (1100, 1100, 2));
        assert_eq!(dry(CARD, resident, &[3, 2]), (2300, 2300, 5));
    }
}
