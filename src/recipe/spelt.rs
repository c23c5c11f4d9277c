//! Words that people write in several ways.

use std::{fmt::Display, str::FromStr};

use serde_json::Value;

use super::kinds::{Kind, Style};

/// A word, and what else people write for it; case makes no difference.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// Other spellings.
    pub also: &'static [&'static str],
}

impl Word {
    /// Which of these words a text is.
    pub fn index_of(words: &[Self], text: &str) -> Option<usize> {
        let is_it = |word: &str| word.eq_ignore_ascii_case(text.trim());
        words.iter().position(|word| is_it(word.name) || word.also.iter().any(|also| is_it(also)))
    }

    /// The words, to follow "takes".
    pub fn listed(words: &[Self]) -> String {
        let names: Vec<_> = words.iter().map(|word| word.name).collect();
        format!("one of {}", names.join(", "))
    }
}

/// One of a few words, in any of their spellings.
pub struct Spelt(pub &'static [Word]);

impl<W: FromStr + Display> Kind<W> for Spelt {
    fn style(&self) -> Style {
        Style::Spelt(self.0)
    }

    fn parse(&self, text: &str) -> Result<W, String> {
        text.parse().map_err(|_| format!("{} is wanted", Word::listed(self.0)))
    }

    fn read_json(&self, value: &Value) -> Option<W> {
        value.as_str()?.parse().ok()
    }

    fn to_json(&self, value: &W) -> Value {
        value.to_string().into()
    }

    fn wanted(&self) -> String {
        Word::listed(self.0)
    }

    fn admits(&self, _value: &W) -> bool {
        true
    }
}
