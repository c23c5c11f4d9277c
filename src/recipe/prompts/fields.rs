//! A JSON line: its keys are the generation flags, in kebab or snake case.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::{MAX_SEQUENCE_LENGTH, MAX_STEPS, Overrides, Problem};
use crate::{
    base::geometry::{MAX_SIDE_PX, MIN_SIDE_PX},
    error::Error,
    methods::{Method, Thresholds},
    sampling::Mu,
};

/// Every key, in snake case.
pub(super) const KEYS: &[&str] = &[
    "prompt",
    "seed",
    "method",
    "dype",
    "no_dype",
    "dype_scale",
    "dype_exponent",
    "dype_thresholds",
    "base_resolution",
    "width",
    "height",
    "steps",
    "guidance",
    "mu",
    "rng",
    "max_sequence_length",
    "output",
];

/// Likeness from which on an unknown key is taken for a slip (Jaro-Winkler, 0 to 1).
const LIKE: f64 = 0.75;

/// The pairs of a JSON object in the order written, repeated keys included: a map would silently keep the last.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// Prompt and overrides of a line that starts with `{`.
pub(super) fn parse(text: &str) -> Result<(String, Overrides), Problem> {
    let Pairs(pairs) = serde_json::from_str(text).map_err(|e| {
        let what = format!("not a JSON object: {}", without_line(&e));
        Problem::new(what, "a line that starts with { is read as one whole JSON object; start a plain prompt otherwise")
    })?;
    let (mut prompt, mut overrides) = (None, Overrides::default());
    let mut seen: Vec<&str> = Vec::new();
    for (written, value) in &pairs {
        let key = known_key(written)?;
        // Both decide the same flag.
        let flag = if key == "no_dype" { "dype" } else { key };
        if seen.contains(&flag) {
            return Err(Problem::new(format!("{flag} is given twice"), "keep one of them"));
        }
        seen.push(flag);
        if key == "prompt" {
            prompt = Some(prompt_text(value)?);
        } else {
            set(&mut overrides, key, value)?;
        }
    }
    let prompt = prompt.ok_or_else(|| Problem::new("no prompt", "add a key \"prompt\" with the text"))?;
    Ok((prompt, overrides))
}

fn known_key(written: &str) -> Result<&'static str, Problem> {
    let asked = written.replace('-', "_");
    if let Some(key) = KEYS.iter().find(|key| **key == asked) {
        return Ok(key);
    }
    let likeness = |key: &str| strsim::jaro_winkler(key, &asked.to_lowercase());
    let nearest = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|key| likeness(key) > LIKE);
    let meant = nearest.map_or_else(String::new, |key| format!("did you mean {key:?}? "));
    Err(Problem::new(format!("unknown key {}", shown(written)), format!("{meant}the keys are {}", KEYS.join(", "))))
}

fn set(overrides: &mut Overrides, key: &'static str, value: &Value) -> Result<(), Problem> {
    match key {
        "seed" => overrides.seed = Some(seed(value)?),
        "method" => overrides.method = Some(word(key, value, &Method::NAMES)?),
        "dype" => overrides.dype = Some(boolean(key, value)?),
        "no_dype" => overrides.dype = Some(!boolean(key, value)?),
        "dype_scale" => overrides.dype_scale = Some(not_negative(key, value)?),
        "dype_exponent" => overrides.dype_exponent = Some(not_negative(key, value)?),
        "dype_thresholds" => overrides.dype_thresholds = Some(word(key, value, &Thresholds::NAMES)?),
        "base_resolution" => overrides.base_resolution = Some(side_px(key, value)?),
        "width" => overrides.width = Some(side_px(key, value)?),
        "height" => overrides.height = Some(side_px(key, value)?),
        "steps" => overrides.steps = Some(whole(key, value, 1, MAX_STEPS)?),
        "guidance" => overrides.guidance = Some(number(key, value, "a number")?),
        "mu" => overrides.mu = Some(mu(value)?),
        "rng" => overrides.rng = Some(rng(key, value)?),
        "max_sequence_length" => overrides.max_sequence_length = Some(whole(key, value, 1, MAX_SEQUENCE_LENGTH)?),
        "output" => overrides.output = Some(output(value)?),
        _ => return Err(Problem::new(format!("unknown key {}", shown(key)), "")),
    }
    Ok(())
}

fn prompt_text(value: &Value) -> Result<String, Problem> {
    let text = string("prompt", value, "a text")?.trim();
    if text.is_empty() {
        return Err(Problem::new("the prompt is empty", "say what to draw, or delete the line"));
    }
    Ok(text.to_owned())
}

fn seed(value: &Value) -> Result<u64, Problem> {
    value.as_u64().ok_or_else(|| wrong("seed", value, "a whole number from 0 to 18446744073709551615"))
}

fn mu(value: &Value) -> Result<Mu, Problem> {
    let wanted = "a number, or \"stock\" for FLUX's own formula";
    match value {
        Value::Number(_) => number("mu", value, wanted).map(Mu::Value),
        // Only its words: a number in quotes is a slip elsewhere too.
        Value::String(text) => match text.parse() {
            Ok(mu @ (Mu::Stock | Mu::Pinned)) => Ok(mu),
            _ => Err(wrong("mu", value, wanted)),
        },
        _ => Err(wrong("mu", value, wanted)),
    }
}

fn rng<T: FromStr<Err = Error>>(key: &str, value: &Value) -> Result<T, Problem> {
    let wanted = "torch-cpu, torch-cuda or torch-cuda:CARD";
    let text = string(key, value, wanted)?;
    text.parse().map_err(|e: Error| {
        let problem = wrong(key, value, wanted);
        Problem { hint: e.hint().unwrap_or_default(), ..problem }
    })
}

fn output(value: &Value) -> Result<PathBuf, Problem> {
    let wanted = "a path: a file, or a folder ending in \"/\"";
    let text = string("output", value, wanted)?;
    // No system takes a NUL in a path, and the fault would show only when the picture is done.
    if text.is_empty() || text.contains('\0') { Err(wrong("output", value, wanted)) } else { Ok(text.into()) }
}

fn word<T: FromStr>(key: &str, value: &Value, names: &[&str]) -> Result<T, Problem> {
    let wanted = format!("one of {}", names.join(", "));
    string(key, value, &wanted)?.parse().map_err(|_| wrong(key, value, &wanted))
}

fn string<'a>(key: &str, value: &'a Value, wanted: &str) -> Result<&'a str, Problem> {
    value.as_str().ok_or_else(|| wrong(key, value, wanted))
}

fn boolean(key: &str, value: &Value) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| wrong(key, value, "true or false"))
}

fn number(key: &str, value: &Value, wanted: &str) -> Result<f64, Problem> {
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| wrong(key, value, wanted))
}

fn not_negative(key: &str, value: &Value) -> Result<f64, Problem> {
    let wanted = "a number of 0 or more";
    let number = number(key, value, wanted)?;
    if number >= 0.0 { Ok(number) } else { Err(wrong(key, value, wanted)) }
}

fn side_px(key: &str, value: &Value) -> Result<usize, Problem> {
    whole(key, value, MIN_SIDE_PX, MAX_SIDE_PX)
}

fn whole(key: &str, value: &Value, least: usize, most: usize) -> Result<usize, Problem> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| wrong(key, value, &format!("a whole number from {least} to {most}")))
}

fn wrong(key: &str, value: &Value, wanted: &str) -> Problem {
    Problem::new(format!("{key} is {}", shown_json(value)), format!("{key} takes {wanted}"))
}

/// A value as it was written, cut where it is long.
fn shown_json(value: &Value) -> String {
    clip(value.to_string())
}

fn shown(text: &str) -> String {
    clip(format!("{text:?}"))
}

fn clip(text: String) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// serde's message names line 1 of the one line it saw; only the column says something.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", ", column ")
}
