//! Step caches: steps whose velocity is not computed but taken from those before. What they do is in `sampling` and `models`.

use std::{fmt, str::FromStr};

use super::numbers::NumberOrText;
use crate::error::{Error, Result};

/// Which steps are taken from those before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum StepCache {
    /// None: every step is computed.
    #[default]
    Off,
    /// EasyCache: steps whose velocity is expected to differ by less than this part from the last one that was computed.
    Easy(f64),
    /// Steps in which the change that the transformer's first block makes differs by no more than this part.
    FirstBlock(f64),
}

/// What step caches are asked for with.
pub const STEP_CACHE: NumberOrText<StepCache> = NumberOrText {
    of_number: StepCache::Easy,
    is_in_range: StepCache::is_in_range,
    wanted: "a threshold above 0, such as 0.2 (EasyCache) or first-block:0.05, or off",
};

impl StepCache {
    /// The usual threshold of EasyCache. Source: ComfyUI.
    const EASY: f64 = 0.2;
    /// The usual threshold of the first block's. Source: diffusers, `FirstBlockCacheConfig`.
    const FIRST_BLOCK: f64 = 0.05;

    /// What it is, for people.
    pub fn in_words(self) -> String {
        match self {
            Self::Off => self.to_string(),
            Self::Easy(threshold) => format!("EasyCache at {threshold}"),
            Self::FirstBlock(threshold) => format!("first block at {threshold}"),
        }
    }

    fn threshold(self) -> Option<f64> {
        match self {
            Self::Off => None,
            Self::Easy(threshold) | Self::FirstBlock(threshold) => Some(threshold),
        }
    }

    fn is_in_range(&self) -> bool {
        self.threshold().is_none_or(|threshold| threshold > 0.0 && threshold.is_finite())
    }
}

impl FromStr for StepCache {
    type Err = Error;

    /// `off`, a threshold of EasyCache, or a name with or without `:THRESHOLD`.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.trim().to_ascii_lowercase().replace('_', "-");
        let (name, number) = match lower.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None if lower.parse::<f64>().is_ok() => ("easy", Some(lower.as_str())),
            None => (lower.as_str(), None),
        };
        let number = number.map(|number| number.trim().parse::<f64>().ok());
        let of = |usual: f64| number.unwrap_or(Some(usual));
        let found = match name {
            "off" => number.is_none().then_some(Self::Off),
            "easy" | "easycache" => of(Self::EASY).map(Self::Easy),
            "first-block" | "fbcache" => of(Self::FIRST_BLOCK).map(Self::FirstBlock),
            _ => None,
        };
        let wrong = || Error::request(format!("--cache {text}: no step cache"), STEP_CACHE.wanted);
        found.filter(Self::is_in_range).ok_or_else(wrong)
    }
}

impl fmt::Display for StepCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Easy(threshold) => write!(f, "{threshold}"),
            Self::FirstBlock(threshold) => write!(f, "first-block:{threshold}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Kind;

    #[test]
    fn a_number_is_easycaches_threshold() {
        for (text, cache) in [
            ("0.2", StepCache::Easy(0.2)),
            ("easy", StepCache::Easy(0.2)),
            ("easy:0.3", StepCache::Easy(0.3)),
            ("first-block", StepCache::FirstBlock(0.05)),
            ("First_Block:0.08", StepCache::FirstBlock(0.08)),
            ("off", StepCache::Off),
        ] {
            assert_eq!(text.parse::<StepCache>().ok(), Some(cache), "{text}");
            assert_eq!(cache.to_string().parse::<StepCache>().ok(), Some(cache));
            assert_eq!(STEP_CACHE.read_saved(&STEP_CACHE.to_json(&cache)), Some(cache));
        }
        assert_eq!(STEP_CACHE.read_json(&0.2.into()), Some(StepCache::Easy(0.2)));
    }

    #[test]
    fn what_is_no_threshold_is_refused_in_words() {
        for text in
            ["0", "-0.1", "nan", "inf", "", "first-block:", "first-block:0", "off:1", "teacache:0.2", "0.2:easy"]
        {
            let message = STEP_CACHE.parse(text).expect_err(text);
            assert!(message.contains("first-block:0.05") && message.contains("off"), "{message}");
        }
        assert_eq!(STEP_CACHE.read_json(&0.into()), None);
        assert_eq!(STEP_CACHE.read_json(&true.into()), None);
    }
}
