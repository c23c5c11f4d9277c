//! Kinds of values that settings take: how each is read from a flag, from a file of prompts and from a picture, which range
//! it has, and what was wanted where it is refused.

use std::{fmt::Display, str::FromStr};

use serde_json::Value;

use super::{Mu, Rng, seeds};
use crate::{
    base::geometry::{MAX_SIDE_PX, MIN_SIDE_PX},
    methods::{Knob, Takes},
};

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
    /// On or off, without a value.
    Switch,
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
}

/// Any text.
pub struct Prose;

impl Kind<String> for Prose {
    fn style(&self) -> Style {
        Style::Prose
    }

    fn parse(&self, text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn read_json(&self, value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned)
    }

    fn to_json(&self, value: &String) -> Value {
        value.as_str().into()
    }

    fn wanted(&self) -> String {
        "a text".into()
    }

    fn admits(&self, _value: &String) -> bool {
        true
    }
}

/// A whole number from `least` to `most`.
pub struct Whole {
    /// The least.
    pub least: u64,
    /// The most.
    pub most: u64,
    /// What a flag says was wanted, of the least and the most.
    pub says: fn(u64, u64) -> String,
}

/// A side in pixels.
pub const SIDE_PX: Whole = Whole {
    least: MIN_SIDE_PX as u64,
    most: MAX_SIDE_PX as u64,
    says: |least, most| format!("a side is a whole number of pixels from {least} to {most}"),
};

impl<W: Copy + TryFrom<u64>> Kind<W> for Whole
where
    u64: TryFrom<W>,
{
    fn style(&self) -> Style {
        Style::Number
    }

    fn parse(&self, text: &str) -> Result<W, String> {
        let number = text.parse().ok().and_then(|number: u64| W::try_from(number).ok());
        number.filter(|number| self.admits(number)).ok_or_else(|| (self.says)(self.least, self.most))
    }

    /// 42.0 and "42" are numbers too: many programs write them so.
    fn read_json(&self, value: &Value) -> Option<W> {
        /// Up to here every whole number has a float of its own.
        const EXACT: f64 = (1_u64 << 53) as f64;
        let whole = |number: &f64| number.fract() == 0.0 && (0.0..=EXACT).contains(number);
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            _ => value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64)),
        };
        number.and_then(|number: u64| W::try_from(number).ok()).filter(|number| self.admits(number))
    }

    /// A picture says numbers as they are.
    fn read_saved(&self, value: &Value) -> Option<W> {
        value.as_u64().and_then(|number| W::try_from(number).ok()).filter(|number| self.admits(number))
    }

    fn to_json(&self, value: &W) -> Value {
        u64::try_from(*value).ok().into()
    }

    fn wanted(&self) -> String {
        format!("a whole number from {} to {}", self.least, self.most)
    }

    fn admits(&self, value: &W) -> bool {
        u64::try_from(*value).is_ok_and(|number| (self.least..=self.most).contains(&number))
    }
}

/// A seed: a whole number, or a fresh one.
pub struct Seed;

/// What numbers a seed may be.
const SEEDS: Whole = Whole {
    least: 0,
    most: u64::MAX,
    says: |least, most| format!("a seed is a whole number from {least} to {most}, or random (or -1) for a fresh one"),
};

impl Kind<u64> for Seed {
    fn style(&self) -> Style {
        Style::Number
    }

    fn parse(&self, text: &str) -> Result<u64, String> {
        if is_fresh(text) { Ok(seeds::draw()) } else { SEEDS.parse(text) }
    }

    fn read_json(&self, value: &Value) -> Option<u64> {
        let is_asked = value.as_str().is_some_and(is_fresh) || value.as_f64() == Some(-1.0);
        if is_asked { Some(seeds::draw()) } else { SEEDS.read_json(value) }
    }

    fn read_saved(&self, value: &Value) -> Option<u64> {
        SEEDS.read_saved(value)
    }

    fn to_json(&self, value: &u64) -> Value {
        (*value).into()
    }

    fn wanted(&self) -> String {
        format!("{}, or \"random\"", Kind::<u64>::wanted(&SEEDS))
    }

    fn admits(&self, _value: &u64) -> bool {
        true
    }
}

/// `random`, or -1 as A1111 has it.
fn is_fresh(text: &str) -> bool {
    matches!(text.trim(), "random" | "-1")
}

/// A finite number from `least` to `most`.
pub struct Number {
    /// The least.
    pub least: f64,
    /// The most; [`f64::MAX`] for any.
    pub most: f64,
}

impl Number {
    /// Numbers of at least this.
    pub const fn from(least: f64) -> Self {
        Self { least, most: f64::MAX }
    }

    /// The numbers of a method's knob.
    pub const fn of(knob: &Knob) -> Self {
        match knob.takes {
            Takes::Number { least } => Self::from(least),
            Takes::Word(_) => panic!("a knob of words"),
        }
    }
}

/// Guidance scales. FLUX.1 was trained with 1 to some 30, and embeds a thousand times the number in f32: far beyond these the embedding
/// says nothing, and from 3.4e35 on it is not finite.
pub const GUIDANCE: Number = Number { least: -1e6, most: 1e6 };

impl Kind<f64> for Number {
    fn style(&self) -> Style {
        Style::Number
    }

    fn parse(&self, text: &str) -> Result<f64, String> {
        let number = text.parse().ok().filter(|number| self.admits(number));
        number.ok_or_else(|| format!("{} is wanted", self.wanted().replacen("a number", "a finite number", 1)))
    }

    fn read_json(&self, value: &Value) -> Option<f64> {
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        number.filter(|number| self.admits(number))
    }

    fn read_saved(&self, value: &Value) -> Option<f64> {
        value.as_f64().filter(|number| self.admits(number))
    }

    fn to_json(&self, value: &f64) -> Value {
        (*value).into()
    }

    fn wanted(&self) -> String {
        match self.most {
            f64::MAX => format!("a number of {} or more", self.least),
            most => format!("a number from {} to {most}", self.least),
        }
    }

    fn admits(&self, value: &f64) -> bool {
        (self.least..=self.most).contains(value)
    }
}

/// One of a few words.
pub struct OneOf(pub &'static [&'static str]);

impl OneOf {
    /// The words of a method's knob.
    pub const fn of(knob: &Knob) -> Self {
        match knob.takes {
            Takes::Word(words) => Self(words),
            Takes::Number { .. } => panic!("a knob of numbers"),
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

/// A time shift.
pub struct Shift;

impl Kind<Mu> for Shift {
    fn style(&self) -> Style {
        Style::Number
    }

    fn parse(&self, text: &str) -> Result<Mu, String> {
        text.parse().map_err(|_| "mu is a number (FLUX.1's max_shift is 1.15), or \"stock\"".into())
    }

    fn read_json(&self, value: &Value) -> Option<Mu> {
        match value {
            Value::Number(number) => number.as_f64().map(Mu::Value).filter(|mu| self.admits(mu)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A picture says numbers in quotes too.
    fn read_saved(&self, value: &Value) -> Option<Mu> {
        value.as_str()?.parse().ok()
    }

    fn to_json(&self, value: &Mu) -> Value {
        value.to_string().into()
    }

    fn wanted(&self) -> String {
        "a number, or \"stock\" for FLUX's own formula".into()
    }

    fn admits(&self, value: &Mu) -> bool {
        !matches!(value, Mu::Value(number) if !number.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::DYPE_SCALE;

    #[test]
    fn sides_that_are_no_sides_are_refused_with_the_range() {
        let side_px = |text| Kind::<usize>::parse(&SIDE_PX, text);
        for text in ["0", "15", "-5", "1e9", "65537", "", "tall"] {
            let message = side_px(text).expect_err(text);
            assert!(message.contains("from 16 to 65536"), "{message}");
        }
        assert_eq!(side_px("16"), Ok(16));
        assert_eq!(side_px("4097"), Ok(4097));
    }

    #[test]
    fn numbers_must_be_finite() {
        for text in ["nan", "inf", "-inf", "x"] {
            assert!(GUIDANCE.parse(text).is_err(), "{text}");
        }
        assert_eq!(GUIDANCE.parse("-1.5"), Ok(-1.5));
        let not_negative = Number::of(&DYPE_SCALE);
        assert_eq!(not_negative.parse("-0.1").expect_err("negative"), "a finite number of 0 or more is wanted");
        assert_eq!(not_negative.parse("0"), Ok(0.0));
    }

    #[test]
    fn guidance_that_no_computation_survives_is_refused() {
        for text in ["1e38", "-1e38", "3.5e35", "1e300", "1000001"] {
            let error = GUIDANCE.parse(text).expect_err(text);
            assert_eq!(error, "a finite number from -1000000 to 1000000 is wanted");
            let number: f64 = text.parse().expect("a number");
            assert_eq!(GUIDANCE.read_json(&number.into()), None, "in a file of prompts, or a picture");
        }
        assert_eq!(GUIDANCE.parse("1e6"), Ok(1e6));
    }

    #[test]
    fn mu_is_a_number_or_stock() {
        assert_eq!(Shift.parse("stock"), Ok(Mu::Stock));
        assert_eq!(Shift.parse("0.5"), Ok(Mu::Value(0.5)));
        assert!(Shift.parse("big").expect_err("no number").contains("stock"));
    }

    #[test]
    fn an_unknown_noise_source_is_told_once() {
        let message = Noise.parse("torch-cuda:h10").expect_err("no such card");
        assert!(message.starts_with("unknown card") && message.contains("h100"), "{message}");
    }
}
