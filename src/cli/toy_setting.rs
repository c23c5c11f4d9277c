//! A setting that only tests have, `toy_strength`, goes from a flag to a picture and back. All there is of it is its
//! declaration in `recipe/fields.rs`.

use serde_json::{Value, json};

use super::environment;
use crate::{
    cli::args::{Cli, Command},
    recipe::{Merged, Recipe, Source, Wanted, read_prompts},
};

fn parse(words: &[&str]) -> Cli {
    environment::parse(["dype"].iter().chain(words).map(Into::into)).expect("valid").cli
}

fn recipe(words: &[&str]) -> Recipe {
    Recipe::draft(&parse(words).generate.settings.wanted).expect("in range")
}

#[test]
fn it_has_a_flag_with_help_a_range_and_a_variable() {
    let toy = recipe(&["--toy-strength", "0.5"]);
    assert_eq!((toy.toy_strength, recipe(&[]).toy_strength), (0.5, 0.0));
    let refused =
        environment::parse(["dype", "--toy-strength", "-1"].map(Into::into)).map(|_| ()).expect_err("below 0");
    assert!(refused.to_string().contains("0 or more"), "{refused}");
    let mut command = environment::command();
    let help = command.render_help().to_string();
    for words in ["--toy-strength <NUMBER>", "How toy-like it looks", "[env: DYPE_TOY_STRENGTH]", "[default: 0.0]"] {
        assert!(help.contains(words), "{words}: {help}");
    }
    // The commands that make pictures take it; the one that looks at positions does not, and a replay hears no variable.
    let arg = |name: &str| {
        let command = command.get_subcommands().find(|command| command.get_name() == name).expect("a command");
        command.get_arguments().find(|arg| arg.get_id() == "toy_strength").map(|arg| arg.get_env().is_some())
    };
    assert_eq!(["compare", "replay", "inspect"].map(arg), [Some(true), Some(false), None]);
}

#[test]
fn it_is_a_key_of_files_of_prompts() {
    let read = |text: &str| read_prompts("p.txt", text.as_bytes());
    let lines = read(r#"{"prompt": "p", "toy-strength": 2}"#).expect("valid");
    let flags = Wanted { toy_strength: Some(1.0), ..Wanted::default() };
    let merged = Merged::of(Source::Flag, &flags).with(Source::Line, &lines[0].wanted());
    assert_eq!((merged.wanted.toy_strength, merged.by("toy_strength")), (Some(2.0), Some(Source::Line)));
    let refused = read(r#"{"prompt": "p", "toy_strength": "much"}"#).expect_err("no number");
    assert_eq!(refused.to_string(), "p.txt line 1: toy_strength is \"much\"");
    assert!(
        read(r#"{"prompt": "p", "toy_strenght": 1}"#)
            .expect_err("a slip")
            .hint()
            .expect("advice")
            .contains("\"toy_strength\"?")
    );
}

#[test]
fn a_picture_says_it_and_is_made_again_with_it() {
    let toy = recipe(&["--toy-strength", "0.5"]);
    let said: Value = json!(toy);
    assert_eq!(said["toy_strength"], 0.5);
    assert_eq!(Recipe::of_picture(&said).expect("its own"), toy);
    assert!(toy.info_lines().contains(&("toy_strength", "0.5".to_owned())));
    let Some(Command::Replay(replay)) = parse(&["replay", "x.png", "--toy-strength", "0.7"]).command else {
        panic!("a replay")
    };
    let typed = Merged::of(Source::Picture, &Wanted::from(&toy)).with(Source::Flag, &replay.flags.settings.wanted);
    assert_eq!(typed.wanted.toy_strength, Some(0.7));
}

/// A picture from before there was the setting is the picture with its usual value.
#[test]
fn pictures_from_before_it_stay_what_they_are() {
    let usual = json!(recipe(&["--toy-strength", "0"]));
    assert!(usual.get("toy_strength").is_none(), "{usual}");
    assert_eq!(usual, json!(recipe(&[])));
    assert_eq!(Recipe::of_picture(&usual).expect("its own").toy_strength, 0.0);
    assert!(!recipe(&[]).info_lines().iter().any(|(name, _)| *name == "toy_strength"));
    let key = |recipe: &Recipe| crate::run::settings_key(&json!(recipe));
    assert_eq!(key(&recipe(&["--toy-strength", "0"])), key(&recipe(&[])));
    assert_ne!(key(&recipe(&["--toy-strength", "1"])), key(&recipe(&[])));
}
