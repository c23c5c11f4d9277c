//! Numbers that settings take: sides, seeds, scales. Each has its range.

use std::{fmt::Display, str::FromStr};

use serde_json::Value;

use super::{
    kinds::{Kind, Style},
    seeds,
};
use crate::{
    base::geometry::{MAX_SIDE_PX, MIN_SIDE_PX},
    methods::{FADING_START, Knob, Takes},
};

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
            Takes::Word(_) | Takes::Switch => panic!("a knob without numbers"),
        }
    }
}

/// Guidance scales. FLUX.1 was trained with 1 to some 30, and embeds a thousand times the number in f32: far beyond these the embedding
/// says nothing, and from 3.4e35 on it is not finite.
pub const GUIDANCE: Number = Number { least: -1e6, most: 1e6 };

/// Scales of classifier-free guidance: cards say 1 to 10, and nothing is seen of a prompt far beyond.
pub const CFG: Number = Number { least: 0.0, most: 1e6 };

/// How much of a picture is made anew, from nothing to all.
pub const STRENGTH: Number = Number { least: 0.0, most: 1.0 };

/// The t at which an amplitude begins to fade, which no step is beyond.
pub const FADING: Number = Number { most: 1.0, ..Number::of(&FADING_START) };

/// How strongly a stage of a ladder is led by the one below: 1 is what its authors take.
pub const LADDER_PULL: Number = Number { least: 0.0, most: 1.0 };

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

/// A number, or a text that means something else, as the type reads and writes it.
pub struct NumberOrText<W> {
    /// What a number means.
    pub of_number: fn(f64) -> W,
    /// Whether a value is in range. A text that is read is.
    pub is_in_range: fn(&W) -> bool,
    /// What is wanted.
    pub wanted: &'static str,
}

impl<W: FromStr + Display> Kind<W> for NumberOrText<W> {
    fn style(&self) -> Style {
        Style::Number
    }

    fn parse(&self, text: &str) -> Result<W, String> {
        text.parse().map_err(|_| format!("{} is wanted", self.wanted))
    }

    fn read_json(&self, value: &Value) -> Option<W> {
        match value {
            Value::Number(number) => number.as_f64().map(self.of_number).filter(self.is_in_range),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A picture says numbers in quotes too.
    fn read_saved(&self, value: &Value) -> Option<W> {
        value.as_str()?.parse().ok()
    }

    fn to_json(&self, value: &W) -> Value {
        value.to_string().into()
    }

    fn wanted(&self) -> String {
        self.wanted.to_owned()
    }

    fn admits(&self, value: &W) -> bool {
        (self.is_in_range)(value)
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
}
