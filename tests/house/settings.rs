//! What a setting needs: its declaration in `recipe/fields.rs` and the places that use it. Nothing between the two may name it.

use std::path::PathBuf;

use crate::sources::{root, sources};

/// Settings whose names are no words of other things.
const SETTINGS: [&str; 6] =
    ["max_sequence_length", "base_resolution", "dype_scale", "dype_exponent", "dype_thresholds", "no_dype"];

/// Where flags, files of prompts and pictures become recipes and recipes are told of, and what uses a setting there, or has
/// something to say about it.
const BETWEEN: [&str; 3] = ["recipe", "cli", "output"];
const USES: [(&str, &[&str]); 8] = [
    ("recipe/facts.rs", &["base_resolution", "dype_scale", "dype_exponent"]), // what models say in its place
    ("recipe/gaps.rs", &["base_resolution", "dype_scale", "dype_exponent", "dype_thresholds"]), // what they say together
    ("recipe/ladder.rs", &["base_resolution"]),                                                 // where it begins
    (
        "recipe/resolved.rs", // the scaler, and how much text the model reads
        &["base_resolution", "dype_scale", "dype_exponent", "dype_thresholds", "max_sequence_length"],
    ),
    ("cli/notes.rs", &["base_resolution", "dype_scale", "dype_exponent", "dype_thresholds"]), // it has no effect
    ("cli/commands/replay.rs", &["dype_scale", "dype_exponent"]), // another method has others
    ("cli/commands/inspect.rs", &["base_resolution", "max_sequence_length"]), // its frequencies, and a prompt's tokens
    ("cli/commands/models.rs", &["base_resolution"]),             // what a model is trained at
];

/// The files whose code, but for comments and tests, holds this word.
fn files_with(word: &str) -> Vec<String> {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let holds = |path: &&PathBuf| {
        let text = std::fs::read_to_string(path).expect("readable");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.any(|line| line.split(|c| !is_part(c)).any(|found| found == word))
    };
    let is_test = |path: &&PathBuf| path.ends_with("tests.rs") || path.ends_with("toy_setting.rs");
    let name = |path: &PathBuf| path.strip_prefix(root()).expect("below src").to_string_lossy().replace('\\', "/");
    let mut names: Vec<_> = files.iter().filter(|path| !is_test(path)).filter(holds).map(name).collect();
    names.sort();
    names
}

#[test]
fn a_setting_is_its_declaration_and_its_uses() {
    for setting in SETTINGS {
        let files = files_with(setting);
        assert!(files.contains(&"recipe/fields.rs".to_owned()), "{setting}");
        let between = files.iter().filter(|file| BETWEEN.iter().any(|folder| file.starts_with(folder)));
        for file in between.filter(|file| *file != "recipe/fields.rs") {
            let is_use = USES.iter().any(|(user, settings)| user == file && settings.contains(&setting));
            assert!(is_use, "{file} names {setting}: derive it from the declaration, or say here what it is used for");
        }
    }
}

/// The tests' setting that goes all the way (`cli/toy_setting.rs`) and the one that lived in most files before.
#[test]
fn the_files_of_a_setting_are_few() {
    assert_eq!(files_with("toy_strength"), ["recipe/fields.rs"]);
    let files = files_with("max_sequence_length");
    assert!(files.len() <= 5, "{files:?}");
}
