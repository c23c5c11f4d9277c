//! Variables, completions, man pages, help.

use crate::{
    dype, lines, provenance,
    support::program::{Place, small},
};

#[test]
fn variables_stand_in_for_flags_and_flags_win() {
    let place = Place::new();
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = place.command(&small(&[args, &["--overwrite", "-o", "x.png"]].concat()));
        command.envs(variables.iter().copied());
        let run: crate::support::program::Run = command.output().expect("starts").into();
        run.succeeds();
        provenance(&place.path("x.png"))["settings"].clone()
    };
    assert_eq!(with(&[("DYPE_SEED", "9"), ("DYPE_METHOD", "ntk")], &[])["seed"], 9);
    assert_eq!(with(&[("DYPE_SEED", "9")], &["--seed", "3"])["seed"], 3);
    assert_eq!(with(&[("DYPE_NO_DYPE", "1")], &[])["dype"], false);
    for off in ["0", "false", ""] {
        assert_eq!(with(&[("DYPE_NO_DYPE", off)], &[])["dype"], true, "{off:?}");
    }
    assert_eq!(with(&[("DYPE_NO_DYPE", "1")], &["--dype-scale", "2"])["dype"], true, "what was typed excludes it");
    assert_eq!(with(&[("DYPE_SEEDS", "4,5")], &["--seed", "3"])["seed"], 3);
}

#[test]
fn a_variable_that_makes_no_sense_is_named() {
    let place = Place::new();
    let mut command = place.command(&small(&[]));
    let run: crate::support::program::Run = command.env("DYPE_METHOD", "yarm").output().expect("starts").into();
    run.fails(2, &["yarm", "--method"]);
}

#[test]
fn help_shows_the_variables_and_fits_80_columns() {
    let place = Place::new();
    for command in [&["--help"][..], &["compare", "--help"], &["replay", "--help"], &["decode", "--help"]] {
        let mut run = place.command(command);
        let run: crate::support::program::Run =
            run.env("COLUMNS", "80").env("DYPE_STEPS", "77").output().expect("starts").into();
        let help = &run.succeeds().stdout;
        assert!(help.contains("[env: DYPE_MEMORY]"), "{help}");
        assert!(!help.contains("77"), "values are not shown");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn completions_and_man_pages_are_printed() {
    let place = Place::new();
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef dype"), ("fish", "complete -c dype")] {
        let run = place.dype(&["completions", shell]);
        let text = &run.succeeds().stdout;
        assert!(text.contains(word) && text.contains("checkpoint-every") && text.contains("replay"), "{shell}");
    }
    place.dype(&["completions", "tcsh"]).fails(2, &["tcsh"]);
    let page = place.dype(&["man"]);
    assert!(page.succeeds().stdout.contains(".TH dype") && page.stdout.contains("DYPE_PROMPTS"));
    assert!(place.dype(&["man", "compare"]).succeeds().stdout.contains("methods"));
    place.dype(&["man", "comparison"]).fails(2, &["no command comparison", "compare"]);
}

#[test]
fn commands_do_not_take_the_flags_of_others() {
    let place = Place::new();
    assert!(lines(dype(&place, &["--dry-run", "--prompt", "x"]).succeeds()).len() > 5);
    place.dype(&["info", "x.png", "--seed", "1"]).fails(2, &["--seed"]);
}
