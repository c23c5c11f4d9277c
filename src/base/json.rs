//! Reading the JSON files of a model, with errors that name the file and the key; and JSON as one text.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::excerpt::excerpt;
use crate::error::{Error, Result};

/// Reads a JSON file into `T`.
///
/// # Errors
/// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON or lacks a key.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::disk("cannot read", path, e))?;
    parse_json(path, &bytes)
}

/// The same for a file, called `path` in messages, whose bytes are at hand.
///
/// # Errors
/// [`Error::Model`] when they are not JSON or lack a key.
pub fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(plain(bytes)).map_err(|e| {
        let hint = "the file is damaged or belongs to another kind of model; delete it and fetch it again";
        // What serde says of a missing key stands for itself; of broken syntax it only says where.
        if !e.is_syntax() && !e.is_eof() {
            return Error::model(format!("{}: {e}", path.display()), hint);
        }
        let begins_as_json = bytes.trim_ascii_start().first().is_some_and(|byte| b"{[".contains(byte));
        let instead = excerpt(bytes).filter(|_| !begins_as_json).map(|text| format!("; it says {text:?}"));
        Error::model(format!("{}: this is not JSON: {e}{}", path.display(), instead.unwrap_or_default()), hint)
    })
}

/// A text file's bytes without a byte order mark, which editors on Windows put in front of UTF-8.
pub fn plain(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The text of a value with the keys of objects sorted: equal values give equal texts.
pub fn sorted(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    text
}

/// serde_json keeps an object's keys in the order of their insertion when any crate of the build asks for that.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in pairs {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for value in values {
                write_sorted(value, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let text = r#"{"key": "ä"}"#;
        let marked = format!("\u{feff}{text}");
        for text in [text, &marked] {
            let read: Value = parse_json(Path::new("config.json"), text.as_bytes()).expect("reads");
            assert_eq!(read["key"], "ä");
        }
        let twice = format!("\u{feff}{marked}");
        assert!(parse_json::<Value>(Path::new("config.json"), twice.as_bytes()).is_err());
    }
}
