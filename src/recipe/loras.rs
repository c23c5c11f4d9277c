//! LoRA files that a picture is made with, each with its strength.

use std::fmt;

use serde_json::{Value, json};

use super::kinds::{Kind, Style};
use crate::base::hex::is_sha256;

/// The largest strength, either way; usual ones are from 0 to 1.
const MOST_STRENGTH: f64 = 100.0;
/// The most files of one picture.
const MOST: usize = 100;

/// One file.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraChoice {
    /// A path, or a Hub id: `owner/name`, with `:FILE` where the repository holds several.
    pub name: String,
    /// What its changes are multiplied by.
    pub strength: f64,
    /// The sha256 of the file, in hexadecimal; `None` until it has been read.
    pub sha256: Option<String>,
}

/// The files, in the order they were asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loras(pub Vec<LoraChoice>);

impl fmt::Display for LoraChoice {
    /// As a flag takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.strength)
    }
}

impl fmt::Display for Loras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(LoraChoice::to_string).collect();
        f.write_str(&texts.join("\n"))
    }
}

impl Loras {
    /// In words, for people.
    pub fn in_words(&self) -> Option<String> {
        let one = |lora: &LoraChoice| format!("{} at {}", lora.name, lora.strength);
        (!self.0.is_empty()).then(|| self.0.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// `NAME[:STRENGTH]`; what follows the last colon is a strength where it is a number.
fn choice(text: &str) -> Option<LoraChoice> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let (name, strength) = match text.rsplit_once(':').and_then(|(name, end)| Some((name, number(end)?))) {
        Some((name, strength)) => (name, strength),
        None => (text, 1.0),
    };
    let lora = LoraChoice { name: name.trim().to_owned(), strength, sha256: None };
    is_sound(&lora).then_some(lora)
}

fn is_sound(lora: &LoraChoice) -> bool {
    let is_name = !lora.name.is_empty() && !lora.name.contains(['\0', '\n', '\r']);
    is_name && (-MOST_STRENGTH..=MOST_STRENGTH).contains(&lora.strength)
}

/// A list of files.
pub struct LoraList;

impl LoraList {
    /// An entry in a file of prompts, or of a picture where `is_saved`.
    fn entry(value: &Value, is_saved: bool) -> Option<LoraChoice> {
        let map = match value {
            Value::String(text) if !is_saved => return choice(text),
            other => other.as_object()?,
        };
        let (mut name, mut strength, mut sha256) = (None, Some(1.0), None);
        for (key, value) in map {
            match key.as_str() {
                "name" => name = value.as_str(),
                "file" | "path" if !is_saved => name = value.as_str(),
                "strength" => strength = value.as_f64(),
                "sha256" => sha256 = Some(value.as_str().filter(|text| is_sha256(text))?.to_owned()),
                _ => return None,
            }
        }
        let lora = LoraChoice { name: name?.to_owned(), strength: strength?, sha256 };
        is_sound(&lora).then_some(lora)
    }

    fn list(&self, value: &Value, is_saved: bool) -> Option<Loras> {
        let entries = match value {
            Value::Array(entries) => entries.as_slice(),
            _ if is_saved => return None,
            one => std::slice::from_ref(one),
        };
        let entries = entries.iter().map(|entry| Self::entry(entry, is_saved)).collect::<Option<_>>()?;
        Some(Loras(entries)).filter(|loras| self.admits(loras))
    }
}

impl Kind<Loras> for LoraList {
    fn style(&self) -> Style {
        Style::Many
    }

    /// One a line: a flag that is given several times, or a variable.
    fn parse(&self, text: &str) -> Result<Loras, String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let loras = lines.map(|line| choice(line).ok_or(line)).collect::<Result<Vec<_>, _>>();
        match loras {
            Ok(loras) if !loras.is_empty() && loras.len() <= MOST => Ok(Loras(loras)),
            _ => Err(format!(
                "a LoRA is FILE or OWNER/NAME[:FILE], with :STRENGTH from -{MOST_STRENGTH} to {MOST_STRENGTH} behind it"
            )),
        }
    }

    fn read_json(&self, value: &Value) -> Option<Loras> {
        self.list(value, false)
    }

    fn read_saved(&self, value: &Value) -> Option<Loras> {
        self.list(value, true)
    }

    fn to_json(&self, value: &Loras) -> Value {
        let one = |lora: &LoraChoice| {
            let mut json = json!({ "name": lora.name, "strength": lora.strength });
            if let Some(sha256) = &lora.sha256 {
                json["sha256"] = json!(sha256);
            }
            json
        };
        value.0.iter().map(one).collect()
    }

    fn wanted(&self) -> String {
        r#"a LoRA as "FILE:STRENGTH" or {"name": FILE, "strength": NUMBER}, or an array of them"#.into()
    }

    fn admits(&self, value: &Loras) -> bool {
        value.0.len() <= MOST && value.0.iter().all(is_sound)
    }

    /// A file is what it holds, wherever it lies.
    fn known_by(&self, saved: &Value) -> Value {
        let mut known = saved.clone();
        for lora in known.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            if lora.contains_key("sha256") {
                lora.remove("name");
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lora(name: &str, strength: f64) -> LoraChoice {
        LoraChoice { name: name.to_owned(), strength, sha256: None }
    }

    #[test]
    fn a_strength_is_the_number_behind_the_last_colon() {
        for (text, expected) in [
            ("a.safetensors", lora("a.safetensors", 1.0)),
            ("a.safetensors:0.6", lora("a.safetensors", 0.6)),
            ("a.safetensors:-0.5", lora("a.safetensors", -0.5)),
            ("C:\\loras\\a.safetensors", lora("C:\\loras\\a.safetensors", 1.0)),
            ("owner/name:a.safetensors:2", lora("owner/name:a.safetensors", 2.0)),
            ("owner/name:0", lora("owner/name", 0.0)),
            ("owner/name:a.safetensors", lora("owner/name:a.safetensors", 1.0)),
        ] {
            assert_eq!(LoraList.parse(text), Ok(Loras(vec![expected])), "{text}");
        }
        assert_eq!(LoraList.parse("a:1\n\nb:2\n"), Ok(Loras(vec![lora("a", 1.0), lora("b", 2.0)])));
        for text in ["", " ", ":0.5", "a:1e9", "a:nan", "a:inf", "a\0:1"] {
            assert!(LoraList.parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn files_of_prompts_say_them_in_several_ways_and_pictures_in_one() {
        let both = Loras(vec![lora("a", 0.5), lora("b", 1.0)]);
        let read = |text: &str| LoraList.read_json(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(read(r#"["a:0.5", {"file": "b"}]"#), Some(both.clone()));
        assert_eq!(read(r#"{"name": "a", "strength": 0.5}"#), Some(Loras(vec![lora("a", 0.5)])));
        assert_eq!(read(r#""a:0.5""#), Some(Loras(vec![lora("a", 0.5)])));
        assert_eq!(read("[]"), Some(Loras::default()));
        for text in
            ["1", "[1]", r#"{"strength": 1}"#, r#"{"name": "a", "weight": 1}"#, r#"[{"name": "a", "strength": 1e9}]"#]
        {
            assert_eq!(read(text), None, "{text}");
        }
        let sha256 = Some("0123456789abcdef".repeat(4));
        let said = Loras(vec![LoraChoice { sha256, ..lora("x", 0.25) }]);
        assert_eq!(LoraList.read_saved(&LoraList.to_json(&said)), Some(said.clone()));
        assert_eq!(LoraList.read_saved(&json!("a:0.5")), None);
        assert_eq!(LoraList.read_saved(&json!([{ "name": "a", "strength": 1, "sha256": "xyz" }])), None);
    }

    #[test]
    fn a_file_is_known_by_what_it_holds_and_not_by_its_place() {
        let of = |name: &str, digit: &str, strength: f64| {
            let known = LoraChoice { sha256: Some(digit.repeat(64)), ..lora(name, strength) };
            LoraList.known_by(&LoraList.to_json(&Loras(vec![known])))
        };
        assert_eq!(of("a", "1", 1.0), of("b", "1", 1.0));
        assert_ne!(of("a", "1", 1.0), of("a", "2", 1.0));
        assert_ne!(of("a", "1", 1.0), of("a", "1", 0.5));
    }
}
