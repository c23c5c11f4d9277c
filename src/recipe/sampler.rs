//! Which sampler follows the velocities, and over which sigmas: names. What they compute is in `sampling`.

use std::{fmt, str::FromStr};

use super::spelt::Word;
use crate::error::{Error, Result};

/// A sampler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SamplerName {
    /// One evaluation a step, of first order.
    #[default]
    Euler,
    /// Two evaluations a step but for the last, of second order.
    Heun,
    /// One evaluation a step, of second order over the step before.
    Dpmpp2m,
    /// One evaluation a step, of third order over the steps before, with fresh noise.
    ErSde,
}

impl SamplerName {
    /// Its names, and what else people write.
    pub const WORDS: &[Word] = &[
        Word { name: "euler", also: &[] },
        Word { name: "heun", also: &[] },
        Word { name: "dpmpp-2m", also: &["dpmpp_2m", "dpm++2m", "dpm++-2m", "dpm++_2m", "dpm++ 2m"] },
        Word { name: "er-sde", also: &["er_sde", "er sde"] },
    ];

    const ALL: [Self; 4] = [Self::Euler, Self::Heun, Self::Dpmpp2m, Self::ErSde];

    /// What A1111's web UI and its kin call it.
    pub fn elsewhere(self) -> &'static str {
        match self {
            Self::Euler => "Euler",
            Self::Heun => "Heun",
            Self::Dpmpp2m => "DPM++ 2M",
            Self::ErSde => "ER SDE",
        }
    }

    /// How often so many steps ask for a velocity; the last of them leads to sigma 0.
    pub fn evaluations(self, steps: usize) -> usize {
        match self {
            Self::Heun => (2 * steps).saturating_sub(1),
            Self::Euler | Self::Dpmpp2m | Self::ErSde => steps,
        }
    }

    /// Tensors of the latents' size that it holds beside those of a step of Euler's.
    pub fn tensors(self) -> usize {
        match self {
            Self::Euler => 0,
            // The latents before the step and the first velocity wait for the second; D of the step before, and this one's.
            Self::Heun | Self::Dpmpp2m => 2,
            // D and its slope of the step before, and this one's.
            Self::ErSde => 4,
        }
    }
}

impl FromStr for SamplerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Word::index_of(Self::WORDS, text).map(|index| Self::ALL[index]);
        found.ok_or_else(|| Error::request(format!("--sampler {text}: unknown sampler"), Word::listed(Self::WORDS)))
    }
}

impl fmt::Display for SamplerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS[*self as usize].name)
    }
}

/// How steps are spread over the sigmas, before the time shift moves them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// Evenly, as diffusers' pipelines ask.
    #[default]
    Uniform,
    /// Evenly over a table of 10,000 sigmas, as ComfyUI's `simple`.
    Simple,
    /// By the quantiles of Beta(0.6, 0.6), denser at both ends, from the same table: ComfyUI's `beta` (arXiv 2407.12173).
    Beta,
}

impl Spacing {
    /// Its names, and what else people write.
    pub const WORDS: &[Word] = &[
        Word { name: "uniform", also: &["shifted"] },
        Word { name: "simple", also: &[] },
        Word { name: "beta", also: &[] },
    ];

    const ALL: [Self; 3] = [Self::Uniform, Self::Simple, Self::Beta];

    /// What A1111's web UI and its kin call it; they have no name for the usual one.
    pub fn elsewhere(self) -> Option<&'static str> {
        match self {
            Self::Uniform => None,
            Self::Simple => Some("Simple"),
            Self::Beta => Some("Beta"),
        }
    }
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Word::index_of(Self::WORDS, text).map(|index| Self::ALL[index]);
        found.ok_or_else(|| Error::request(format!("--schedule {text}: unknown schedule"), Word::listed(Self::WORDS)))
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS[*self as usize].name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_known_by_what_people_write_and_by_what_others_call_them() {
        for (index, sampler) in SamplerName::ALL.into_iter().enumerate() {
            let Word { name, also } = SamplerName::WORDS[index];
            let spellings = also.iter().chain([&name]).copied().map(str::to_owned);
            for text in spellings.chain([sampler.elsewhere().to_owned(), name.to_uppercase()]) {
                assert_eq!(text.parse::<SamplerName>().ok(), Some(sampler), "{text}");
            }
            assert_eq!(sampler.to_string(), name);
        }
        let error = "ddim".parse::<SamplerName>().expect_err("not a flow's");
        assert!(error.hint().is_some_and(|hint| hint.contains("dpmpp-2m")), "{error}");
    }

    #[test]
    fn schedules_are_known_by_what_people_write() {
        for spacing in Spacing::ALL {
            assert_eq!(spacing.to_string().parse::<Spacing>().ok(), Some(spacing));
            let elsewhere = spacing.elsewhere().map(|text| text.parse::<Spacing>().ok());
            assert!(elsewhere.is_none_or(|found| found == Some(spacing)));
        }
        assert!("karras".parse::<Spacing>().is_err());
    }

    #[test]
    fn heun_asks_twice_but_for_the_last_step() {
        assert_eq!([0, 1, 2, 28].map(|steps| SamplerName::Heun.evaluations(steps)), [0, 1, 3, 55]);
        assert_eq!(SamplerName::ErSde.evaluations(28), 28);
    }
}
