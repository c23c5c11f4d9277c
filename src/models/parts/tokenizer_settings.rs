//! What stands beside a tokenizer's vocabulary, in tokenizer_config.json and special_tokens_map.json: computed with, refused by name
//! where it would change the ids, or of no effect.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::{
    base::json::read_json,
    error::{Error, Result},
};

/// The files, the one that wins first.
const FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
/// Keys that name one special token (transformers, `SPECIAL_TOKENS_ATTRIBUTES`).
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"];
/// Keys that hold several of them: a list, or tokens by name or id.
const SEVERAL: [&str; 3] = ["additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"];
/// Keys with the one value that is computed.
const SIDES: [(&str, &str); 2] = [("padding_side", "right"), ("truncation_side", "right")];

/// The settings that lie beside a tokenizer.
pub(super) struct Settings(Vec<(PathBuf, Map<String, Value>)>);

/// What a kind of tokenizer is built with, whatever its settings say.
pub(super) struct Fixed<'a> {
    /// Special tokens by their keys.
    pub(super) tokens: &'a [(&'a str, &'a str)],
    /// The ids its encoder reads, where that is no setting.
    pub(super) length: Option<usize>,
}

impl Settings {
    /// Reads what there is in the folder.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Model`] for a file that cannot be read or is no JSON object.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let paths = FILES.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        paths.map(|path| Ok((path.clone(), read_json(&path)?))).collect::<Result<_>>().map(Self)
    }

    /// The padding token that they name, if they do.
    ///
    /// # Errors
    /// [`Error::Model`] for what is no token.
    pub(super) fn pad_token(&self) -> Result<Option<String>> {
        let named = self.0.iter().find_map(|(path, keys)| named(path, keys, "pad_token").transpose());
        Ok(named.transpose()?.map(str::to_owned))
    }

    /// How many sentinels stand behind T5's pieces, where they say so.
    ///
    /// # Errors
    /// [`Error::Model`] for what is no such number.
    pub(super) fn extra_ids(&self) -> Result<Option<usize>> {
        let key = "extra_ids";
        let said = |(path, keys)| Some((path, value(keys, key)?));
        let Some((path, said)) = self.0.iter().map(|(path, keys)| (path, keys)).find_map(said) else { return Ok(None) };
        let count = said.as_u64().and_then(|count| count.try_into().ok());
        count.map(Some).ok_or_else(|| refused(path, key, said, Some("a whole number")))
    }

    /// Refuses what would make other ids than this tokenizer does.
    ///
    /// # Errors
    /// [`Error::Model`] naming file, key and value.
    pub(super) fn check(&self, tokenizer: &Tokenizer, fixed: &Fixed) -> Result<()> {
        let added: HashSet<String> =
            tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        // Sentinels stand behind the pieces as far as the embedding has rows for them.
        let is_known = |token: &str| {
            added.contains(token)
                || token.starts_with("<extra_id_")
                || fixed.tokens.iter().any(|(_, known)| *known == token)
        };
        for (path, keys) in &self.0 {
            for key in NAMED {
                let Some(token) = named(path, keys, key)? else { continue };
                let expected = fixed.tokens.iter().find(|(name, _)| *name == key).map(|(_, token)| *token);
                if expected.map_or(!is_known(token), |expected| expected != token) {
                    return Err(refused(path, key, &token.into(), expected));
                }
            }
            for key in SEVERAL {
                let all = keys.get(key).into_iter().flat_map(several);
                if let Some(other) = all.filter_map(content).find(|token| !is_known(token)) {
                    return Err(refused(path, key, &other.into(), None));
                }
            }
            for (key, only) in SIDES {
                if let Some(other) = value(keys, key).filter(|side| *side != only) {
                    return Err(refused(path, key, other, Some(only)));
                }
            }
            if keys.get("split_special_tokens").is_some_and(|value| *value == true) {
                return Err(refused(path, "split_special_tokens", &true.into(), Some("false")));
            }
            let too_few = |length: &&Value| fixed.length.is_some_and(|most| length.as_f64() < Some(most as f64));
            if let Some(length) = keys.get("model_max_length").filter(|length| length.is_number()).filter(too_few) {
                let only = fixed.length.map(|length| length.to_string());
                return Err(refused(path, "model_max_length", length, only.as_deref()));
            }
        }
        Ok(())
    }
}

/// What stands under a key; nothing where that is null.
fn value<'k>(keys: &'k Map<String, Value>, key: &str) -> Option<&'k Value> {
    keys.get(key).filter(|value| !value.is_null())
}

/// The special token that a key names, if it does.
fn named<'k>(path: &Path, keys: &'k Map<String, Value>, key: &str) -> Result<Option<&'k str>> {
    let Some(value) = value(keys, key) else { return Ok(None) };
    content(value).map(Some).ok_or_else(|| refused(path, key, value, None))
}

/// The text of a token, which is written as a string or as an object.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn several(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(tokens) => tokens.iter().collect(),
        Value::Object(tokens) => tokens.values().collect(),
        _ => Vec::new(),
    }
}

fn refused(path: &Path, key: &str, found: &Value, only: Option<&str>) -> Error {
    let only =
        only.map_or("only tokens of the tokenizer's own vocabulary are".to_owned(), |only| format!("only {only} is"));
    let what = format!("{}: {key} {found} is not supported, {only}", path.display());
    Error::model(what, "use the tokenizer of the original model, or take the key out of the file")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::{super::tokenizer::PromptTokenizer, *};

    /// What the reference does with another value (transformers 5.24, each tried on these tokenizers and prompts).
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Then {
        /// The same ids.
        Nothing,
        /// Other ids, which are computed here too.
        Computed,
        /// Other ids; refused here by the key's name.
        Refused,
    }
    use Then::{Computed, Nothing, Refused};

    /// Ids of a long prompt, an empty one and ones that hold special tokens.
    fn ids(clip: bool, folder: &Path) -> Result<Vec<Vec<u32>>> {
        let tokenizer =
            if clip { PromptTokenizer::clip(folder, 1 << 20) } else { PromptTokenizer::t5(folder, 1 << 20) }?;
        let long = "lake ".repeat(90);
        ["A Lake at dawn! <extra_id_0> <pad> </s>x", &long, "", "<|endoftext|> a  b"]
            .iter()
            .map(|prompt| Ok(tokenizer.encode(prompt, if clip { 77 } else { 32 })?.ids))
            .collect()
    }

    fn original(part: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux").join(part)
    }

    /// A tokenizer of tiny-flux with another value of one key.
    fn changed(part: &str, key: &str, value: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(original(part)).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
        }
        let path = folder.path().join("tokenizer_config.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&path).expect("settings")).expect("JSON");
        settings[key] = value.clone();
        fs::write(&path, settings.to_string()).expect("written");
        folder
    }

    fn walk(part: &str, cases: &[(&str, Value, Then)]) {
        let is_clip = part == "tokenizer";
        let expected = ids(is_clip, &original(part)).expect("ids");
        for (key, value, then) in cases {
            let folder = changed(part, key, value);
            match (then, ids(is_clip, folder.path())) {
                (Nothing, found) => assert_eq!(found.expect("ids"), expected, "{key} {value}"),
                (Computed, found) => assert_ne!(found.expect("ids"), expected, "{key} {value}"),
                (Refused, found) => {
                    let error = found.expect_err(key);
                    let told = error.to_string();
                    assert!(told.contains("tokenizer_config.json: ") && told.contains(key), "{key} {value}: {told}");
                    assert!(error.hint().is_some());
                }
            }
        }
    }

    #[test]
    fn every_key_of_clips_is_computed_refused_or_of_no_effect() {
        walk(
            "tokenizer",
            &[
                ("bos_token", json!("a</w>"), Refused),
                ("eos_token", json!({"content": "!"}), Refused),
                ("unk_token", json!("!"), Refused),
                ("pad_token", json!("!"), Computed),
                ("cls_token", json!("lake"), Refused),
                ("sep_token", json!("lake"), Refused),
                ("mask_token", json!("lake"), Refused),
                ("additional_special_tokens", json!(["lake"]), Refused),
                ("additional_special_tokens", json!(["<|endoftext|>"]), Nothing),
                ("extra_special_tokens", json!({"x": "lake"}), Refused),
                ("extra_special_tokens", json!(["lake"]), Refused),
                ("added_tokens_decoder", json!({"5": {"content": "lake", "special": true}}), Refused),
                ("added_tokens_decoder", json!({"49407": {"content": "<|endoftext|>", "special": true}}), Nothing),
                ("model_max_length", json!(20), Refused),
                ("padding_side", json!("left"), Refused),
                ("padding_side", json!("right"), Nothing),
                // This version of the reference overlooks it; others do not.
                ("truncation_side", json!("left"), Refused),
                ("split_special_tokens", json!(true), Refused),
                ("split_special_tokens", json!(false), Nothing),
                ("do_lower_case", json!(false), Nothing),
                ("add_prefix_space", json!(true), Nothing),
                ("errors", json!("strict"), Nothing),
                ("add_bos_token", json!(false), Nothing),
                ("add_eos_token", json!(false), Nothing),
                ("clean_up_tokenization_spaces", json!(false), Nothing),
                ("tokenizer_class", json!("GPT2Tokenizer"), Nothing),
                ("chat_template", json!("x"), Nothing),
                ("model_input_names", json!(["input_ids"]), Nothing),
                ("backend", json!("x"), Nothing),
            ],
        );
    }

    /// As transformers 5.24 does with these files: the padding token is one within a prompt too.
    #[test]
    fn padding_of_clips_is_a_special_token_everywhere() {
        let folder = changed("tokenizer", "pad_token", &json!("!"));
        let tokenizer = PromptTokenizer::clip(folder.path(), 1 << 20).expect("a tokenizer");
        let ids = tokenizer.encode("a lake! at dawn!", 14).expect("ids").ids;
        assert_eq!(ids, [863, 320, 588, 0, 615, 67, 64, 86, 333, 0, 864, 0, 0, 0]);
    }

    /// Whoever asks for one of these alone, as Qwen's and sentencepiece's readers do, is told too.
    #[test]
    fn what_is_no_token_and_no_number_is_refused_by_its_key() {
        let folder = changed("tokenizer", "pad_token", &json!(7));
        let error = Settings::read(folder.path()).and_then(|settings| settings.pad_token()).expect_err("no token");
        assert!(error.to_string().contains("tokenizer_config.json: pad_token 7"), "{error}");
        for count in [json!("many"), json!(-1), json!(2.5)] {
            let folder = changed("tokenizer_2", "extra_ids", &count);
            let error = Settings::read(folder.path()).and_then(|settings| settings.extra_ids()).expect_err("no number");
            assert!(error.to_string().contains("tokenizer_config.json: extra_ids"), "{error}");
        }
    }

    #[test]
    fn every_key_of_t5s_is_refused_or_of_no_effect() {
        walk(
            "tokenizer_2",
            &[
                ("eos_token", json!("▁a"), Refused),
                ("pad_token", json!({"content": "▁a"}), Refused),
                ("bos_token", json!("lake"), Refused),
                ("cls_token", json!("lake"), Refused),
                ("sep_token", json!("lake"), Refused),
                ("mask_token", json!("lake"), Refused),
                ("additional_special_tokens", json!(["lake"]), Refused),
                ("extra_special_tokens", json!(["lake"]), Refused),
                ("added_tokens_decoder", json!({"5": {"content": "lake", "special": true}}), Refused),
                ("added_tokens_decoder", json!({"0": {"content": "<pad>", "special": true}}), Nothing),
                ("padding_side", json!("left"), Refused),
                ("truncation_side", json!("left"), Refused),
                ("split_special_tokens", json!(true), Refused),
                // Read beside spiece.model, and by the family for its longest prompt.
                ("extra_ids", json!(3), Nothing),
                ("model_max_length", json!(8), Nothing),
                ("unk_token", json!("<unk>"), Nothing),
                ("legacy", json!(true), Nothing),
                ("add_prefix_space", json!(false), Nothing),
                ("tokenizer_class", json!("LlamaTokenizer"), Nothing),
                ("do_lower_case", json!(true), Nothing),
                ("sp_model_kwargs", json!({"enable_sampling": true}), Nothing),
                ("add_bos_token", json!(true), Nothing),
                ("add_eos_token", json!(false), Nothing),
                ("clean_up_tokenization_spaces", json!(true), Nothing),
            ],
        );
    }
}
