//! What makes two pictures the same, as one short text.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{models::Identity, plan::Machine, recipe::Recipe};

/// What a picture is known by: its settings and its model.
///
/// Both are JSON as provenance holds them, so that a picture on the disk and one yet to be made compare.
pub fn picture_key(settings: &Value, model: &Value) -> String {
    digest(&json!({ "settings": settings, "model": model }))
}

/// What a checkpoint is known by: all that its picture is, and all that could change the bits of its latents.
pub fn checkpoint_key(recipe: &Recipe, model: &Identity, machine: &Machine) -> String {
    digest(&json!({
        "settings": recipe,
        "model": model,
        "device": machine.device_name(),
        "dtype": machine.dtype.as_str(),
        "program_version": env!("CARGO_PKG_VERSION"),
    }))
}

/// The sha256 of a value's text with sorted keys, in hexadecimal.
fn digest(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
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
    fn the_order_of_keys_does_not_matter_and_everything_else_does() {
        let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let one = digest(&parse(r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#));
        assert_eq!(one, digest(&parse(r#"{"b": {"d": null, "c": [1, 2]}, "a": 1}"#)));
        assert_eq!(one.len(), 64);
        for other in [
            r#"{"a": 2, "b": {"c": [1, 2], "d": null}}"#,
            r#"{"a": 1, "b": {"c": [2, 1], "d": null}}"#,
            r#"{"a": 1, "b": {"c": [1, 2], "d": ""}}"#,
            r#"{"a": 1, "b": {"c": [1, 2]}}"#,
        ] {
            assert_ne!(one, digest(&parse(other)), "{other}");
        }
    }

    #[test]
    fn a_number_is_the_same_after_a_trip_through_text() {
        for number in [4.5, 0.1 + 0.2, 1.0 / 3.0, 1.15, 7e-9, 2.0_f64.sqrt()] {
            let value = json!({ "guidance": number });
            let read: Value = serde_json::from_str(&value.to_string()).expect("JSON");
            assert_eq!(digest(&value), digest(&read), "{number}");
        }
    }
}
