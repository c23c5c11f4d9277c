//! What makes two pictures the same: their settings, and what they were computed with.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    base::{hex::hex, json::sorted},
    models::{Identity, KnownModel},
    output::PREVIEW,
    plan::Machine,
    recipe::{Recipe, known_by},
};

/// A picture that is asked for, as those on the disk are compared with it.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    settings: &'a str,
    model: &'a KnownModel,
}

/// What a picture on the disk says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    settings: String,
    model: Value,
}

impl Said {
    /// From a picture's provenance; `None` where it says no settings, or is a preview.
    pub fn of(json: &Value) -> Option<Self> {
        let settings = json.get("settings").filter(|_| json.get(PREVIEW).is_none())?;
        Some(Self { settings: settings_key(settings), model: json.get("model")?.clone() })
    }
}

impl<'a> Sought<'a> {
    /// The picture of these settings ([`settings_key`]) by this model.
    pub fn new(settings: &'a str, model: &'a KnownModel) -> Self {
        Self { settings, model }
    }

    /// What of the model differs where the settings are the same: nothing for the picture itself. `None` for other settings.
    pub fn differences(&self, said: &Said) -> Option<Vec<String>> {
        (said.settings == self.settings).then(|| self.model.differences(&said.model))
    }
}

/// What settings are known by, as JSON that provenance holds.
pub fn settings_key(settings: &Value) -> String {
    digest(&known_by(settings))
}

/// What a checkpoint is known by: all that its picture is, and all that could change the bits of its latents.
pub fn checkpoint_key(recipe: &Recipe, model: &KnownModel, machine: &Machine) -> String {
    let mut all = about(machine);
    all["settings"] = known_by(&json!(recipe));
    all["contents"] = json!(model.contents);
    all["schedule"] = json!(model.schedule);
    digest(&all)
}

/// What the first version knew a checkpoint by: it knew a model by its name.
pub fn first_checkpoint_key(recipe: &Recipe, model: &Identity, machine: &Machine) -> String {
    let mut all = about(machine);
    all["settings"] = json!(recipe);
    all["model"] = json!(model);
    digest(&all)
}

/// What besides settings and model decides the bits of latents.
pub fn about(machine: &Machine) -> Value {
    json!({
        "device": machine.device_name(),
        "dtype": machine.dtype.as_str(),
        "program_version": env!("CARGO_PKG_VERSION"),
    })
}

/// The sha256 of a value's text with sorted keys, in hexadecimal.
fn digest(value: &Value) -> String {
    hex(&Sha256::digest(sorted(value)))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::{
        models::SchedulerConfig,
        recipe::{ModelFacts, Wanted},
    };

    /// What the first version knew a picture by.
    fn picture_key(settings: &Value, model: &Value) -> String {
        digest(&json!({ "settings": settings, "model": model }))
    }

    /// What dype 0.1.0 wrote into pictures while settings were still a struct each, and the key it knew them by.
    const OLD: [(&str, &str); 5] = [
        (
            r#"{"prompt":"a lake, \"still\" \u00e9","height":64,"width":64,"steps":1,"seed":42,"guidance":4.5,
            "max_sequence_length":512,"rng":"torch-cpu","method":"yarn","dype":true,"dype_scale":1.0,"dype_exponent":2.0,
            "dype_thresholds":"product","base_resolution":1024,"mu":"pinned"}"#,
            "c1d8e74011f4ab72f067106ac1e97de3a5634e29aa10cebe806c420a09a35889",
        ),
        (
            r#"{"prompt":"b","height":64,"width":64,"steps":1,"seed":18446744073709551615,"guidance":3.3,
            "max_sequence_length":40,"rng":"torch-cuda:h100","method":"ntk","dype":true,"dype_scale":1.7,
            "dype_exponent":0.30000000000000004,"dype_thresholds":"product","base_resolution":32,"mu":"1.25"}"#,
            "57a0d058cd1093050e5162870a59a47edfbfa8906a9b7b3710aecfb7640ccbf6",
        ),
        (
            r#"{"prompt":"c","height":64,"width":64,"steps":1,"seed":42,"guidance":4.5,"max_sequence_length":512,
            "rng":"torch-cpu","method":"base","dype":false,"dype_scale":null,"dype_exponent":null,
            "dype_thresholds":"power","base_resolution":1024,"mu":"stock"}"#,
            "e34811280c959b6893f3d003bca3405f27ec99d038ad6f7ce0ff38b00bfbe6f3",
        ),
        (
            r#"{"prompt":"d","height":64,"width":64,"steps":1,"seed":42,"guidance":4.5,"max_sequence_length":512,
            "rng":"torch-cpu","method":"yarn","dype":false,"dype_scale":null,"dype_exponent":null,
            "dype_thresholds":"product","base_resolution":1024,"mu":"pinned"}"#,
            "9a0ac19e4ba03aa56f4631435f10103c09ec54c5de201b6b6a6219c648e04d82",
        ),
        (
            r#"{"prompt":"e","height":64,"width":80,"steps":1,"seed":42,"guidance":null,"max_sequence_length":256,
            "rng":"torch-cpu","method":"yarn","dype":true,"dype_scale":1.0,"dype_exponent":2.0,
            "dype_thresholds":"product","base_resolution":1024,"mu":"pinned"}"#,
            "3f18455033020b722f664f55798aa6b6a18185d60e0b47aa5a82f6a1f9745b00",
        ),
    ];

    /// What was asked for to get [`OLD`], of a model without opinions; the last one's takes no guidance.
    fn asked() -> [Wanted; 5] {
        let of = |prompt: &str| Wanted {
            prompt: Some(prompt.into()),
            height: Some(64),
            width: Some(64),
            steps: Some(1),
            ..Wanted::default()
        };
        let many = Wanted {
            seed: Some(u64::MAX),
            method: "ntk".parse().ok(),
            dype_scale: Some(1.7),
            dype_exponent: Some(0.1 + 0.2),
            guidance: Some(3.3),
            base_resolution: Some(32),
            mu: "1.25".parse().ok(),
            rng: "torch-cuda:h100".parse().ok(),
            max_sequence_length: Some(40),
            ..of("b")
        };
        let power = |prompt: &str| Wanted { dype_thresholds: "power".parse().ok(), ..of(prompt) };
        let base = Wanted { method: "base".parse().ok(), mu: "stock".parse().ok(), ..power("c") };
        let off = Wanted { dype: Some(false), ..power("d") };
        [of("a lake, \"still\" é"), many, base, off, Wanted { width: Some(80), ..of("e") }]
    }

    fn facts(takes_guidance: bool) -> ModelFacts {
        let text_tokens = if takes_guidance { 512 } else { 256 };
        ModelFacts { takes_guidance, text_tokens, ..ModelFacts::of(1024) }
    }

    #[test]
    fn pictures_of_the_first_version_are_known_again() {
        for ((text, key), wanted) in OLD.into_iter().zip(asked()) {
            let settings: Value = serde_json::from_str(text).expect("JSON");
            let model = |name: &str| json!({ "layout": "diffusers", "model": name });
            let is_guided = !settings["guidance"].is_null();
            let model = model(if is_guided { "m" } else { "s" });
            assert_eq!(picture_key(&settings, &model), key, "{text}");
            let recipe = Recipe::new(&wanted, &facts(is_guided)).expect("in range");
            assert_eq!(json!(recipe), settings);
            let identity = Identity {
                model: if is_guided { "m" } else { "s" }.into(),
                revision: None,
                layout: "diffusers",
                parts: std::collections::BTreeMap::new(),
                variants: std::collections::BTreeMap::new(),
            };
            let known =
                KnownModel { identity, contents: [("vae", "x".into())].into(), schedule: SchedulerConfig::default() };
            let said = Said::of(&json!({ "settings": settings, "model": model })).expect("settings and a model");
            let ours = settings_key(&json!(recipe));
            assert_eq!(Sought::new(&ours, &known).differences(&said), Some(vec![]), "{text}");
            assert_eq!(Sought::new("other", &known).differences(&said), None);
            assert_eq!(picture_key(&json!(recipe), &model), key, "{text}");
            let without_blanks: String = text.split("\n            ").collect();
            if !text.contains("\\u") {
                assert_eq!(serde_json::to_string(&recipe).expect("JSON"), without_blanks, "the order of keys");
            }
        }
    }

    #[test]
    fn checkpoints_of_the_first_version_are_found_again() {
        let wanted = Wanted {
            prompt: Some("a lake".into()),
            height: Some(64),
            width: Some(64),
            steps: Some(2000),
            seed: Some(7),
            dype_scale: Some(1.7),
            ..Wanted::default()
        };
        let recipe = Recipe::new(&wanted, &facts(true)).expect("in range");
        let model = Identity {
            model: "m".into(),
            revision: None,
            layout: "diffusers",
            parts: std::collections::BTreeMap::new(),
            variants: std::collections::BTreeMap::new(),
        };
        let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
        let key = first_checkpoint_key(&recipe, &model, &machine);
        // Of the program's version too: another one's checkpoint is another.
        if env!("CARGO_PKG_VERSION") == "0.1.0" {
            assert_eq!(key, "b9516bfacc932a7dd6d85d0fe3f7db94af2f7f5f8c1b2b89028752d564b87c75");
        }
        assert_eq!(key.len(), 64);
    }

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
