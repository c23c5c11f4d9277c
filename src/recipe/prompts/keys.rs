//! A JSON line: its keys are the generation flags, in kebab or snake case.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    super::{
        Field, Wanted, declared,
        fields::FIELDS,
        setting::{Problem, clip},
    },
    Line,
};

/// The key that is no setting: where the picture goes.
const OUTPUT: &str = "output";

/// Every key, in snake case: the settings, those that turn one off, and the picture's place.
pub(super) fn all() -> Vec<&'static str> {
    let of_field =
        |field: &&'static dyn Field| [Some(field.key()), field.face().also, field.face().off.map(|off| off.name)];
    FIELDS.iter().flat_map(of_field).flatten().chain([OUTPUT]).collect()
}

/// Likeness from which on an unknown key is taken for a slip (Jaro-Winkler, 0 to 1).
const LIKE: f64 = 0.75;

/// The pairs of a JSON object in the order written, repeated keys included: a map would silently keep the last.
pub(super) struct Pairs(Vec<(String, Value)>);

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

/// A line that starts with `{`.
pub(super) fn parse(text: &str, number: usize) -> Result<Line, Problem> {
    let pairs = serde_json::from_str(text).map_err(|e| {
        let what = format!("not a JSON object: {}", without_line(&e));
        Problem::new(what, "a line that starts with { is read as one whole JSON object; start a plain prompt otherwise")
    })?;
    line(pairs, number)
}

/// The line of an object.
pub(super) fn line(Pairs(pairs): Pairs, number: usize) -> Result<Line, Problem> {
    let (mut overrides, mut output) = (Wanted::default(), None);
    let mut seen: Vec<&str> = Vec::new();
    for (written, value) in &pairs {
        let key = written.replace('-', "_");
        let is_called =
            |field: &&&dyn Field| field.key() == key || field.flag() == key || field.face().also == Some(&key);
        let field = FIELDS.iter().find(is_called);
        // A setting and the key that turns it off decide the same.
        let name = match field {
            Some(field) => field.key(),
            None if key == OUTPUT => OUTPUT,
            None => return Err(unknown(written, &key)),
        };
        if seen.contains(&name) {
            return Err(Problem::new(format!("{name} is given twice"), "keep one of them"));
        }
        seen.push(name);
        match field {
            Some(field) => field.set_json(&mut overrides, &key, value)?,
            None => output = Some(path(value)?),
        }
    }
    let prompt = prompt(overrides.prompt.take())?;
    Ok(Line { number, prompt, overrides, output })
}

fn unknown(written: &str, key: &str) -> Problem {
    let (keys, asked) = (all(), key.to_lowercase());
    let likeness = |key: &str| strsim::jaro_winkler(key, &asked);
    let nearest = keys.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|key| likeness(key) > LIKE);
    let meant = nearest.map_or_else(String::new, |key| format!("did you mean {key:?}? "));
    let what = format!("unknown key {}", clip(format!("{written:?}")));
    Problem::new(what, format!("{meant}the keys are {}", keys.join(", ")))
}

/// A line needs a prompt; the space around it is not part of it.
fn prompt(given: Option<String>) -> Result<String, Problem> {
    let text = given
        .ok_or_else(|| Problem::new("no prompt", format!("add a key {:?} with the text", declared::prompt.key)))?;
    checked_prompt(&text)
}

/// A prompt without the space around it.
pub(super) fn checked_prompt(text: &str) -> Result<String, Problem> {
    match text.trim() {
        text if text.contains('\0') => Err(Problem::new("the prompt holds a NUL", "delete it")),
        text => Ok(text.to_owned()),
    }
}

fn path(value: &Value) -> Result<PathBuf, Problem> {
    // No system takes a NUL in a path, and the fault would show only when the picture is done.
    let path = value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'));
    path.map(PathBuf::from).ok_or_else(|| Problem::wrong(OUTPUT, value, "a path: a file, or a folder ending in \"/\""))
}

/// serde's message names line 1 of the one line it saw; only the column says something.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", ", column ")
}
