//! Files of one run beside each other and those it reads: none takes another's place, and a dry run says so too.

use std::fs;

use dype::testing::output::read_provenance;
use serde_json::Value;

use crate::support::{
    fixture,
    program::{Place, rgb8, small},
};

fn settings(place: &Place, name: &str) -> Value {
    read_provenance(&place.path(name)).expect("readable").expect("a picture of ours")["settings"].clone()
}

#[test]
fn no_file_of_a_run_takes_another_s_place() {
    let place = Place::new();
    fs::copy(fixture("img2img/input.png"), place.path("in.png")).expect("copied");
    let before = fs::read(place.path("in.png")).expect("there");
    for (flags, words) in [
        ("-o x.png --preview ./x.png", ["--preview", "a picture goes to this file"]),
        ("-o x.png --preview in.png", ["--preview in.png", "no preview"]),
        ("-o x.png --image in.png --preview in.png --overwrite", ["--preview", "a picture begins with this file"]),
        ("-o x.png --save-latents x.png", ["--save-latents", "a picture goes to this file"]),
        ("-o x.png --save-latents in.png --image in.png", ["--save-latents", "a picture begins with this file"]),
        ("-o x.png --save-latents y.png --preview y.png", ["--preview", "latents go to this file"]),
        ("-o in.png --image in.png --overwrite -n 2", ["--overwrite", "another begins with"]),
        ("-o x.png --preview -", ["--preview -", "stdout"]),
        ("-o x.png --save-latents -", ["--save-latents -", "stdout"]),
        ("-o x.png --save-latents new/", ["--save-latents new/", "is a folder"]),
        ("-o x.png --preview now.png/", ["--preview now.png/", "is a folder"]),
        ("-o x.tiff", [".tiff", ".png"]),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        place.small(&flags).fails(2, &words);
        place.small(&[&flags[..], &["--dry-run"]].concat()).fails(2, &words);
    }
    assert_eq!(place.names(), ["in.png"]);
    assert!(fs::read(place.path("in.png")).expect("there") == before);
}

/// What it is for still goes: a preview is replaced by the next, and a picture that is named by itself may go.
#[test]
fn previews_replace_previews_and_a_picture_may_take_the_place_of_what_it_begins_with() {
    let place = Place::new();
    for name in ["x.png", "y.png"] {
        place.small(&["-o", name, "--preview", "now.png"]).succeeds();
    }
    assert_eq!(place.names(), ["now.png", "x.png", "y.png"]);
    let again = ["-o", "x.png", "--overwrite", "--image", "x.png", "--strength", "0.5", "--steps", "2"];
    place.small(&again).succeeds();
    assert_eq!(settings(&place, "x.png")["strength"], 0.5);
}

#[test]
fn a_dry_run_tells_what_the_run_tells() {
    let place = Place::new();
    let note = "DyPE has no effect at this size";
    place.small(&["-o", "x.png"]).succeeds().tells(&[note]);
    place.small(&["-o", "x.png", "--dry-run"]).succeeds().tells(&[note]);
}

#[test]
fn a_plot_keeps_the_file_that_is_there() {
    let place = Place::new();
    fs::write(place.path("x.png"), "mine").expect("written");
    assert_eq!(place.dype(&["inspect", "--steps", "2", "--plot", "x.png"]).succeeds().stdout, "x_2.png\n");
    assert_eq!(fs::read(place.path("x.png")).expect("there"), b"mine");
}

#[test]
fn variables_of_pictures_do_not_stand_in_the_way_of_an_inspection_or_a_replay() {
    let place = Place::new();
    let with = |name: &str, value: &str, args: &[&str]| {
        let ended = place.command(args).env(name, value).output().expect("starts");
        assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("text")
    };
    with("DYPE_PROMPT", "a lake", &["inspect", "--steps", "2"]);
    with("DYPE_MAX_SEQUENCE_LENGTH", "256", &["inspect", "--t", "0.5"]);
    place.small(&["-o", "x.png", "--seed", "7"]).succeeds();
    fs::write(place.path("p.txt"), "a cat\na dog\n").expect("written");
    for (name, value) in [("DYPE_SEEDS", "1-3"), ("DYPE_COUNT", "2"), ("DYPE_PROMPTS", "p.txt")] {
        let said = with(name, value, &["replay", "x.png", "--dry-run", "--json"]);
        let plans: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(plans.len(), 1, "{name}");
        assert_eq!((&plans[0]["settings"]["seed"], &plans[0]["settings"]["prompt"]), (&7.into(), &"a lake".into()));
    }
}

#[test]
fn latents_are_decoded_by_the_model_that_they_name() {
    let place = Place::new();
    place.small(&["-o", "x.png", "--save-latents", "l.safetensors"]).succeeds();
    place.dype(&["decode", "l.safetensors", "-o", "y.png", "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")));
}

#[test]
fn an_empty_prompt_of_a_file_is_taken_where_it_is_meant() {
    let place = Place::new();
    fs::write(place.path("p.txt"), "{\"prompt\": \"\"}\n").expect("written");
    let prompts = |more: &[&str]| {
        let flags: Vec<String> = small(&[]).into_iter().filter(|word| word != "--prompt" && word != "a lake").collect();
        let more = ["--prompts", "p.txt", "-o", "x.png"].iter().chain(more).map(|word| (*word).to_owned());
        place.dype(&flags.into_iter().chain(more).collect::<Vec<_>>())
    };
    prompts(&[]).fails(2, &["p.txt line 1: the prompt is empty", "--allow-empty-prompt"]);
    prompts(&["--allow-empty-prompt"]).succeeds();
    assert_eq!(settings(&place, "x.png")["prompt"], "");
}

/// Some programs leave bytes behind a picture's end; a picture that ends early is another thing.
#[test]
fn bytes_behind_a_picture_do_not_make_it_cut_short() {
    let place = Place::new();
    for name in ["x.png", "x.jpg", "x.webp"] {
        place.small(&["-o", name]).succeeds();
        let mut bytes = fs::read(place.path(name)).expect("there");
        bytes.push(b'x');
        fs::write(place.path(name), &bytes).expect("written");
        let run = place.small(&["-o", name, "--resume"]);
        assert!(!run.succeeds().stderr.contains("cut short"), "{}", run.stderr);
        assert_eq!(fs::read(place.path(name)).expect("there"), bytes, "{name}");
        fs::write(place.path(name), &bytes[..bytes.len() - 3]).expect("written");
        place.small(&["-o", name, "--resume"]).succeeds().tells(&["cut short"]);
    }
}

#[test]
fn latents_that_a_picture_is_there_without_are_told_of() {
    let place = Place::new();
    place.small(&["-o", "x.png"]).succeeds();
    let run = place.small(&["-o", "x.png", "--resume", "--save-latents", "l.safetensors"]);
    run.succeeds().tells(&["x.png is there already", "l.safetensors is not"]);
}

/// Steps so many or so near each other that two begin at one sigma.
#[test]
fn many_steps_of_a_sampler_that_begins_below_one_are_a_schedule() {
    let place = Place::new();
    let tiny = ["-o", "x.png", "--height", "16", "--width", "16", "--dry-run", "--sampler", "er-sde"];
    place.small(&[&tiny[..], &["--steps", "300", "--schedule", "beta"]].concat()).succeeds();
    place.small(&[&tiny[..], &["--steps", "10000"]].concat()).succeeds();
    place.small(&[&tiny[..], &["--steps", "8", "--mu", "60"]].concat()).fails(2, &["mu 60", "leave --mu out"]);
    let image = fixture("img2img/input.png").display().to_string();
    let none = ["-o", "x.png", "--image", &image, "--steps", "2000", "--schedule", "beta", "--strength", "0.001"];
    for flags in [&none[..], &[&none[..], &["--dry-run"]].concat()] {
        place.small(flags).fails(2, &["no step of this schedule is left", "--strength"]);
    }
}
