//! One machine's part of a batch.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// Part I of N of a batch, counted from 1: every N-th item, beginning with item I.
///
/// N processes with the shards 1/N, 2/N, ..., N/N make every item exactly once. Long and short items lie mixed, as every
/// part takes from the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Part `index` (from 1) of `count`.
    ///
    /// # Errors
    /// [`Error::Request`] unless 1 <= index <= count.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        if (1..=count).contains(&index) {
            return Ok(Self { index, count });
        }
        let what = match (index, count) {
            (_, 0) => format!("--shard {index}/0: there is no batch of 0 parts"),
            (0, _) => format!("--shard 0/{count}: parts are counted from 1"),
            _ => format!("--shard {index}/{count}: there are only {count} parts"),
        };
        let parts = count.max(1);
        let hint = format!(
            "use 1/{parts} to {parts}/{parts}; add one to an index that starts from 0, such as JOB_COMPLETION_INDEX or an \
             array task of --array=0-..."
        );
        Err(Error::request(what, hint))
    }

    /// I, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// N.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether this part makes the item with this index, counted from 0 over the whole batch.
    pub fn takes(self, item_index: usize) -> bool {
        item_index % self.count == self.index - 1
    }
}

impl Default for Shard {
    /// The whole batch: 1/1.
    fn default() -> Self {
        Self { index: 1, count: 1 }
    }
}

impl FromStr for Shard {
    type Err = Error;

    /// `I/N`, I counted from 1.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((number(index)?, number(count)?)));
        match parts {
            Some((index, count)) => Self::new(index, count),
            None => {
                let what = format!("--shard {text:?}: not of the form I/N");
                Err(Error::request(what, "use 1/4, 2/4, 3/4 and 4/4 on four machines: parts are counted from 1"))
            }
        }
    }
}

/// Digits alone: `usize::from_str` would take "+1" too.
fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_three_takes_every_third_from_the_first_on() {
        let shard: Shard = "1/3".parse().expect("a shard");
        let taken: Vec<usize> = (0..10).filter(|item| shard.takes(*item)).collect();
        assert_eq!(taken, [0, 3, 6, 9]);
        assert_eq!((shard.index(), shard.count()), (1, 3));
        assert!((0..100).all(|item| Shard::default().takes(item)));
    }

    #[test]
    fn what_is_no_part_is_refused_with_the_count_from_one() {
        for (text, what) in [("0/4", "counted from 1"), ("5/4", "only 4 parts"), ("1/0", "0 parts")] {
            let error = text.parse::<Shard>().expect_err(text);
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.hint().expect("hint").contains("starts from 0"));
        }
        for text in ["", "3", "/", "1/", "/4", "a/b", "-1/4", "+1/4", "1/4/4", "1 / 4", "1.0/4"] {
            let error = text.parse::<Shard>().expect_err(text);
            assert!(error.to_string().contains("I/N"), "{error}");
            assert!(error.hint().expect("hint").contains("counted from 1"));
        }
    }

    proptest! {
        #[test]
        fn shards_are_a_partition(count in 1usize..50, item in 0usize..10_000) {
            let takers = (1..=count).filter(|index| Shard::new(*index, count).expect("valid").takes(item)).count();
            prop_assert_eq!(takers, 1);
        }

        #[test]
        fn shards_differ_by_one_item_at_most(count in 1usize..20, items in 0usize..200) {
            let shards = (1..=count).map(|index| Shard::new(index, count).expect("valid"));
            let sizes: Vec<usize> = shards.map(|shard| (0..items).filter(|i| shard.takes(*i)).count()).collect();
            prop_assert_eq!(sizes.iter().sum::<usize>(), items);
            prop_assert!(sizes.iter().max().expect("one") - sizes.iter().min().expect("one") <= 1);
        }

        #[test]
        fn text_goes_both_ways(count in 1usize..1000, index in 1usize..1000) {
            prop_assume!(index <= count);
            let shard = Shard::new(index, count).expect("valid");
            prop_assert_eq!(shard.to_string().parse::<Shard>().expect("a shard"), shard);
        }
    }
}
