//! Generation parameters as AUTOMATIC1111's web UI writes and reads them: the prompt, then a line `Steps: 28, Seed: 42, ...`.
//!
//! Source: its `modules/infotext_utils.py` (`quote`, `unquote`, `parse_generation_parameters`).

use serde_json::{Deserializer, Value};

/// As many settings make a line of settings; a line of fewer belongs to the prompt, as there.
const FEWEST: usize = 3;
/// What the lines of a negative prompt begin with.
pub const NEGATIVE: &str = "Negative prompt:";

/// What such a text says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// All above the line of settings, a negative prompt with it.
    pub above: String,
    /// Name and value of each setting, in their order; none where the text has no such line.
    pub settings: Vec<(String, String)>,
}

/// The text of a prompt and settings. A value that could be read otherwise is written as a JSON string, as there.
pub fn parameters_text(prompt: &str, settings: &[(&str, String)]) -> String {
    let setting = |(name, value): &(&str, String)| match needs_quotes(value) {
        true => format!("{name}: {}", Value::from(value.as_str())),
        false => format!("{name}: {value}"),
    };
    let line: Vec<String> = settings.iter().map(setting).collect();
    format!("{prompt}\n{}", line.join(", "))
}

fn needs_quotes(value: &str) -> bool {
    value.contains([',', ':', '\n']) || value.starts_with('"') || value.trim() != value
}

impl Parameters {
    /// Reads a text, whoever wrote it.
    pub fn parse(text: &str) -> Self {
        let text = text.trim_end_matches(|c: char| c.is_whitespace() || c == '\0');
        let (above, line) = text.rsplit_once('\n').unwrap_or(("", text));
        let settings = settings(line);
        if settings.len() < FEWEST {
            return Self { above: text.to_owned(), settings: vec![] };
        }
        Self { above: above.to_owned(), settings }
    }

    /// The value of this name: the last, where there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Prompt and negative prompt as other programs tell them apart.
    pub fn prompts(&self) -> (&str, Option<&str>) {
        let begins = |at: &usize| self.above[..*at].is_empty() || self.above[..*at].ends_with('\n');
        match self.above.match_indices(NEGATIVE).map(|(at, _)| at).find(begins) {
            Some(at) => (self.above[..at].trim(), Some(self.above[at + NEGATIVE.len()..].trim())),
            None => (self.above.trim(), None),
        }
    }
}

/// Names and values of a line; what has no name is passed over.
fn settings(line: &str) -> Vec<(String, String)> {
    let (mut found, mut rest) = (vec![], line);
    while !rest.is_empty() {
        let (part, behind) = rest.split_once(',').unwrap_or((rest, ""));
        let Some((name, value)) = part.split_once(':').filter(|(name, _)| is_name(name.trim())) else {
            rest = behind;
            continue;
        };
        let all = rest[name.len() + 1..].trim_start();
        let (value, behind) = quoted(all).unwrap_or_else(|| (value.trim().to_owned(), behind));
        found.push((name.trim().to_owned(), value));
        rest = behind;
    }
    found
}

/// A JSON string that ends where the value ends, and what stands behind its comma.
fn quoted(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        return None;
    }
    let mut strings = Deserializer::from_str(text).into_iter::<String>();
    let string = strings.next()?.ok()?;
    let behind = text[strings.byte_offset()..].trim_start();
    if behind.is_empty() { Some((string, "")) } else { Some((string, behind.strip_prefix(',')?)) }
}

/// `\w[\w \-/]+`, as there.
fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.starts_with(is_word) && text.chars().nth(1).is_some() && text.chars().all(|c| is_word(c) || " -/".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_text_of_another_program_is_read_as_it_means_it() {
        let text = "a cat, (best:1.3)\nin two lines\nNegative prompt: dog,\nblurry\nSteps: 20, Sampler: Euler, Schedule type: Simple, \
                    CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 7, Size: 896x1152, Model hash: 6ce0161689, Model: flux1-dev, \
                    Lora hashes: \"a: 1, b: \\\"2\\\"\", Version: f2.0.1v1.10.1-previous-665\n";
        let read = Parameters::parse(text);
        assert_eq!(read.prompts(), ("a cat, (best:1.3)\nin two lines", Some("dog,\nblurry")));
        assert_eq!(read.settings.len(), 11);
        let said = ["Steps", "Schedule type", "Size", "Model", "Lora hashes", "Version"].map(|name| read.get(name));
        let expected = ["20", "Simple", "896x1152", "flux1-dev", "a: 1, b: \"2\"", "f2.0.1v1.10.1-previous-665"];
        assert_eq!(said, expected.map(Some));
    }

    #[test]
    fn a_text_without_settings_is_all_prompt() {
        for text in ["a cat", "", "a: b, c: d", "Steps: 20\nof a stair, seen from: above", "{\"prompt\": \"a cat\"}"] {
            assert_eq!(Parameters::parse(text), Parameters { above: text.to_owned(), settings: vec![] });
        }
        let line = "Steps: 1, Seed: 2, Size: 8x8";
        assert_eq!(Parameters::parse(line).above, "", "a line of settings alone");
    }

    #[test]
    fn what_is_odd_is_passed_over() {
        let read =
            Parameters::parse("p\nSteps: 1, alone, Seed: , Hashes: {\"a\": \"b\", \"c\": \"d\"}, Model: \"open, x: 3");
        let expected = [("Steps", "1"), ("Seed", ""), ("Hashes", "{\"a\": \"b\""), ("Model", "\"open"), ("x", "3")];
        assert_eq!(read.settings, pairs(&expected[..4]), "x is too short a name there");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(prompt in "(\\PC|\n|\t|[:,\"]){0,60}", values in prop::collection::vec("(\\PC|\n|[:,\"\\\\ ]){0,20}", 3..6)) {
            let names = ["Steps", "Distilled CFG Scale", "Model", "RNG", "Version"];
            let settings: Vec<_> = names.into_iter().zip(values).collect();
            let text = parameters_text(&prompt, &settings);
            // A value that ends the text empty ends it with a space, which no reader keeps; it is still there.
            let read = Parameters::parse(&text);
            prop_assert_eq!(&read.above, &prompt);
            let read: Vec<_> = read.settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            prop_assert_eq!(read, settings);
        }

        #[test]
        fn no_text_panics(text in "([a-zS:, \n\"\\\\é\0]|Negative prompt:){0,80}") {
            let read = Parameters::parse(&text);
            let _ = read.prompts();
        }
    }
}
