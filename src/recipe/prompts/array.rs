//! A JSON array of prompts, on one line or on several: texts, and objects whose keys are the flags.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    super::{Wanted, setting::Problem},
    Line,
    keys::{self, Pairs},
};

const HINT: &str = "a line that starts with [ and goes on as JSON is read as an array of prompts and objects; start a plain prompt otherwise";

/// What an array holds.
enum Element {
    Prompt(String),
    Object(Pairs),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a prompt in quotes, or a JSON object")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Prompt(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                Pairs::deserialize(MapAccessDeserializer::new(map)).map(Element::Object)
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

/// Whether a text that starts with `[` goes on as an array of prompts does: `[cat:dog:0.5]` is a prompt.
pub(super) fn begins(text: &str) -> bool {
    text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['{', '"', ']']))
}

/// The prompts of the array that `text` starts with, and how many lines it takes; `number` is the first one's. A problem comes
/// with the number of its line.
pub(super) fn parse(text: &str, number: usize) -> Result<(Vec<Line>, usize), (usize, Problem)> {
    let line_at = |at: usize| number + text[..at].matches('\n').count();
    let wrong = |at: usize, what: &str| (line_at(at), Problem::new(format!("not a JSON array: {what}"), HINT));
    let skip = |at: usize| text.len() - text[at..].trim_start().len();
    let (mut lines, mut at) = (Vec::new(), skip(1));
    while !(text[at..].starts_with(']') && lines.is_empty()) {
        let begun = line_at(at);
        let mut elements = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Element>();
        let element = match elements.next() {
            Some(Ok(element)) => element,
            Some(Err(error)) => {
                let place = format!(" at line {} column {}", error.line(), error.column());
                let what = error.to_string().replace(&place, &format!(", column {}", error.column()));
                return Err((
                    begun + error.line().saturating_sub(1),
                    Problem::new(format!("not a JSON array: {what}"), HINT),
                ));
            }
            None => return Err(wrong(at, "it does not end")),
        };
        at = skip(at + elements.byte_offset());
        lines.push(line(element, begun).map_err(|problem| (begun, problem))?);
        match text[at..].chars().next() {
            Some(',') => at = skip(at + 1),
            Some(']') => break,
            _ => return Err(wrong(at, "expected `,` or `]`")),
        }
    }
    let rest = text[at + 1..].split('\n').next().unwrap_or_default();
    match rest.trim() {
        "" => Ok((lines, line_at(at) - number + 1)),
        rest => Err(wrong(at, &format!("{rest:?} follows it"))),
    }
}

fn line(element: Element, number: usize) -> Result<Line, Problem> {
    match element {
        Element::Object(pairs) => keys::line(pairs, number),
        Element::Prompt(text) => {
            let prompt = keys::checked_prompt(&text)?;
            Ok(Line { number, prompt, overrides: Wanted::default(), output: None })
        }
    }
}
