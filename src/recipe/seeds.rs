//! Lists of seeds: `1,2,5-8`, and n in a row.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::error::{Error, Result};

/// The most seeds of one list: more is a slip of the finger, or a year of pictures.
pub const MAX_SEEDS: usize = 100_000;

const HINT: &str = "give seeds and ranges such as 1,2,5-8; a seed is a whole number from 0 to 2^64 - 1";

/// Seeds that this process has drawn, so that they can be told of.
static DRAWN: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// A fresh seed: below 2^32, so that every generator and every other program takes all of it.
pub fn draw() -> u64 {
    let seed = RandomState::new().hash_one(SystemTime::now()) & u64::from(u32::MAX);
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
    seed
}

/// Whether nobody has chosen this seed: it was drawn for this run.
pub fn is_drawn(seed: u64) -> bool {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner).contains(&seed)
}

/// Seeds and inclusive ranges of seeds, separated by commas, in the order given; one that is named again is left out.
///
/// # Errors
/// [`Error::Request`] for a part that is neither a seed nor a range, a range whose end lies before its start, and more
/// than [`MAX_SEEDS`] seeds.
pub fn parse_seeds(text: &str) -> Result<Vec<u64>> {
    let refuse = |part: &str, why: &str| Error::request(format!("--seeds {}: {why}", clip(part)), HINT);
    let (mut seeds, mut seen) = (Vec::new(), HashSet::new());
    for part in text.split(',').map(str::trim) {
        let (first, last) = bounds(part).ok_or_else(|| refuse(part, "neither a seed nor a range of seeds"))?;
        if last < first {
            return Err(refuse(part, "the range ends before it starts"));
        }
        // Before the loop: a range of 2^64 seeds must not be walked through to be found too long.
        if last - first >= MAX_SEEDS as u64 {
            return Err(refuse(part, &format!("more than {MAX_SEEDS} seeds")));
        }
        seeds.extend((first..=last).filter(|seed| seen.insert(*seed)));
        if seeds.len() > MAX_SEEDS {
            return Err(refuse(text, &format!("more than {MAX_SEEDS} seeds")));
        }
    }
    Ok(seeds)
}

/// The `n` seeds from `seed` on: seed, seed + 1, ...
///
/// # Errors
/// [`Error::Request`] when `n` is 0 or more than [`MAX_SEEDS`], and when the last seed would pass 2^64 - 1.
pub fn consecutive(seed: u64, n: usize) -> Result<Vec<u64>> {
    if !(1..=MAX_SEEDS).contains(&n) {
        return Err(Error::request(format!("-n {n}: no number of pictures"), format!("ask for 1 to {MAX_SEEDS}")));
    }
    let last = seed.checked_add(n as u64 - 1).ok_or_else(|| {
        let what = format!("{n} seeds from {seed} on pass the largest seed, {}", u64::MAX);
        Error::request(what, "start from a smaller --seed")
    })?;
    Ok((seed..=last).collect())
}

/// First and last seed of a part; a single seed is both.
fn bounds(part: &str) -> Option<(u64, u64)> {
    match part.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(part).map(|seed| (seed, seed)),
    }
}

/// Digits alone: `u64::from_str` would take "+1" too.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// What is shown of a text that may be long.
fn clip(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(text: &str) -> String {
        parse_seeds(text).expect_err(text).to_string()
    }

    #[test]
    fn seeds_and_ranges_keep_their_order_and_come_once() {
        assert_eq!(parse_seeds("1,2,5-8").expect("seeds"), [1, 2, 5, 6, 7, 8]);
        assert_eq!(parse_seeds(" 9 , 3-5,4, 9,0").expect("seeds"), [9, 3, 4, 5, 0]);
        assert_eq!(parse_seeds("7-7").expect("seeds"), [7]);
        let last = u64::MAX;
        assert_eq!(parse_seeds(&format!("{}-{last}", last - 1)).expect("seeds"), [last - 1, last]);
    }

    #[test]
    fn what_is_no_list_of_seeds_is_refused() {
        for text in ["", ",", "1,,2", "a", "-5", "5-", "1-2-3", "1.5", "+1", "0x10", "18446744073709551616"] {
            let error = parse_seeds(text).expect_err(text);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("neither a seed nor a range"), "{error}");
            assert!(error.hint().expect("hint").contains("1,2,5-8"));
        }
        assert_eq!(message("8-5"), "--seeds \"8-5\": the range ends before it starts");
    }

    #[test]
    fn lists_that_are_too_long_are_refused_at_once() {
        assert_eq!(parse_seeds("1-100000").expect("just fits").len(), MAX_SEEDS);
        for text in ["0-100000", "0-18446744073709551615", "1-100000,200000", "1-60000,100001-160000"] {
            assert!(message(text).contains("more than 100000 seeds"), "{text}");
        }
        assert_eq!(parse_seeds("1-100000,5-10").expect("nothing new").len(), MAX_SEEDS);
    }

    #[test]
    fn consecutive_seeds_end_before_they_overflow() {
        assert_eq!(consecutive(42, 3).expect("seeds"), [42, 43, 44]);
        assert_eq!(consecutive(u64::MAX, 1).expect("the last"), [u64::MAX]);
        assert!(consecutive(u64::MAX, 2).expect_err("overflow").to_string().contains("18446744073709551615"));
        assert!(consecutive(0, 0).is_err());
        assert!(consecutive(0, MAX_SEEDS + 1).is_err());
    }

    proptest! {
        #[test]
        fn a_list_is_what_was_written(seeds in prop::collection::vec(any::<u64>(), 1..20)) {
            let text: Vec<String> = seeds.iter().map(u64::to_string).collect();
            let mut once = seeds.clone();
            let mut seen = HashSet::new();
            once.retain(|seed| seen.insert(*seed));
            prop_assert_eq!(parse_seeds(&text.join(",")).expect("seeds"), once);
        }

        #[test]
        fn no_text_panics(text in "[-0-9, a+é]{0,40}") {
            let _ = parse_seeds(&text);
        }
    }
}
