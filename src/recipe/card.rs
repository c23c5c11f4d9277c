//! The NVIDIA cards whose launch geometry, and with it PyTorch's CUDA noise, is known.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// The part of a card that decides how PyTorch lays out its random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// `multiProcessorCount`.
    pub multiprocessors: usize,
    /// `maxThreadsPerMultiProcessor`.
    pub threads_per_multiprocessor: usize,
}

/// Threads a multiprocessor holds, by compute capability (CUDA C++ Programming Guide, table "Technical Specifications per
/// Compute Capability"): 7.0, 8.0, 9.0, 10.0 hold 2048; 7.5 holds 1024; 8.6, 8.9, 12.0 hold 1536.
const DATACENTER: usize = 2048;
const TURING: usize = 1024;
const AMPERE_ADA_BLACKWELL: usize = 1536;

/// Name, multiprocessors (NVIDIA's data sheets and architecture papers), threads each.
const CARDS: &[(&str, usize, usize)] = &[
    ("v100", 80, DATACENTER),
    ("a100", 108, DATACENTER),
    ("a30", 56, DATACENTER),
    ("h100", 132, DATACENTER),
    ("h100-pcie", 114, DATACENTER),
    ("h200", 132, DATACENTER),
    ("gh200", 132, DATACENTER),
    ("b200", 148, DATACENTER),
    ("t4", 40, TURING),
    ("rtx2060", 30, TURING),
    ("rtx2070", 36, TURING),
    ("rtx2080", 46, TURING),
    ("rtx2080ti", 68, TURING),
    ("a10", 72, AMPERE_ADA_BLACKWELL),
    ("a10g", 80, AMPERE_ADA_BLACKWELL),
    ("a40", 84, AMPERE_ADA_BLACKWELL),
    ("a4000", 48, AMPERE_ADA_BLACKWELL),
    ("a5000", 64, AMPERE_ADA_BLACKWELL),
    ("a6000", 84, AMPERE_ADA_BLACKWELL),
    ("rtx3060", 28, AMPERE_ADA_BLACKWELL),
    ("rtx3060ti", 38, AMPERE_ADA_BLACKWELL),
    ("rtx3070", 46, AMPERE_ADA_BLACKWELL),
    ("rtx3070ti", 48, AMPERE_ADA_BLACKWELL),
    ("rtx3080", 68, AMPERE_ADA_BLACKWELL),
    ("rtx3080-12gb", 70, AMPERE_ADA_BLACKWELL),
    ("rtx3080ti", 80, AMPERE_ADA_BLACKWELL),
    ("rtx3090", 82, AMPERE_ADA_BLACKWELL),
    ("rtx3090ti", 84, AMPERE_ADA_BLACKWELL),
    ("l4", 58, AMPERE_ADA_BLACKWELL),
    ("l40", 142, AMPERE_ADA_BLACKWELL),
    ("l40s", 142, AMPERE_ADA_BLACKWELL),
    ("6000-ada", 142, AMPERE_ADA_BLACKWELL),
    ("rtx4060", 24, AMPERE_ADA_BLACKWELL),
    ("rtx4060ti", 34, AMPERE_ADA_BLACKWELL),
    ("rtx4070", 46, AMPERE_ADA_BLACKWELL),
    ("rtx4070super", 56, AMPERE_ADA_BLACKWELL),
    ("rtx4070ti", 60, AMPERE_ADA_BLACKWELL),
    ("rtx4070tisuper", 66, AMPERE_ADA_BLACKWELL),
    ("rtx4080", 76, AMPERE_ADA_BLACKWELL),
    ("rtx4080super", 80, AMPERE_ADA_BLACKWELL),
    ("rtx4090", 128, AMPERE_ADA_BLACKWELL),
    ("rtx5060ti", 36, AMPERE_ADA_BLACKWELL),
    ("rtx5070", 48, AMPERE_ADA_BLACKWELL),
    ("rtx5070ti", 70, AMPERE_ADA_BLACKWELL),
    ("rtx5080", 84, AMPERE_ADA_BLACKWELL),
    ("rtx5090", 170, AMPERE_ADA_BLACKWELL),
];

/// More than any card has, and few enough that products stay far from overflow.
const MOST_MULTIPROCESSORS: usize = 65_536;

impl Card {
    /// An H100: what `torch-cuda` means where no card is in use.
    pub const DEFAULT: Self = Self { multiprocessors: 132, threads_per_multiprocessor: DATACENTER };

    /// A card that the table does not know, by its geometry; `None` where no card can be like that.
    pub fn custom(multiprocessors: usize, threads_per_multiprocessor: usize) -> Option<Self> {
        let plausible = (1..=MOST_MULTIPROCESSORS).contains(&multiprocessors)
            && (256..=4096).contains(&threads_per_multiprocessor)
            && threads_per_multiprocessor.is_multiple_of(256);
        plausible.then_some(Self { multiprocessors, threads_per_multiprocessor })
    }

    /// Names of the cards that are known.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CARDS.iter().map(|(name, ..)| *name)
    }
}

impl FromStr for Card {
    type Err = Error;

    /// A card's name (case, spaces and underscores do not matter), or its geometry as `132x2048`: multiprocessors x threads each.
    fn from_str(text: &str) -> Result<Self> {
        let asked = text.to_lowercase().replace([' ', '_'], "-");
        let plain = |name: &str| name.replace('-', "");
        if let Some((_, count, threads)) = CARDS.iter().find(|(name, ..)| plain(name) == plain(&asked)) {
            return Ok(Self { multiprocessors: *count, threads_per_multiprocessor: *threads });
        }
        let geometry =
            asked.split_once('x').and_then(|(count, threads)| Self::custom(count.parse().ok()?, threads.parse().ok()?));
        geometry.ok_or_else(|| unknown_card(text, &asked))
    }
}

fn unknown_card(text: &str, asked: &str) -> Error {
    let likeness = |name: &str| strsim::jaro_winkler(name, asked);
    let nearest = Card::names().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or("h100");
    let hint = format!(
        "the nearest known card is {nearest}; any other goes by its multiprocessors and the threads of each, \
         such as torch-cuda:132x2048 (torch.cuda.get_device_properties tells both)"
    );
    Error::request(format!("--rng torch-cuda:{text}: unknown card"), hint)
}

impl fmt::Display for Card {
    /// The first name of this geometry in the table, or the geometry: cards alike make the same noise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, threads) = (self.multiprocessors, self.threads_per_multiprocessor);
        match CARDS.iter().find(|(_, c, t)| (*c, *t) == (count, threads)) {
            Some((name, ..)) => f.write_str(name),
            None => write!(f, "{count}x{threads}"),
        }
    }
}
