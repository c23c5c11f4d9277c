//! How fast this machine was the last times: what turns operations into an estimate of seconds.
//!
//! Rates are kept by device, number type and threads, by kind of work and by size: small pictures keep no machine busy, and
//! attention weighs more in large ones. Of each the last few runs count, by their median; one that took under a second says nothing.

use std::{collections::BTreeMap, iter::Sum, ops::Add, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

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

/// Kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Steps of the transformer: products and attention, in shares that follow from the size.
    Denoise,
    /// Convolutions.
    Decode,
}

/// Work of one kind on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// The kind.
    pub work: Work,
    /// Tokens of the picture.
    pub tokens: usize,
    /// Floating point operations.
    pub flops: u128,
}

impl Amount {
    /// Pictures within a factor of two in their tokens are alike.
    fn class(&self) -> u32 {
        self.tokens.max(1).ilog2()
    }
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
type Rates = BTreeMap<Work, BTreeMap<u32, Vec<f64>>>;

/// Rates by machine, kept in a small file between runs. It only serves estimates: a file that cannot be read or written is no
/// error.
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
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let rates = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { file, rates }
    }

    /// How long all of this will take on a machine, such as "cpu f32, 8 threads"; `None` where nothing like one of it was measured.
    pub fn estimate(&self, machine: &str, amounts: &[Amount]) -> Option<Estimate> {
        let rates = self.rates.get(machine)?;
        amounts.iter().map(|amount| of_amount(rates, amount)).sum()
    }

    /// Notes how long some work took.
    pub fn note(&mut self, machine: &str, amount: Amount, took: Duration) {
        if took < LEAST_DURATION || amount.flops == 0 {
            return;
        }
        let of_work = self.rates.entry(machine.to_owned()).or_default().entry(amount.work).or_default();
        let runs = of_work.entry(amount.class()).or_default();
        runs.push(amount.flops as f64 / took.as_secs_f64());
        let forgotten = runs.len().saturating_sub(REMEMBERED);
        runs.drain(..forgotten);
        let Some(file) = &self.file else { return };
        let Ok(text) = serde_json::to_string_pretty(&self.rates) else { return };
        // Estimates are a courtesy: a read-only home must not fail a run.
        let _ = file.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(file, text);
    }
}

/// By the rates of the nearest size.
fn of_amount(rates: &Rates, amount: &Amount) -> Option<Estimate> {
    let usable = |runs: &Vec<f64>| -> Vec<f64> {
        let mut runs: Vec<f64> = runs.iter().copied().filter(|rate| rate.is_finite() && *rate > 0.0).collect();
        runs.sort_by(f64::total_cmp);
        runs
    };
    let known = rates.get(&amount.work)?.iter().map(|(class, runs)| (class.abs_diff(amount.class()), usable(runs)));
    let near = known.filter(|(away, runs)| *away <= FURTHEST && !runs.is_empty());
    let (away, runs) = near.min_by_key(|(away, _)| *away)?;
    let spread = SPREAD * SPREAD_PER_DOUBLING.powi(i32::try_from(away).unwrap_or(i32::MAX));
    let seconds = |rate: f64| Duration::try_from_secs_f64(amount.flops as f64 / rate).unwrap_or(Duration::MAX);
    let (slowest, fastest) = (*runs.first()?, *runs.last()?);
    let median = runs[runs.len() / 2];
    Some(Estimate {
        about: seconds(median),
        least: seconds(fastest.max(median * spread)),
        most: seconds(slowest.min(median / spread)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "cpu f32, 2 threads";

    fn amount(tokens: usize, flops: u128) -> Amount {
        Amount { work: Work::Denoise, tokens, flops }
    }

    fn seconds(book: &SpeedBook, tokens: usize, flops: u128) -> Option<[u64; 3]> {
        let estimate = book.estimate(MACHINE, &[amount(tokens, flops)])?;
        Some([estimate.least, estimate.about, estimate.most].map(|time| time.as_secs()))
    }

    #[test]
    fn a_noted_speed_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("deep/speeds.json"));
        SpeedBook::at(file.clone()).note(MACHINE, amount(4096, 1000), Duration::from_secs(10));
        let book = SpeedBook::at(file);
        assert_eq!(seconds(&book, 4096, 10_000), Some([86, 100, 115]));
        assert_eq!(book.estimate("cuda bf16", &[amount(4096, 1)]), None);
        let decode = Amount { work: Work::Decode, ..amount(4096, 1) };
        assert_eq!(book.estimate(MACHINE, &[decode]), None, "another kind of work");
        assert_eq!(book.estimate(MACHINE, &[amount(4096, 1), decode]), None, "one of two is unknown");
        let twice = book.estimate(MACHINE, &[amount(4096, 10_000); 2]).expect("known");
        assert_eq!(twice.about, Duration::from_secs(200));
    }

    #[test]
    fn short_runs_say_nothing_and_one_that_was_disturbed_little() {
        let mut book = SpeedBook::at(None);
        book.note(MACHINE, amount(16, 10), Duration::from_millis(999));
        assert_eq!(seconds(&book, 16, 10), None);
        for took in [10, 10, 100, 10, 10] {
            book.note(MACHINE, amount(4096, 1000), Duration::from_secs(took));
        }
        assert_eq!(seconds(&book, 4096, 1000), Some([8, 10, 100]), "the slow one is in the range alone");
        for _ in 0..20 {
            book.note(MACHINE, amount(4096, 1000), Duration::from_secs(20));
        }
        assert_eq!(seconds(&book, 4096, 1000), Some([17, 20, 23]), "what is long ago is forgotten");
    }

    #[test]
    fn the_nearest_size_counts_and_a_far_one_does_not() {
        let mut book = SpeedBook::at(None);
        // Small pictures are slow by operation.
        book.note(MACHINE, amount(16, 1000), Duration::from_secs(1000));
        assert_eq!(seconds(&book, 65_536, 1_000_000), None, "64 px say nothing of 4096 px");
        book.note(MACHINE, amount(16_384, 100_000), Duration::from_secs(1));
        let [least, about, most] = seconds(&book, 65_536, 10_000_000).expect("near enough");
        assert_eq!(about, 100);
        assert!(least < 60 && most > 190, "further away is less sure: {least} to {most}");
        assert_eq!(seconds(&book, 16, 1000).map(|[_, about, _]| about), Some(1000), "its own size");
    }

    #[test]
    fn a_damaged_book_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("speeds.json");
        for text in ["{\"cpu f32\": 3", "{\"cpu f32\": {\"denoise_flops_per_s\": 1}}", "[]"] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(SpeedBook::at(Some(file.clone())).estimate("cpu f32", &[amount(16, 1)]), None);
        }
        let odd = format!("{{\"{MACHINE}\": {{\"denoise\": {{\"4\": [0, -1, 1e300]}}}}}}");
        std::fs::write(&file, odd).expect("written");
        assert!(SpeedBook::at(Some(file)).estimate(MACHINE, &[amount(16, 1)]).is_some());
    }
}
