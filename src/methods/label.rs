//! A method and whether DyPE drives it, in one word: `yarn`, `dy_yarn`.

use std::{fmt, str::FromStr};

use super::Method;

/// What stands before the name of a method that DyPE drives. Source: the reference's `run_dype.py`.
const DRIVEN: &str = "dy_";

/// A method with or without DyPE, as `--methods` and the names of pictures say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    /// The method.
    pub method: Method,
    /// Whether DyPE drives it; never for a method that it cannot move.
    pub dype: bool,
}

impl Label {
    /// Every method, each followed by itself with DyPE where there is such a thing.
    pub fn all() -> impl Iterator<Item = Self> {
        Method::ALL.iter().flat_map(|&method| {
            let driven = method.spec().dype.map(|_| Self { method, dype: true });
            [Some(Self { method, dype: false }), driven].into_iter().flatten()
        })
    }
}

/// The word for the method of this name: `dy_yarn` where DyPE drives it. A method that DyPE cannot move keeps its own name.
pub fn label(method: &str, dype: bool) -> String {
    // A name that only a newer version knows is believed.
    let is_driven = dype && method.parse::<Method>().map_or(true, |known| known.spec().dype.is_some());
    format!("{}{method}", if is_driven { DRIVEN } else { "" })
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&label(self.method.name(), self.dype))
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim();
        Self::all().find(|known| known.to_string() == word).ok_or_else(|| {
            let words: Vec<String> = Self::all().map(|known| known.to_string()).collect();
            let (last, others) = words.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
            format!("the methods are {} and {last}", others.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_with_and_without_dype() {
        let texts = [
            ("base", false),
            ("ntk", false),
            ("dy_ntk", true),
            ("yarn", false),
            (" dy_yarn", true),
            ("sega", false),
            ("dy_pi", true),
        ];
        for (text, dype) in texts {
            let label: Label = text.parse().expect(text);
            assert_eq!((label.to_string().as_str(), label.dype), (text.trim(), dype));
        }
        for text in ["dy_base", "dy_sega", "dy_", "", "yarm", "dy-yarn"] {
            let error = text.parse::<Label>().expect_err(text);
            assert_eq!(error, "the methods are base, ntk, dy_ntk, yarn, dy_yarn, sega, pi and dy_pi");
        }
    }

    #[test]
    fn only_what_dype_can_move_is_marked() {
        let words = [("yarn", true), ("ntk", false), ("base", true), ("later", true)].map(|(name, on)| label(name, on));
        assert_eq!(words, ["dy_yarn", "ntk", "base", "dy_later"]);
    }
}
