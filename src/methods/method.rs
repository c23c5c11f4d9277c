//! The registry of methods, and the way from a name and settings to a scaler.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use super::{Base, DypeSchedule, DypeSettings, Knobs, MethodSpec, Ntk, Pi, PositionScaler, Sega, Tuning, Yarn};

/// A method of the registry, or one that a caller of the library brings along; two with one name are the same.
#[derive(Clone, Copy)]
pub struct Method(&'static MethodSpec);

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
    /// [`Base`]: the frequencies of training.
    pub const BASE: Self = Self(&Base::SPEC);
    /// [`Pi`]: all pairs slowed alike.
    pub const PI: Self = Self(&Pi::SPEC);
    /// [`Ntk`]: a larger theta.
    pub const NTK: Self = Self(&Ntk::SPEC);
    /// [`Yarn`]: interpolation, NTK and native frequencies by parts.
    pub const YARN: Self = Self(&Yarn::SPEC);
    /// [`Sega`]: amplitudes from the spectrum of the latents.
    pub const SEGA: Self = Self(&Sega::SPEC);

    /// Every method: those of DyPE's paper from the plainest on, then others.
    pub const ALL: &[Self] = &[Self::BASE, Self::NTK, Self::YARN, Self::SEGA, Self::PI];
    /// The name of each of [`Method::ALL`].
    pub const NAMES: [&str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Self::ALL[index].0.name;
            index += 1;
        }
        names
    };

    /// A method that is not in the registry.
    pub const fn new(spec: &'static MethodSpec) -> Self {
        Self(spec)
    }

    /// What it says of itself.
    pub fn spec(self) -> &'static MethodSpec {
        self.0
    }

    /// The word that names this method on the command line and in files.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// DyPE's schedule for this method: the settings', else the paper's. `None` where DyPE has nothing to move.
    pub fn schedule(self, dype: DypeSettings) -> Option<DypeSchedule> {
        self.0.dype.map(|paper| DypeSchedule {
            scale: dype.scale.unwrap_or(paper.scale),
            exponent: dype.exponent.unwrap_or(paper.exponent),
        })
    }

    /// The scaler: dynamic with `dype`, static without.
    pub fn scaler(self, dype: Option<DypeSettings>) -> Box<dyn PositionScaler> {
        (self.0.scaler)(self.tuning(dype))
    }

    /// The same, tuned where the method has such knobs.
    pub fn tuned(self, dype: Option<DypeSettings>, knobs: Knobs) -> Box<dyn PositionScaler> {
        (self.0.scaler)(Tuning { knobs, ..self.tuning(dype) })
    }

    fn tuning(self, dype: Option<DypeSettings>) -> Tuning {
        let thresholds = dype.unwrap_or_default().thresholds;
        Tuning { dype: dype.and_then(|dype| self.schedule(dype)), thresholds, knobs: Knobs::default() }
    }
}

impl Default for Method {
    fn default() -> Self {
        Self::YARN
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Method {}

impl Hash for Method {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownName;

    fn from_str(word: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName { kind: "method", found: word.into(), known: &Self::NAMES };
        Self::ALL.iter().copied().find(|method| method.name() == word).ok_or_else(unknown)
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
    fn names_go_both_ways_and_name_one_method() {
        assert_eq!(Method::NAMES, ["base", "ntk", "yarn", "sega", "pi"]);
        for &method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        for (index, name) in Method::NAMES.iter().enumerate() {
            assert!(!Method::NAMES[..index].contains(name), "{name}");
        }
    }

    #[test]
    fn a_scaler_says_which_method_it_is_of() {
        for method in Method::ALL {
            assert_eq!(method.scaler(Some(DypeSettings::default())).spec().name, method.name());
        }
    }

    #[test]
    fn an_unknown_name_says_what_there_is() {
        let error = "yam".parse::<Method>().expect_err("no such method");
        assert_eq!(error.to_string(), "unknown method \"yam\": expected one of base, ntk, yarn, sega, pi");
    }

    #[test]
    fn settings_override_the_papers_numbers_one_by_one() {
        let half = DypeSettings { scale: Some(0.5), ..DypeSettings::default() };
        assert_eq!(Method::NTK.schedule(DypeSettings::default()), Some(DypeSchedule { scale: 2.0, exponent: 2.0 }));
        assert_eq!(Method::NTK.schedule(half), Some(DypeSchedule { scale: 0.5, exponent: 2.0 }));
        assert_eq!(Method::YARN.schedule(half), Some(DypeSchedule { scale: 0.5, exponent: 2.0 }));
        assert_eq!(Method::BASE.schedule(half), None);
    }
}
