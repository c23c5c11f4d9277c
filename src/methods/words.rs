//! Knobs that take one of a few words: how an enum gets its words, both ways.

/// Gives an enum the word of each variant, the usual one first: `ALL`, `NAMES`, `name`, `Display` and `FromStr`.
macro_rules! words {
    ($kind:literal, $type:ident: $($variant:ident = $word:literal),+ $(,)?) => {
        impl $type {
            /// Every one, the usual one first.
            pub const ALL: [Self; Self::NAMES.len()] = [$(Self::$variant),+];
            /// The word of each.
            pub const NAMES: [&str; [$($word),+].len()] = [$($word),+];

            /// The word that names it on the command line and in files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::methods::UnknownName;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let unknown = || $crate::methods::UnknownName { kind: $kind, found: word.into(), known: &Self::NAMES };
                Self::ALL.into_iter().find(|known| known.name() == word).ok_or_else(unknown)
            }
        }
    };
}

pub(super) use words;

#[cfg(test)]
mod tests {
    use crate::methods::{Amplitude, Scaling, Thresholds};

    #[test]
    fn words_go_both_ways_and_the_usual_one_is_first() {
        assert_eq!(Thresholds::NAMES, ["product", "power", "settled"]);
        assert_eq!(Scaling::NAMES, ["axis", "longest", "mixed"]);
        assert_eq!(Amplitude::NAMES, ["yarn", "fading", "damped"]);
        for rule in Thresholds::ALL {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        assert_eq!(Scaling::ALL.map(|rule| rule.to_string().parse()), Scaling::ALL.map(Ok));
        assert_eq!(Amplitude::ALL.map(|rule| rule.to_string().parse()), Amplitude::ALL.map(Ok));
        assert_eq!((Scaling::ALL[0], Amplitude::ALL[0]), Default::default());
        let error = "longer".parse::<Scaling>().expect_err("no such rule");
        assert_eq!(error.to_string(), r#"unknown scaling "longer": expected one of axis, longest, mixed"#);
    }
}
