//! How fast this machine was the last times: what turns operations into an estimate of seconds.
//!
//! Rates are kept by device, number type and threads, by kind of work and by size: small pictures keep no machine busy, and
//! attention, which has a speed of its own, weighs more in large ones. Of each the last few runs count, by their median; one that
//! took under a second says nothing. A device that goes on computing when it is asked for the time shows that of a whole stage
//! alone: then, as in the books of earlier versions, the stage has one rate.

use std::{collections::BTreeMap, iter::Sum, ops::Add, path::PathBuf, time::Duration};

use crate::base::cache;

/// Runs that are remembered of each kind and size.
const REMEMBERED: usize = 9;
/// A run under this is mostly beginning and end.
const LEAST_DURATION: Duration = Duration::from_secs(1);
/// How far, in doublings of the tokens, a rate is taken to hold.
const FURTHEST: u32 = 4;
/// What a rate may be off by where it was measured, and by how much more for each doubling away from there.
const SPREAD: f64 = 1.15;
const SPREAD_PER_DOUBLING: f64 = 1.3;

/// A stage of a picture whose speed is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Steps of the transformer.
    Denoise,
    /// The autoencoder's decoder.
    Decode,
}

impl Stage {
    /// Its kinds of work, as the book calls them: attention, and all else, which is nearly all products there and convolutions
    /// here. The decoder's attention is another than the transformer's: one head, several times as wide.
    fn kinds(self) -> [&'static str; 2] {
        match self {
            Self::Denoise => ["attention", "products"],
            Self::Decode => ["wide_attention", "convolutions"],
        }
    }

    /// All of it, where its kinds cannot be told apart.
    fn whole(self) -> &'static str {
        match self {
            Self::Denoise => "denoise",
            Self::Decode => "decode",
        }
    }
}

/// Work of one stage on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// The stage.
    pub stage: Stage,
    /// Tokens of the picture.
    pub tokens: usize,
    /// Floating point operations.
    pub flops: u128,
    /// Those of them that are attention's.
    pub attention_flops: u128,
}

impl Amount {
    /// Pictures within a factor of two in their tokens are alike.
    fn class(&self) -> u32 {
        self.tokens.max(1).ilog2()
    }

    /// Operations of each of [`Stage::kinds`].
    fn by_kind(&self) -> [u128; 2] {
        [self.attention_flops, self.flops.saturating_sub(self.attention_flops)]
    }
}

/// How long a stage took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// All of it.
    pub whole: Duration,
    /// What of it was attention, where that can be told.
    pub attention: Option<Duration>,
}

/// How long something will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// About this long.
    pub about: Duration,
    /// Hardly less.
    pub least: Duration,
    /// Hardly more.
    pub most: Duration,
}

impl Add for Estimate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = Duration::saturating_add;
        Self {
            about: sum(self.about, other.about),
            least: sum(self.least, other.least),
            most: sum(self.most, other.most),
        }
    }
}

impl Sum for Estimate {
    fn sum<I: Iterator<Item = Self>>(estimates: I) -> Self {
        estimates.fold(Self::default(), Self::add)
    }
}

/// Operations a second of the last runs, by kind of work and size.
type Rates = BTreeMap<String, BTreeMap<u32, Vec<f64>>>;

/// Rates by machine, kept in a small file between runs. It only serves estimates: a file that cannot be read or written is no
/// error. One that holds something else is set aside, as `speeds.old.json`, before it is written over.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedBook {
    file: Option<PathBuf>,
    rates: BTreeMap<String, Rates>,
}

impl SpeedBook {
    /// The book in [`cache::folder`].
    pub fn open() -> Self {
        Self::at(cache::folder().map(|folder| folder.join("speeds.json")))
    }

    /// The book in this file.
    pub fn at(file: Option<PathBuf>) -> Self {
        let mut book = Self { file, rates: BTreeMap::new() };
        book.read();
        book
    }

    /// Takes what the file says; returns whether it says something that is no book.
    fn read(&mut self) -> bool {
        let Some(text) = self.file.as_ref().and_then(|file| std::fs::read(file).ok()) else { return false };
        match serde_json::from_slice(&text) {
            Ok(rates) => self.rates = rates,
            Err(_) => return true,
        }
        false
    }

    /// How long all of this will take on a machine, such as "cpu f32, 8 threads"; `None` where nothing like one of it was measured.
    pub fn estimate(&self, machine: &str, amounts: &[Amount]) -> Option<Estimate> {
        let rates = self.rates.get(machine)?;
        amounts.iter().map(|amount| of_amount(rates, amount)).sum()
    }

    /// Notes how long some work took.
    pub fn note(&mut self, machine: &str, amount: Amount, took: Took) {
        if took.whole < LEAST_DURATION || amount.flops == 0 {
            return;
        }
        // Another run may have written since.
        let is_strange = self.read();
        let rates = self.rates.entry(machine.to_owned()).or_default();
        match took.attention {
            None => remember(rates, amount.stage.whole(), amount.class(), amount.flops, took.whole),
            Some(attention) => {
                let times = [attention, took.whole.saturating_sub(attention)];
                for ((kind, flops), time) in amount.stage.kinds().into_iter().zip(amount.by_kind()).zip(times) {
                    remember(rates, kind, amount.class(), flops, time);
                }
            }
        }
        // Estimates are a courtesy: a read-only home must not fail a run.
        let _ = self.write(is_strange);
    }

    fn write(&self, sets_aside: bool) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if sets_aside {
            std::fs::rename(file, file.with_extension("old.json"))?;
        }
        std::fs::write(file, serde_json::to_vec_pretty(&self.rates)?)
    }
}

/// Adds a rate to the last ones.
fn remember(rates: &mut Rates, kind: &str, class: u32, flops: u128, took: Duration) {
    if flops == 0 || took.is_zero() {
        return;
    }
    let runs = rates.entry(kind.to_owned()).or_default().entry(class).or_default();
    runs.push(flops as f64 / took.as_secs_f64());
    let forgotten = runs.len().saturating_sub(REMEMBERED);
    runs.drain(..forgotten);
}

/// By the rates of its kinds of work, or by that of the whole stage where that was measured nearer to its size.
fn of_amount(rates: &Rates, amount: &Amount) -> Option<Estimate> {
    let mut by_kind = Some((0, Estimate::default()));
    for (kind, flops) in amount.stage.kinds().into_iter().zip(amount.by_kind()).filter(|(_, flops)| *flops > 0) {
        let sum = |(away, sum): (u32, Estimate)| {
            of_kind(rates, kind, amount.class(), flops).map(|(other, time)| (away.max(other), sum + time))
        };
        by_kind = by_kind.and_then(sum);
    }
    let whole = of_kind(rates, amount.stage.whole(), amount.class(), amount.flops);
    by_kind.into_iter().chain(whole).min_by_key(|(away, _)| *away).map(|(_, time)| time)
}

/// By the rates of the nearest size, and how many doublings that is away.
fn of_kind(rates: &Rates, kind: &str, class: u32, flops: u128) -> Option<(u32, Estimate)> {
    let usable = |runs: &Vec<f64>| -> Vec<f64> {
        let mut runs: Vec<f64> = runs.iter().copied().filter(|rate| rate.is_finite() && *rate > 0.0).collect();
        runs.sort_by(f64::total_cmp);
        runs
    };
    let known = rates.get(kind)?.iter().map(|(measured, runs)| (measured.abs_diff(class), usable(runs)));
    let near = known.filter(|(away, runs)| *away <= FURTHEST && !runs.is_empty());
    let (away, runs) = near.min_by_key(|(away, _)| *away)?;
    let spread = SPREAD * SPREAD_PER_DOUBLING.powi(i32::try_from(away).unwrap_or(i32::MAX));
    let seconds = |rate: f64| Duration::try_from_secs_f64(flops as f64 / rate).unwrap_or(Duration::MAX);
    let (slowest, fastest) = (*runs.first()?, *runs.last()?);
    let median = runs[runs.len() / 2];
    let estimate = Estimate {
        about: seconds(median),
        least: seconds(fastest.max(median * spread)),
        most: seconds(slowest.min(median / spread)),
    };
    Some((away, estimate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "cpu f32, 2 threads";

    /// Work without attention.
    fn amount(tokens: usize, flops: u128) -> Amount {
        Amount { stage: Stage::Denoise, tokens, flops, attention_flops: 0 }
    }

    /// A time whose kinds of work cannot be told apart.
    fn whole(seconds: u64) -> Took {
        Took { whole: Duration::from_secs(seconds), attention: None }
    }

    fn apart(seconds: u64, attention: u64) -> Took {
        Took { attention: Some(Duration::from_secs(attention)), ..whole(seconds) }
    }

    fn times(book: &SpeedBook, amount: Amount) -> Option<[u64; 3]> {
        let estimate = book.estimate(MACHINE, &[amount])?;
        Some([estimate.least, estimate.about, estimate.most].map(|time| time.as_secs()))
    }

    fn seconds(book: &SpeedBook, tokens: usize, flops: u128) -> Option<[u64; 3]> {
        times(book, amount(tokens, flops))
    }

    #[test]
    fn a_noted_speed_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("deep/speeds.json"));
        for took in [whole(10), apart(10, 0)] {
            let _ = std::fs::remove_dir_all(folder.path().join("deep"));
            SpeedBook::at(file.clone()).note(MACHINE, amount(4096, 1000), took);
            let book = SpeedBook::at(file.clone());
            assert_eq!(seconds(&book, 4096, 10_000), Some([86, 100, 115]));
            assert_eq!(book.estimate("cuda bf16", &[amount(4096, 1)]), None);
            let decode = Amount { stage: Stage::Decode, ..amount(4096, 1) };
            assert_eq!(book.estimate(MACHINE, &[decode]), None, "another kind of work");
            assert_eq!(book.estimate(MACHINE, &[amount(4096, 1), decode]), None, "one of two is unknown");
            let twice = book.estimate(MACHINE, &[amount(4096, 10_000); 2]).expect("known");
            assert_eq!(twice.about, Duration::from_secs(200));
        }
    }

    /// A made-up machine does 1000 operations of products in a second, and 100 of attention.
    #[test]
    fn attention_has_a_speed_of_its_own() {
        let mut book = SpeedBook::at(None);
        let mixed = |tokens, products, attention_flops| Amount {
            attention_flops,
            ..amount(tokens, products + attention_flops)
        };
        book.note(MACHINE, mixed(4096, 90_000, 1000), apart(100, 10));
        // Sixteen times the tokens: 16 times the products, 256 times the attention. One rate for both would say about 1840 s.
        let [least, about, most] = times(&book, mixed(65_536, 1_440_000, 256_000)).expect("near enough");
        assert_eq!(about, 1440 + 2560);
        assert!(least < about && most > about, "{least} to {most}");
        assert_eq!(times(&book, mixed(4096, 0, 100)).map(|[_, about, _]| about), Some(1));
        let decode = Amount { stage: Stage::Decode, ..mixed(4096, 90_000, 1000) };
        assert_eq!(times(&book, decode), None, "a decoder's attention is another");
        book.note(MACHINE, decode, apart(20, 2));
        assert_eq!(times(&book, decode).map(|[_, about, _]| about), Some(20));
        assert_eq!(times(&book, mixed(4096, 90_000, 1000)).map(|[_, about, _]| about), Some(100));
    }

    #[test]
    fn a_whole_stage_counts_until_its_kinds_were_measured_as_near() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("speeds.json");
        // As versions before wrote it.
        std::fs::write(&file, format!("{{\"{MACHINE}\": {{\"denoise\": {{\"12\": [100.0]}}}}}}")).expect("written");
        let mut book = SpeedBook::at(Some(file.clone()));
        assert_eq!(seconds(&book, 4096, 1000).map(|[_, about, _]| about), Some(10));
        book.note(MACHINE, amount(16_384, 1000), apart(1, 0));
        assert_eq!(seconds(&book, 4096, 1000).map(|[_, about, _]| about), Some(10), "two doublings away");
        book.note(MACHINE, amount(4096, 1000), apart(5, 0));
        assert_eq!(seconds(&book, 4096, 1000).map(|[_, about, _]| about), Some(5));
        let kept = std::fs::read_to_string(&file).expect("readable");
        assert!(kept.contains("\"denoise\"") && kept.contains("\"products\""), "{kept}");
    }

    #[test]
    fn short_runs_say_nothing_and_one_that_was_disturbed_little() {
        let mut book = SpeedBook::at(None);
        for attention in [None, Some(Duration::from_millis(1))] {
            book.note(MACHINE, amount(16, 10), Took { whole: Duration::from_millis(999), attention });
        }
        assert_eq!(seconds(&book, 16, 10), None);
        for took in [10, 10, 100, 10, 10] {
            book.note(MACHINE, amount(4096, 1000), whole(took));
        }
        assert_eq!(seconds(&book, 4096, 1000), Some([8, 10, 100]), "the slow one is in the range alone");
        for _ in 0..20 {
            book.note(MACHINE, amount(4096, 1000), whole(20));
        }
        assert_eq!(seconds(&book, 4096, 1000), Some([17, 20, 23]), "what is long ago is forgotten");
    }

    #[test]
    fn the_nearest_size_counts_and_a_far_one_does_not() {
        let mut book = SpeedBook::at(None);
        // Small pictures are slow by operation.
        book.note(MACHINE, amount(16, 1000), apart(1000, 0));
        assert_eq!(seconds(&book, 65_536, 1_000_000), None, "64 px say nothing of 4096 px");
        book.note(MACHINE, amount(16_384, 100_000), apart(1, 0));
        let [least, about, most] = seconds(&book, 65_536, 10_000_000).expect("near enough");
        assert_eq!(about, 100);
        assert!(least < 60 && most > 190, "further away is less sure: {least} to {most}");
        assert_eq!(seconds(&book, 16, 1000).map(|[_, about, _]| about), Some(1000), "its own size");
    }

    #[test]
    fn what_is_no_book_is_set_aside_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, aside) = (folder.path().join("speeds.json"), folder.path().join("speeds.old.json"));
        for text in ["{\"cpu f32\": 3", "{\"cpu f32\": {\"denoise_flops_per_s\": 1}}", "[]", ""] {
            std::fs::write(&file, text).expect("written");
            let mut book = SpeedBook::at(Some(file.clone()));
            assert_eq!(book.estimate("cpu f32", &[amount(16, 1)]), None);
            book.note(MACHINE, amount(16, 1), whole(1));
            assert_eq!(std::fs::read_to_string(&aside).expect("set aside"), text);
            assert!(SpeedBook::at(Some(file.clone())).estimate(MACHINE, &[amount(16, 1)]).is_some());
        }
        let odd = format!("{{\"{MACHINE}\": {{\"denoise\": {{\"4\": [0, -1, 1e300]}}}}}}");
        std::fs::write(&file, odd).expect("written");
        assert!(SpeedBook::at(Some(file)).estimate(MACHINE, &[amount(16, 1)]).is_some());
    }

    #[test]
    fn what_two_runs_note_at_once_is_kept_of_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("speeds.json"));
        let (mut one, mut other) = (SpeedBook::at(file.clone()), SpeedBook::at(file.clone()));
        one.note(MACHINE, amount(16, 10), whole(1));
        other.note(MACHINE, amount(4096, 10), whole(1));
        let book = SpeedBook::at(file);
        assert!(seconds(&book, 16, 10).is_some() && seconds(&book, 4096, 10).is_some());
    }
}
