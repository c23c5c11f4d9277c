//! How blocks reach a forward pass: all resident, or one by one.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use super::{Ledger, Parameters, WeightsMode};
use crate::{
    error::{Error, Result},
    weights::{Ring, SLOTS},
};

/// Reads block `index`.
type Load<B> = Box<dyn Fn(usize) -> Result<B> + Send + Sync>;

/// All blocks of one network, in their order.
pub struct Blocks<B> {
    load: Load<B>,
    /// How many there are of each kind, one kind after another; blocks of a kind differ in their numbers alone.
    kinds: Vec<usize>,
    /// By their number, those that stay.
    staying: Vec<Option<B>>,
    places: Places<B>,
    /// Whether a streamed block is read while the one before it computes.
    ahead: bool,
    dry: Option<Ledger>,
}

/// Where streamed blocks lie between forward passes.
enum Places<B> {
    /// In a ring, if there is one.
    Ring(Option<Ring>),
    /// What its places would hold.
    Dry(Mutex<VecDeque<B>>),
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
        let count = kinds.iter().sum();
        let stays = |index: &usize| mode.stays(*index, count);
        let staying = (0..count).map(|index| stays(&index).then(|| load(index, parameters)).transpose());
        let staying: Vec<_> = staying.collect::<Result<_>>()?;
        let parameters = match mode {
            WeightsMode::Resident => parameters.clone(),
            WeightsMode::Part { .. } | WeightsMode::Stream => parameters.beside_computation()?,
        };
        let places = match &dry {
            Some(ledger) if ledger.has_rings() => Places::Dry(Mutex::default()),
            _ => Places::Ring(parameters.ring().cloned()),
        };
        let load: Load<B> = Box::new(move |index| load(index, &parameters));
        Ok(Self { load, kinds, staying, places, ahead: true, dry })
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
        Self { load, kinds, staying: Vec::new(), places: Places::Ring(None), ahead, dry }
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
        let Some(ledger) = &self.dry else {
            let travels = (0..self.count()).any(|index| self.staying(index).is_none());
            return if self.ahead && travels { self.stream_ahead(visit) } else { self.in_turn(None, visit) };
        };
        self.visit_dry(ledger, |index, block| visit(index, block).map(drop))
    }

    /// The block of this number, where it stays.
    fn staying(&self, index: usize) -> Option<&B> {
        self.staying.get(index).and_then(Option::as_ref)
    }

    /// One after the other, those that travel too, where there is a `ring` through its places.
    fn in_turn(&self, ring: Option<&Ring>, mut visit: impl FnMut(usize, &B) -> Result<bool>) -> Result<()> {
        for index in 0..self.count() {
            let goes_on = match (self.staying(index), ring) {
                (Some(block), _) => visit(index, block)?,
                (None, Some(ring)) => {
                    let (turn, block) = ring.fill(|| (self.load)(index))?;
                    ring.with(turn, || visit(index, &block))?
                }
                (None, None) => visit(index, &(self.load)(index)?)?,
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Of each kind the blocks that stay, or those that travel.
    fn of_each_kind(&self, stays: bool) -> impl Iterator<Item = Vec<usize>> {
        let kinds = self.kinds.iter().scan(0, |next, count| {
            let first = *next;
            *next += count;
            Some(first..*next)
        });
        kinds.map(move |kind| kind.filter(|index| self.staying(*index).is_some() == stays).collect())
    }

    fn stream_ahead(&self, mut visit: impl FnMut(usize, &B) -> Result<bool>) -> Result<()> {
        let ring = match &self.places {
            Places::Ring(ring) => ring.as_ref(),
            Places::Dry(_) => None,
        };
        // Of `self`, the thread that reads needs this alone.
        let (load, travelling) = (&self.load, self.of_each_kind(false).flatten().collect::<Vec<_>>());
        let read = move |index| match ring {
            Some(ring) => ring.fill(|| load(index)),
            None => Ok((index, load(index)?)),
        };
        thread::scope(|scope| {
            // No room in the channel: the reader holds one finished block until it is asked for, and reads no further.
            let (sender, receiver) = mpsc::sync_channel(0);
            let reader = thread::Builder::new().spawn_scoped(scope, move || {
                for index in travelling {
                    // A closed channel means that a visit failed or was the last: nobody wants the rest.
                    if sender.send(read(index)).is_err() {
                        break;
                    }
                }
            });
            // Where the system has no thread to give, nothing is read ahead.
            if reader.is_err() {
                return self.in_turn(ring, visit);
            }
            for index in 0..self.count() {
                let goes_on = if let Some(block) = self.staying(index) {
                    visit(index, block)?
                } else {
                    let block =
                        receiver.recv().map_err(|_| Error::model("the thread that reads blocks is gone", ""))?;
                    let (turn, block) = block?;
                    match ring {
                        Some(ring) => ring.with(turn, || visit(index, &block))?,
                        None => visit(index, &block)?,
                    }
                };
                if !goes_on {
                    break;
                }
            }
            Ok(())
        })
    }

    /// A dry pass: kind by kind, those that stay and those that travel, in the order in which the first of each comes.
    fn visit_dry(&self, ledger: &Ledger, mut visit: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        let kinds: Vec<_> = self.of_each_kind(false).collect();
        for (at, staying) in self.of_each_kind(true).enumerate() {
            let stays_first = staying.first() < kinds[at].first() || kinds[at].is_empty();
            let next = kinds[at + 1..].iter().flatten().next().copied();
            for stay in [stays_first, !stays_first] {
                match staying.first().and_then(|first| Some((*first, self.staying(*first)?))) {
                    Some((index, block)) if stay => ledger.repeat(staying.len(), || visit(index, block))?,
                    _ if stay => {}
                    _ => match &self.places {
                        Places::Dry(places) => self.fill_dry(places, &kinds[at], ledger, &mut visit)?,
                        Places::Ring(_) => self.stream_dry(&kinds[at], next, ledger, &mut visit)?,
                    },
                }
            }
        }
        Ok(())
    }

    /// What a stream of blocks of a kind holds: beside each the next, of its own kind or, for the last, of the next.
    fn stream_dry(
        &self,
        kind: &[usize],
        next: Option<usize>,
        ledger: &Ledger,
        visit: &mut impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        let mut beside = |index: usize, next: Option<usize>, times: usize| {
            let block = (self.load)(index)?;
            let _next = next.filter(|_| self.ahead).map(&self.load).transpose()?;
            ledger.repeat(times, || visit(index, &block))
        };
        match *kind {
            [] => Ok(()),
            [only] => beside(only, next, 1),
            [first, .., last] => {
                beside(first, Some(last), kind.len() - 1)?;
                beside(last, next, 1)
            }
        }
    }

    /// The same for a ring, whose places stay filled: a block goes when the third after it is read into its place.
    fn fill_dry(
        &self,
        places: &Mutex<VecDeque<B>>,
        kind: &[usize],
        ledger: &Ledger,
        visit: &mut impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
        // Places that blocks of the last kind still fill stand for the change from one kind to the next.
        for (at, index) in kind.iter().take(SLOTS).enumerate() {
            if places.len() == SLOTS {
                places.pop_front();
            }
            places.push_back((self.load)(*index)?);
            let times = if at + 1 == SLOTS { kind.len() + 1 - SLOTS } else { 1 };
            match places.back() {
                Some(block) => ledger.repeat(times, || visit(*index, block))?,
                None => unreachable!("a block was pushed"),
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
    fn blocks_that_stay_are_read_once_and_all_come_in_order() {
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let load = move |index, _: &Parameters| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(index)
        };
        let blocks = Blocks::new(&[2, 5], WeightsMode::Part { stay: 4 }, &nothing(), load).expect("read");
        assert_eq!(reads.load(Ordering::SeqCst), 4);
        for pass in 1..3 {
            let mut seen = Vec::new();
            let visit = |index, block: &usize| {
                assert_eq!(index, *block);
                seen.push(index);
                Ok(())
            };
            blocks.for_each(visit).expect("runs");
            assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
            assert_eq!(reads.load(Ordering::SeqCst), 4 + 3 * pass);
        }
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
        // 38 of 57 stay, 13 of the first 19 and 25 of the others, beside a ring of places.
        assert_eq!(dry(CARD, WeightsMode::Part { stay: 38 }, &[19, 38]), (29_300, 29_300, 57));
        assert_eq!(dry(CARD, WeightsMode::Part { stay: 57 }, &[19, 38]), (39_900, 39_900, 57));
        assert_eq!(dry(DeviceKind::Cpu, WeightsMode::Part { stay: 4 }, &[3, 3]), (2200 + 1100, 2200, 6));
    }
}
