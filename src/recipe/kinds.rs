//! Kinds of values that settings take: how each is read from a flag, from a file of prompts and from a picture, which range it has,
//! and what was wanted where it is refused. Those of numbers are in `numbers`.

use std::{fmt::Display, str::FromStr};

use serde_json::Value;

use super::{Rng, spelt::Word};
use crate::methods::{Knob, Takes};

/// How a value looks on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Free text, which may begin with a dash.
    Prose,
    /// A number, which may be negative: its range is told, not "no such flag".
    Number,
    /// A name.
    Name,
    /// One of these words; the nearest is named for another.
    OneOf(&'static [&'static str]),
    /// One of these words, in any of their spellings; the nearest is named for another.
    Spelt(&'static [Word]),
    /// On or off, without a value.
    Switch,
    /// A value that may be given several times; together they are one text, a line each.
    Many,
}

/// A kind of values.
pub trait Kind<W>: Sync {
    /// How it looks on a command line.
    fn style(&self) -> Style;

    /// The value that a flag's text gives.
    ///
    /// # Errors
    /// In words, what was wanted.
    fn parse(&self, text: &str) -> Result<W, String>;

    /// The value in a file of prompts; `None` for another type, or out of range.
    fn read_json(&self, value: &Value) -> Option<W>;

    /// The value as a picture says it, where that differs from a file of prompts.
    fn read_saved(&self, value: &Value) -> Option<W> {
        self.read_json(value)
    }

    /// The value as a picture says it.
    fn to_json(&self, value: &W) -> Value;

    /// What is wanted, to follow "KEY takes".
    fn wanted(&self) -> String;

    /// What to do about a JSON value that is refused, where there is more to say than what is wanted.
    fn hint(&self, _refused: &Value) -> Option<String> {
        None
    }

    /// Whether the value is in range.
    fn admits(&self, value: &W) -> bool;

    /// What makes the value, as a picture says it, the same as another.
    fn known_by(&self, saved: &Value) -> Value {
        saved.clone()
    }
}

/// Any text.
pub struct Text {
    /// Whether it may hold a NUL, at which other programs end.
    pub may_hold_nul: bool,
}

impl Kind<String> for Text {
    fn style(&self) -> Style {
        Style::Prose
    }

    fn parse(&self, text: &str) -> Result<String, String> {
        Some(text.to_owned()).filter(|text| self.admits(text)).ok_or_else(|| format!("{} is wanted", self.wanted()))
    }

    fn read_json(&self, value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned).filter(|text| self.admits(text))
    }

    fn to_json(&self, value: &String) -> Value {
        value.as_str().into()
    }

    fn wanted(&self) -> String {
        if self.may_hold_nul { "a text" } else { "a text without NUL" }.into()
    }

    fn admits(&self, value: &String) -> bool {
        self.may_hold_nul || !value.contains('\0')
    }
}

/// One of a few words.
pub struct OneOf(pub &'static [&'static str]);

impl OneOf {
    /// The words of a method's knob.
    pub const fn of(knob: &Knob) -> Self {
        match knob.takes {
            Takes::Word(words) => Self(words),
            Takes::Number { .. } | Takes::Switch => panic!("a knob without words"),
        }
    }
}

impl<W: FromStr + Display> Kind<W> for OneOf {
    fn style(&self) -> Style {
        Style::OneOf(self.0)
    }

    fn parse(&self, text: &str) -> Result<W, String> {
        text.parse().map_err(|_| format!("{} is wanted", Kind::<W>::wanted(self)))
    }

    fn read_json(&self, value: &Value) -> Option<W> {
        value.as_str()?.parse().ok()
    }

    fn to_json(&self, value: &W) -> Value {
        value.to_string().into()
    }

    fn wanted(&self) -> String {
        format!("one of {}", self.0.join(", "))
    }

    fn admits(&self, _value: &W) -> bool {
        true
    }
}

/// On or off.
pub struct Switch;

impl Kind<bool> for Switch {
    fn style(&self) -> Style {
        Style::Switch
    }

    fn parse(&self, text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| "true or false is wanted".into())
    }

    fn read_json(&self, value: &Value) -> Option<bool> {
        value.as_bool()
    }

    fn to_json(&self, value: &bool) -> Value {
        (*value).into()
    }

    fn wanted(&self) -> String {
        "true or false".into()
    }

    fn admits(&self, _value: &bool) -> bool {
        true
    }
}

/// A source of noise.
pub struct Noise;

impl Kind<Rng> for Noise {
    fn style(&self) -> Style {
        Style::Name
    }

    fn parse(&self, text: &str) -> Result<Rng, String> {
        text.parse().map_err(|error: crate::Error| {
            let what = error.to_string();
            // Whoever asks says which flag and value it is.
            let what = what.strip_prefix(&format!("--rng {text}: ")).unwrap_or(&what);
            error.hint().map_or_else(|| what.to_owned(), |hint| format!("{what}; {hint}"))
        })
    }

    fn read_json(&self, value: &Value) -> Option<Rng> {
        value.as_str()?.parse().ok()
    }

    fn to_json(&self, value: &Rng) -> Value {
        value.to_string().into()
    }

    fn wanted(&self) -> String {
        "torch-cpu, torch-cuda or torch-cuda:CARD".into()
    }

    fn hint(&self, refused: &Value) -> Option<String> {
        refused.as_str()?.parse::<Rng>().err()?.hint()
    }

    fn admits(&self, _value: &Rng) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_noise_source_is_told_once() {
        let message = Noise.parse("torch-cuda:h10").expect_err("no such card");
        assert!(message.starts_with("unknown card") && message.contains("h100"), "{message}");
    }
}
