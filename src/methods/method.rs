//! Names for the scalers, and the way from settings to one.

use std::fmt;
use std::str::FromStr;

use super::{Base, DypeSchedule, Ntk, PositionScaler, Thresholds, Yarn};

/// Which scaler is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// [`Base`]: the frequencies of training.
    Base,
    /// [`Ntk`]: a larger theta.
    Ntk,
    /// [`Yarn`]: interpolation, NTK and native frequencies by parts.
    #[default]
    Yarn,
}

/// What differs from the paper's DyPE, where anything does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DypeSettings {
    /// lambda_s in place of the paper's for the method.
    pub scale: Option<f64>,
    /// lambda_t in place of the paper's for the method.
    pub exponent: Option<f64>,
    /// How kappa moves the thresholds of [`Method::Yarn`].
    pub thresholds: Thresholds,
}

/// A word that names nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// What was asked for, for example "method".
    pub kind: &'static str,
    /// The word.
    pub found: String,
    /// The words that would do.
    pub known: &'static [&'static str],
}

impl Method {
    /// Every method, the plainest first.
    pub const ALL: [Self; 3] = [Self::Base, Self::Ntk, Self::Yarn];
    /// The name of each of [`Method::ALL`].
    pub const NAMES: [&str; 3] = ["base", "ntk", "yarn"];

    /// The word that names this method on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Ntk => "ntk",
            Self::Yarn => "yarn",
        }
    }

    /// DyPE's schedule for this method: the settings', else the paper's. None for `base`, which nothing moves.
    pub fn schedule(self, dype: DypeSettings) -> Option<DypeSchedule> {
        let paper = match self {
            Self::Base => return None,
            Self::Ntk => DypeSchedule::NTK,
            Self::Yarn => DypeSchedule::YARN,
        };
        Some(DypeSchedule {
            scale: dype.scale.unwrap_or(paper.scale),
            exponent: dype.exponent.unwrap_or(paper.exponent),
        })
    }

    /// The scaler: dynamic with `dype`, static without.
    pub fn scaler(self, dype: Option<DypeSettings>) -> Box<dyn PositionScaler> {
        let schedule = dype.and_then(|dype| self.schedule(dype));
        match self {
            Self::Base => Box::new(Base),
            Self::Ntk => Box::new(Ntk { dype: schedule }),
            Self::Yarn => Box::new(Yarn { dype: schedule, thresholds: dype.unwrap_or_default().thresholds }),
        }
    }
}

impl Thresholds {
    /// Every rule, the paper's first.
    pub const ALL: [Self; 2] = [Self::Product, Self::Power];
    /// The name of each of [`Thresholds::ALL`].
    pub const NAMES: [&str; 2] = ["product", "power"];

    /// The word that names this rule on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Power => "power",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownName;

    fn from_str(word: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName { kind: "method", found: word.into(), known: &Self::NAMES };
        Self::ALL.into_iter().find(|method| method.name() == word).ok_or_else(unknown)
    }
}

impl FromStr for Thresholds {
    type Err = UnknownName;

    fn from_str(word: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName { kind: "thresholds", found: word.into(), known: &Self::NAMES };
        Self::ALL.into_iter().find(|rule| rule.name() == word).ok_or_else(unknown)
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} {:?}: expected one of {}", self.kind, self.found, self.known.join(", "))
    }
}

impl std::error::Error for UnknownName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        assert_eq!(Method::ALL.map(Method::name), Method::NAMES);
        assert_eq!(Thresholds::ALL.map(Thresholds::name), Thresholds::NAMES);
        for method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        for rule in Thresholds::ALL {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    }

    #[test]
    fn an_unknown_name_says_what_there_is() {
        let error = "yam".parse::<Method>().expect_err("no such method");
        assert_eq!(error.to_string(), "unknown method \"yam\": expected one of base, ntk, yarn");
    }

    #[test]
    fn settings_override_the_papers_numbers_one_by_one() {
        let half = DypeSettings { scale: Some(0.5), ..DypeSettings::default() };
        assert_eq!(Method::Ntk.schedule(DypeSettings::default()), Some(DypeSchedule::NTK));
        assert_eq!(Method::Ntk.schedule(half), Some(DypeSchedule { scale: 0.5, exponent: 2.0 }));
        assert_eq!(Method::Yarn.schedule(half), Some(DypeSchedule { scale: 0.5, exponent: 2.0 }));
        assert_eq!(Method::Base.schedule(half), None);
    }
}
