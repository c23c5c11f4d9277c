//! Variables, completions, man pages, help.

use std::fs;

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

/// What a variable of one flag says counts only where the flag has a sense.
#[test]
fn variables_of_other_runs_do_no_harm() {
    let place = Place::new();
    let with = |variables: &[(&str, &str)], args: &[&str]| -> crate::support::program::Run {
        let mut command = place.command(args);
        command.envs(variables.iter().copied()).output().expect("starts").into()
    };
    let made = small(&["-o", "x.png", "--save-latents", "l.safetensors", "--width", "80"]);
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    with(&[("DYPE_PREVIEW_EVERY", "2")], &made).succeeds();
    let model = crate::support::fixture("tiny-flux").display().to_string();
    let decode = ["decode", "l.safetensors", "-o", "y.png", "--model", &model];
    with(&[("DYPE_WIDTH", "64"), ("DYPE_HEIGHT", "64")], &decode).succeeds();
    with(&[("DYPE_WIDTH", "4096")], &[&decode[..], &["--overwrite"]].concat()).succeeds();
    let size = image::image_dimensions(place.path("y.png")).expect("a picture");
    assert_eq!(size, (80, 64), "what the latents say");
}

#[test]
fn seeds_are_drawn_and_told_and_recorded() {
    let place = Place::new();
    let mut seeds = std::collections::BTreeSet::new();
    for seed in ["--seed=random", "--seed=-1"] {
        let run = dype(&place, &["--prompt", "a lake", seed, "-o", "x.png", "--overwrite"]);
        let made = provenance(&place.path(lines(run.succeeds())[0]))["settings"]["seed"].as_u64().expect("a seed");
        run.tells(&[&format!("seed {made} was drawn"), &format!("--seed {made}")]);
        assert!(made < 1 << 32);
        seeds.insert(made);
    }
    assert_eq!(seeds.len(), 2);
    dype(&place, &["--prompt", "a lake", "--seed", "-2"]).fails(2, &["random"]);
}

#[test]
fn seeds_that_make_one_picture_are_told() {
    let place = Place::new();
    let told =
        |args: &[&str]| dype(&place, &[&["--prompt", "a lake", "-o", "o/"], args].concat()).succeeds().stderr.clone();
    let alike = told(&["--seeds", "7,4294967303"]);
    assert!(alike.contains("seeds 7 and 4294967303 give the same picture"), "{alike}");
    let first = crate::support::program::rgb8(&place.path("o/seed_7_method_dy_yarn_res_64x64.png"));
    assert!(first == crate::support::program::rgb8(&place.path("o/seed_4294967303_method_dy_yarn_res_64x64.png")));
    for other in [&["--seeds", "7,4294967304"][..], &["--seeds", "8,4294967304", "--rng", "torch-cuda:h100"]] {
        assert!(!told(other).contains("the same picture"), "{other:?}");
    }
}

#[test]
fn an_empty_prompt_is_refused_unless_it_is_meant() {
    let place = Place::new();
    for prompt in ["", "  ", "\t\n"] {
        dype(&place, &["--prompt", prompt]).fails(2, &["the prompt is empty", "--allow-empty-prompt"]);
        place.dype(&["compare", "--prompt", prompt]).fails(2, &["the prompt is empty"]);
    }
    dype(&place, &["--prompt", "-"]).fails(2, &["the prompt is empty"]);
    let run = dype(&place, &["--prompt", "", "--allow-empty-prompt", "-o", "x.png"]);
    assert_eq!(provenance(&place.path(lines(run.succeeds())[0]))["settings"]["prompt"], "");
    place.dype(&["replay", "x.png", "-o", "y.png"]).succeeds();
    let marked = place.small_with_input(&["--prompt", "-", "-o", "z.png"], "\u{feff}a lake\n".as_bytes());
    marked.succeeds();
    assert_eq!(provenance(&place.path("z.png"))["settings"]["prompt"], "a lake");
    place.small_with_input(&["--prompt", "-"], b"a\0 \0l\0").fails(2, &["UTF-16"]);
}

#[test]
fn what_other_programs_read_otherwise_is_noted_once() {
    let place = Place::new();
    fs::write(place.path("p.txt"), "a (red:1.3) fox\n<lora:x:0.8> a fox\n").expect("written");
    let run = dype(&place, &["--prompts", "p.txt"]);
    assert_eq!(run.succeeds().stderr.matches("prompts are read literally").count(), 1, "{}", run.stderr);
    let run = dype(&place, &["--prompt", "a lake\nNegative prompt: boats", "-o", "n.png"]);
    run.succeeds().tells(&["Negative prompt:", "JSON"]);
    let plain = dype(&place, &["--prompt", "a lake (at 10:30), 16:9"]);
    assert!(!plain.succeeds().stderr.contains("note: prompts"), "{}", plain.stderr);
}
