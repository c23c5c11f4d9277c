//! What a picture says of itself, and the same picture made from it.

use std::fs;

use serde_json::json;

use crate::{
    dype, lines, names, provenance,
    support::{
        copy_folder, fixture,
        program::{Place, rgb8},
    },
};

/// A picture with many settings of its own.
const OWN: [&str; 14] = [
    "--prompt",
    "a lake, still",
    "--steps",
    "2",
    "--seed",
    "7",
    "--method",
    "ntk",
    "--dype-scale",
    "1.7",
    "--guidance",
    "3.3",
    "--base-resolution",
    "32",
];

#[test]
fn a_replay_is_the_same_picture_from_any_format() {
    for ending in ["png", "jpg", "webp"] {
        let place = Place::new();
        let file = format!("x.{ending}");
        dype(&place, &[&OWN[..], &["-o", &file]].concat()).succeeds();
        let run = place.dype(&["replay", &file, "-o", &format!("again.{ending}")]);
        run.succeeds();
        assert_eq!(fs::read(place.path(&file)).expect("read"), fs::read(place.path(lines(&run)[0])).expect("read"));
    }
}

#[test]
fn flags_replace_what_the_picture_says() {
    let place = Place::new();
    dype(&place, &[&OWN[..], &["-o", "x.png"]].concat()).succeeds();
    let settings = |args: &[&str]| {
        let run = place.dype(&[&["replay", "x.png", "--overwrite", "-o", "y.png"], args].concat());
        run.succeeds();
        provenance(&place.path("y.png"))["settings"].clone()
    };
    let own = provenance(&place.path("x.png"))["settings"].clone();
    assert_eq!(settings(&[]), own);
    let with = |changes: &[(&str, serde_json::Value)]| {
        let mut expected = own.clone();
        for (key, value) in changes {
            expected[*key] = value.clone();
        }
        expected
    };
    assert_eq!(settings(&["--seed", "42"]), with(&[("seed", json!(42))]), "a default that is typed counts");
    assert_eq!(settings(&["--width", "80"]), with(&[("width", json!(80))]));
    let yarn = [("method", json!("yarn")), ("dype_scale", json!(1.0)), ("dype_exponent", json!(2.0))];
    assert_eq!(settings(&["--method", "yarn"]), with(&yarn), "the other method has its own lambdas");
    let off = [("dype", json!(false)), ("dype_scale", json!(null)), ("dype_exponent", json!(null))];
    assert_eq!(settings(&["--no-dype"]), with(&off));
}

#[test]
fn a_switch_that_a_picture_says_can_be_turned_off() {
    let place = Place::new();
    dype(&place, &["--prompt", "a lake", "--steps", "1", "--text-anchor", "--no-dype", "-o", "x.png"]).succeeds();
    let settings = |args: &[&str]| {
        place.dype(&[&["replay", "x.png", "--overwrite", "-o", "y.png"], args].concat()).succeeds();
        let settings = provenance(&place.path("y.png"))["settings"].clone();
        [settings["text_anchor"].clone(), settings["dype"].clone()]
    };
    assert_eq!(settings(&[]), [json!(true), json!(false)]);
    assert_eq!(settings(&["--no-text-anchor"]), [json!(null), json!(false)]);
    assert_eq!(settings(&["--dype"]), [json!(true), json!(true)]);
}

#[test]
fn a_replay_may_be_a_batch_of_variations() {
    let place = Place::new();
    dype(&place, &[&OWN[..], &["-o", "x.png"]].concat()).succeeds();
    let run = place.dype(&["replay", "x.png", "--seeds", "1-3", "-o", "more/"]);
    assert_eq!(lines(run.succeeds()).len(), 3);
    assert_eq!(provenance(&place.path(lines(&run)[2]))["settings"]["guidance"], 3.3);
}

#[test]
fn variables_do_not_stand_in_a_replays_way() {
    let place = Place::new();
    dype(&place, &[&OWN[..], &["-o", "x.png"]].concat()).succeeds();
    let mut command = place.command(&["replay", "x.png"]);
    command
        .env("DYPE_SEED", "9")
        .env("DYPE_NO_DYPE", "1")
        .env("DYPE_PROMPT", "x")
        .env("DYPE_MODEL", "no/such")
        .env("DYPE_OUTPUT", "y.png");
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(provenance(&place.path("y.png"))["settings"], provenance(&place.path("x.png"))["settings"]);
}

#[test]
fn info_tells_people_and_programs() {
    let place = Place::new();
    dype(&place, &[&OWN[..], &["-o", "x.webp"]].concat()).succeeds();
    let run = place.dype(&["info", "x.webp"]);
    let text = &run.succeeds().stdout;
    for words in
        ["a lake, still", "64 x 64 px", "7, noise of torch-cpu", "kappa(t) = 1.7 t^2", "tiny-flux", "on cpu in f32"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let run = place.dype(&["info", "--json", "x.webp"]);
    let json: serde_json::Value = serde_json::from_str(&run.succeeds().stdout).expect("JSON");
    assert_eq!(json, provenance(&place.path("x.webp")));
}

/// A picture that says this of itself.
fn saying(place: &Place, name: &str, json: serde_json::Value) {
    let picture = dype::testing::output::Picture { height: 1, width: 1, rgb8: vec![0; 3] };
    let provenance = dype::testing::output::Provenance { parameters: String::new(), json };
    dype::testing::output::save(&place.path(name), &picture, &provenance, false).expect("saved");
}

#[test]
fn pictures_that_cannot_be_replayed_say_why() {
    let place = Place::new();
    image::RgbImage::new(3, 3).save(place.path("plain.png")).expect("saved");
    fs::write(place.path("text.png"), "no picture, but more than twelve bytes").expect("written");
    saying(&place, "newer.png", json!({ "program": "dype", "program_version": "9.1.0", "provenance_version": 2 }));
    saying(&place, "null.png", json!(null));
    let odd = json!({ "program": "dype", "provenance_version": 1, "settings": { "prompt": 3 } });
    saying(&place, "odd.png", odd);
    for command in ["info", "replay"] {
        for (file, words) in [
            ("plain.png", &["plain.png does not say how it was made"][..]),
            ("null.png", &["does not say how it was made"]),
            ("text.png", &["neither PNG, JPEG nor WebP"]),
            ("newer.png", &["made by dype 9.1.0", "newer", "update dype"]),
            ("odd.png", &["settings make no sense"]),
        ] {
            place.dype(&[command, file]).fails(2, words);
        }
        let missing = place.dype(&[command, "missing.png"]);
        assert_eq!(missing.code, Some(1));
        missing.tells(&["missing.png"]);
    }
    assert!(place.dype(&["info", "--json", "newer.png"]).succeeds().stdout.contains("9.1.0"));
    assert!(!names(&place.path("")).contains(&"outputs".to_owned()), "nothing was begun");
}

#[test]
fn saved_latents_decode_to_the_same_picture() {
    let place = Place::new();
    let args =
        ["--prompt", "a lake", "--width", "80", "--height", "40", "--save-latents", "l.safetensors", "-o", "x.png"];
    dype(&place, &args).succeeds();
    let model = fixture("tiny-flux");
    let model = model.to_str().expect("UTF-8");
    let run = place.dype(&["decode", "l.safetensors", "-o", "y.png", "--model", model]);
    assert_eq!(lines(run.succeeds()), ["y.png"]);
    assert_eq!(fs::read(place.path("x.png")).expect("read"), fs::read(place.path("y.png")).expect("read"));
    let vae = format!("{model}/vae");
    place.dype(&["decode", "l.safetensors", "-o", "z.png", "--vae", &vae]).succeeds();
    assert_eq!(rgb8(&place.path("x.png")), rgb8(&place.path("z.png")));
    let wrong = ["decode", "l.safetensors", "-o", "w.png", "--model", model, "--width", "64", "--height", "64"];
    place.dype(&wrong).fails(2, &["15 tokens", "--height"]);
    let bytes = fs::read(place.path("l.safetensors")).expect("read");
    fs::write(place.path("cut.safetensors"), &bytes[..bytes.len() - 1]).expect("written");
    let run = place.dype(&["decode", "cut.safetensors", "-o", "w.png", "--model", model]);
    run.fails(1, &["cut.safetensors"]);
}

/// What no flag may say, no picture may say either: it is refused before a model is looked for.
#[test]
fn a_strangers_picture_is_checked_as_flags_are() {
    let place = Place::new();
    dype(&place, &[&OWN[..], &["-o", "x.png"]].concat()).succeeds();
    let own = provenance(&place.path("x.png"));
    for (name, key, value, words) in [
        ("steps.png", "steps", json!(10_000_000_000_000_000_000_u64), "steps is 10000000000000000000"),
        ("tokens.png", "max_sequence_length", json!(1_u64 << 40), "max_sequence_length is 1099511627776"),
        ("base.png", "base_resolution", json!(0), "base_resolution is 0"),
        ("scale.png", "dype_scale", json!(-3e9), "dype_scale is -3000000000.0"),
        ("mu.png", "mu", json!("NaN"), "mu is \"NaN\""),
        ("later.png", "text_anchor_of_the_future", json!(1), "is no setting of this version"),
    ] {
        let mut json = own.clone();
        json["settings"][key] = value;
        json["model"]["model"] = json!("no/such-model");
        saying(&place, name, json);
        for command in ["info", "replay"] {
            place.dype(&[command, name]).fails(2, &[name, "its settings make no sense", words]);
        }
    }
}

#[test]
fn a_picture_is_replayed_from_any_folder() {
    let place = Place::new();
    copy_folder(&fixture("tiny-flux"), &place.path("models/m"));
    dype(&place, &["--prompt", "a lake", "--model", "models/m", "--vae", "models/m/vae", "-o", "out/x.png"]).succeeds();
    let elsewhere = Place::new();
    let picture = place.path("out/x.png");
    let replay = |picture: &std::path::Path| {
        let run = elsewhere.dype(&["replay", picture.to_str().expect("UTF-8"), "-o", "y.png", "--overwrite"]);
        run.succeeds();
        rgb8(&elsewhere.path("y.png"))
    };
    assert_eq!(replay(&picture), rgb8(&picture));
    // One of the first version said the paths as they were typed.
    let mut json = provenance(&picture);
    json["model"] = json!({ "model": "models/m", "layout": "diffusers", "parts": { "vae": "models/m/vae" } });
    let made = dype::testing::output::Picture { height: 64, width: 64, rgb8: rgb8(&picture) };
    let provenance = dype::testing::output::Provenance { parameters: String::new(), json };
    dype::testing::output::save(&place.path("out/old.png"), &made, &provenance, false).expect("saved");
    assert_eq!(replay(&place.path("out/old.png")), rgb8(&picture));
}

#[test]
fn info_tells_what_a_picture_was_computed_with() {
    let place = Place::new();
    dype(&place, &["--prompt", "a lake", "-o", "x.png"]).succeeds();
    let model = provenance(&place.path("x.png"))["model"].clone();
    let start = &model["contents"]["transformer"].as_str().expect("a text")[..8];
    let run = place.dype(&["info", "x.png"]);
    let text = &run.succeeds().stdout;
    assert!(text.contains(&format!("transformer {start}")), "{text}");
    assert!(text.contains("dynamic shift, base 0.5 to max 1.15"), "{text}");
    assert_eq!(model["schedule"]["max_shift"], 1.15);
}

#[test]
fn what_a_picture_says_steers_no_terminal() {
    let place = Place::new();
    dype(&place, &["--prompt", "a lake", "-o", "x.png"]).succeeds();
    let mut json = provenance(&place.path("x.png"));
    json["settings"]["prompt"] = json!("a\u{1b}]0;owned\u{7}lake\nmodel      good");
    json["model"]["model"] = json!("no/such\u{1b}[2J\u{202e}model");
    json["program_version"] = json!("9\u{9b}31m");
    saying(&place, "odd.png", json);
    let info = place.dype(&["info", "odd.png"]);
    let replay = place.dype(&["replay", "odd.png", "-o", "y.png"]);
    assert_ne!(replay.code, Some(0));
    for text in [&info.succeeds().stdout, &info.stderr, &replay.stdout, &replay.stderr] {
        let is_odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(is_odd), "{text:?}");
    }
    assert!(info.stdout.contains(r"\u{1b}]0;owned"), "{}", info.stdout);
    assert!(!info.stdout.lines().any(|line| line.starts_with("model      good")), "{}", info.stdout);
}

#[test]
fn other_programs_are_told_a_source_of_noise_they_know() {
    let place = Place::new();
    for (rng, word) in [("torch-cpu", "RNG: CPU"), ("torch-cuda:h100", "RNG: GPU")] {
        dype(&place, &["--prompt", "a lake", "--rng", rng, "-o", "x.png", "--overwrite"]).succeeds();
        let bytes = fs::read(place.path("x.png")).expect("read");
        assert!(bytes.windows(word.len()).any(|found| found == word.as_bytes()), "{word}");
        assert_eq!(provenance(&place.path("x.png"))["settings"]["rng"], rng);
    }
}
