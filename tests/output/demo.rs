//! The model inside the program: its picture against the reference's, and its folder for others.

#![cfg(feature = "demo")]

use crate::support::{
    fixture,
    golden::assert_same_picture,
    program::{Place, Run, rgb8},
};
use serde_json::Value;

/// What diffusers' FluxPipeline was asked for (`tools/demo-model/check.py`), as `tests/fixtures/expected/demo.png` shows.
const PICTURE: [&str; 18] = [
    "--model",
    "demo",
    "--prompt",
    "a calm lake below snowy mountains at sunset",
    "--height",
    "512",
    "--width",
    "512",
    "--steps",
    "8",
    "--seed",
    "0",
    "--guidance",
    "3.5",
    "--device",
    "cpu",
    "-o",
    "x.png",
];

#[test]
fn it_makes_the_references_picture() {
    let place = Place::new();
    place.dype(&PICTURE).succeeds();
    assert_same_picture(&rgb8(&place.path("x.png")), &rgb8(&fixture("expected/demo.png")));
}

/// A picture of one step, as JSON of what made it.
fn one_step(place: &Place, model: &str, output: &str) -> Value {
    let run = place.dype(&[
        "--model", model, "--height", "64", "--width", "64", "--steps", "1", "--device", "cpu", "--json", "-o", output,
    ]);
    serde_json::from_str(&run.succeeds().stdout).expect("JSON")
}

/// A file that stands in for a part of a folder says nothing of what its config says: the model's own still holds, where the weights are
/// as it says.
#[test]
fn parts_given_as_files_keep_what_the_model_says_of_them() {
    let place = Place::new();
    place.dype(&["export-demo", "demo"]).succeeds();
    let mut flags: Vec<String> = Vec::new();
    for (part, file) in [
        ("transformer", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
        ("vae", "diffusion_pytorch_model"),
    ] {
        let ours = format!("of-{part}.safetensors");
        std::fs::copy(place.path(format!("demo/{part}/{file}.safetensors")), place.path(&ours)).expect("copied");
        flags.extend(["--part".into(), format!("{part}={ours}")]);
    }
    let picture = |more: &[String], output: &str| {
        let sizes = ["--height", "576", "--width", "576", "--steps", "1", "--device", "cpu", "--json", "-o", output];
        let flags: Vec<&str> =
            ["--model", "demo"].into_iter().chain(sizes).chain(more.iter().map(String::as_str)).collect();
        let said: Value = serde_json::from_str(&place.dype(&flags).succeeds().stdout).expect("JSON");
        said["settings"].clone()
    };
    let (whole, parts) = (picture(&[], "a.png"), picture(&flags, "b.png"));
    assert_eq!(whole, parts);
    assert_eq!((&whole["base_resolution"], &whole["dype_scale"]), (&512.into(), &4.0.into()));
    assert_eq!(rgb8(&place.path("a.png")), rgb8(&place.path("b.png")));
}

#[test]
fn a_part_that_is_not_there_is_told_of_by_its_own_flag() {
    let place = Place::new();
    for (part, flag) in [("transformer", "--part transformer"), ("text_encoder", "--text-encoder"), ("vae", "--vae")] {
        let run = place.dype(&["--model", "demo", "--part", &format!("{part}=/nope"), "--dry-run"]);
        run.fails(1, &[flag, "no file or folder /nope"]);
    }
}

#[test]
fn its_exported_folder_is_the_same_model() {
    let place = Place::new();
    let run = place.dype(&["export-demo", "folder/demo"]);
    assert_eq!(run.succeeds().stdout, "folder/demo\n");
    let (inside, outside) = (one_step(&place, "demo", "a.png"), one_step(&place, "folder/demo", "b.png"));
    assert_eq!(rgb8(&place.path("a.png")), rgb8(&place.path("b.png")));
    assert_eq!(inside["settings"], outside["settings"]);
    assert_eq!(inside["settings"]["base_resolution"], 512);
    assert_eq!(inside["settings"]["max_sequence_length"], 24, "as many tokens as its tokenizer says it reads");
    let folder = std::fs::canonicalize(place.path("folder/demo")).expect("it is there").display().to_string();
    assert_eq!((&inside["model"]["model"], &outside["model"]["model"]), (&"demo".into(), &folder.into()));
    place.dype(&["export-demo", "folder/demo"]).fails(2, &["folder/demo is there already", "new folder"]);
}

#[test]
fn a_folder_of_its_name_does_not_hide_it() {
    let place = Place::new();
    std::fs::create_dir(place.path("demo")).expect("a folder");
    assert_eq!(one_step(&place, "demo", "a.png")["model"]["model"], "demo");
}

#[test]
fn a_picture_says_which_it_was_made_by_and_is_replayed_by_no_other() {
    let place = Place::new();
    let made = one_step(&place, "demo", "a.png");
    place.dype(&["replay", "a.png", "-o", "b.png"]).succeeds();
    assert_eq!(rgb8(&place.path("a.png")), rgb8(&place.path("b.png")));
    let revision = made["model"]["revision"].as_str().expect("a revision");
    let run = place.dype(&["replay", "a.png", "--model", "demo@000000000000", "-o", "c.png"]);
    run.fails(1, &["demo@000000000000", revision, "--model demo"]);
}

#[test]
fn the_default_model_out_of_reach_names_it() {
    let place = Place::new();
    let mut command = place.command(&["--height", "64", "--width", "64", "-o", "x.png"]);
    let home = place.path("hf");
    let run = Run::from(command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", &home).output().expect("the program starts"));
    run.fails(1, &["black-forest-labs/FLUX.1-Krea-dev", "--model demo"]);
}
