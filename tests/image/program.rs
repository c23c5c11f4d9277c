//! The program: a picture to begin with, what comes of it, and how it is found and made again.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use dype::testing::output::{load_latents, read_parameters, read_provenance};
use serde_json::{Value, json};

use crate::{
    golden::Golden,
    support::{
        fixture,
        golden::LATENTS_TOLERANCE,
        program::{Place, rgb8, small},
        relative_error, values,
    },
};

fn input() -> String {
    fixture("img2img/input.png").display().to_string()
}

/// The flags of a small picture but for its size.
fn unsized_flags(args: &[&str]) -> Vec<String> {
    let all = small(args);
    let at = all.iter().position(|word| word == "--height").expect("a height");
    [&all[..at], &all[at + 4..]].concat()
}

fn settings(place: &Place, name: &str) -> Value {
    read_provenance(&place.path(name)).expect("readable").expect("ours")["settings"].clone()
}

#[test]
fn the_program_meets_the_reference() {
    let golden = Golden::all().remove(1);
    let place = Place::new();
    let (model, input) = (fixture("tiny-flux").display().to_string(), input());
    let numbers = [golden.guidance, golden.seed as f64, golden.steps as f64, golden.strength].map(|n| n.to_string());
    let [guidance, seed, steps, strength] = &numbers;
    // Its size is the picture's.
    let run = place.dype(&[
        "--model",
        &model,
        "--image",
        &input,
        "--strength",
        strength,
        "--steps",
        steps,
        "--seed",
        seed,
        "--guidance",
        guidance,
        "--prompt",
        &golden.prompt,
        "--device",
        "cpu",
        "--dtype",
        "f32",
        "-o",
        "x.png",
        "--save-latents",
        "x.safetensors",
        "--json",
    ]);
    let told: Value = serde_json::from_str(&run.succeeds().stdout).expect("JSON");
    assert!(told["seconds"]["encode"].as_f64() > Some(0.0), "{told}");
    let latents = load_latents(&place.path("x.safetensors"), 64).expect("latents");
    let expected = &Golden::tensors()[&format!("{}/latents_final", golden.case)];
    let error = relative_error(&values(&latents), &values(expected));
    assert!(error < LATENTS_TOLERANCE, "{error:e}");
    let said = settings(&place, "x.png");
    assert_eq!((&said["height"], &said["width"], &said["strength"]), (&json!(192), &json!(256), &json!(0.6)));
    let sha256 = said["image"]["sha256"].as_str().expect("a digest").to_owned();
    assert_eq!(said["image"]["path"], json!(input));
    let text = read_parameters(&place.path("x.png")).expect("readable").expect("a text");
    assert_eq!(text.get("Denoising strength"), Some("0.6"));
    assert_eq!(text.get("Image"), Some(format!("{sha256} {input}").as_str()));
    let info = place.dype(&["info", "x.png"]);
    assert!(info.succeeds().stdout.contains("begins at step 5 of 10"), "{}", info.stdout);
}

#[test]
fn sides_follow_the_picture_and_a_changed_shape_is_told() {
    let place = Place::new();
    let size = |name: &str| {
        let said = settings(&place, name);
        [&said["height"], &said["width"]].map(|px| px.as_u64().expect("a side"))
    };
    let args = |more: &[&str]| unsized_flags(&[&["--image", &input(), "-o", "x.png", "--overwrite"], more].concat());
    let run = place.dype(&args(&["--width", "100"]));
    run.succeeds().tells(&["computed as 80 x 112"]);
    assert_eq!(size("x.png"), [75, 100]);
    assert_eq!(rgb8(&place.path("x.png")).len(), 3 * 75 * 100);
    assert!(!run.stderr.contains("stretched"), "{}", run.stderr);
    place.dype(&args(&["--height", "48"])).succeeds();
    assert_eq!(size("x.png"), [48, 64]);
    place.dype(&args(&["--height", "64", "--width", "64"])).succeeds().tells(&["stretched to 64 x 64"]);
    // One step of one begins at noise alone.
    place.dype(&args(&["--width", "64"])).tells(&["nothing of the picture is kept"]);
    let kept = place.dype(&args(&["--width", "64", "--steps", "2", "--strength", "0.5"]));
    assert!(!kept.succeeds().stderr.contains("nothing of the picture"), "{}", kept.stderr);
    let film = fixture("img2img/kinds/film.webp").display().to_string();
    place.small(&["--image", &film, "-o", "y.png"]).succeeds().tells(&["its first frame"]);
    place.small(&["--strength", "0.5", "-o", "z.png"]).succeeds().tells(&["--strength has no effect"]);
}

#[test]
fn strength_decides_how_much_is_kept_and_a_picture_alone_matters_nothing_else() {
    let place = Place::new();
    let plain = place.pixels(&["--steps", "4", "-o", "plain.png"]);
    assert!(settings(&place, "plain.png").get("image").is_none());
    let begun = |strength: &str| place.pixels(&["--steps", "4", "--image", &input(), "--strength", strength]);
    let (weak, strong) = (begun("0.25"), begun("0.75"));
    assert!(weak != strong && strong != plain);
}

#[test]
fn a_replay_needs_the_same_picture() {
    let place = Place::new();
    fs::copy(input(), place.path("draft.png")).expect("copied");
    let args = ["--image", "draft.png", "--strength", "0.5", "--steps", "4", "-o", "x.png"];
    place.small(&args).succeeds();
    let replay = |more: &[&str]| place.dype(&[&["replay", "x.png", "-o", "again.png", "--overwrite"], more].concat());
    replay(&[]).succeeds();
    assert_eq!(fs::read(place.path("x.png")).expect("read"), fs::read(place.path("again.png")).expect("read"));
    let said = settings(&place, "x.png");
    let sha256 = said["image"]["sha256"].as_str().expect("a digest").to_owned();
    // Another strength is another picture.
    replay(&["--strength", "0.75"]).succeeds();
    assert_ne!(rgb8(&place.path("x.png")), rgb8(&place.path("again.png")));
    fs::copy(fixture("img2img/kinds/plain.jpg"), place.path("draft.png")).expect("another");
    replay(&[]).fails(2, &["draft.png", &sha256]);
    fs::remove_file(place.path("draft.png")).expect("removed");
    replay(&[]).fails(2, &["draft.png", &sha256, "--image"]);
    replay(&["--image", &input()]).succeeds();
    assert_eq!(rgb8(&place.path("x.png")), rgb8(&place.path("again.png")), "the same picture from elsewhere");
}

#[test]
fn it_is_found_again_by_what_the_picture_holds() {
    let place = Place::new();
    fs::copy(input(), place.path("draft.png")).expect("copied");
    let args = |image: &'static str| ["--image", image, "--strength", "0.5", "--steps", "4", "--resume"];
    place.small(&args("draft.png")).succeeds();
    fs::rename(place.path("draft.png"), place.path("moved.png")).expect("moved");
    let again = place.small(&args("moved.png"));
    let outputs = || fs::read_dir(place.path("outputs")).expect("a folder").count();
    assert_eq!((again.succeeds().stdout.lines().count(), outputs()), (1, 1));
    fs::copy(fixture("img2img/kinds/plain.jpg"), place.path("moved.png")).expect("another");
    place.small(&args("moved.png")).succeeds();
    assert_eq!(outputs(), 2);
}

#[test]
fn a_resumed_picture_equals_the_uninterrupted_one() {
    let place = Place::new();
    let args = |name: &'static str| {
        let input: &'static str = Box::leak(input().into_boxed_str());
        small(&["--image", input, "--strength", "0.75", "--steps", "8", "-o", name])
    };
    place.dype(&args("whole.png")).succeeds();
    let mut child = place.command(&args("x.png")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("step 2/6")), "six of eight steps are done");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let run = place.dype(&[args("x.png"), vec!["--resume".to_owned()]].concat());
    run.succeeds().tells(&["going on after step", "of 6"]);
    assert_eq!(rgb8(&place.path("x.png")), rgb8(&place.path("whole.png")));
}

#[test]
fn a_dry_run_plans_the_encoder() {
    let place = Place::new();
    let line = |more: &[&str]| -> Value {
        let run = place.small(&[&["--dry-run", "--json", "--steps", "10"], more].concat());
        serde_json::from_str(&run.succeeds().stdout).expect("JSON")
    };
    let (plain, begun) = (line(&[]), line(&["--image", &input(), "--strength", "0.3"]));
    assert!(plain["plan"].get("encode_flops").is_none() && plain["plan"]["peak_bytes"].get("encode").is_none());
    let number = |json: &Value| json.as_f64().expect("a number");
    let (flops, steps) = (number(&begun["plan"]["encode_flops"]), number(&begun["plan"]["step_flops"]));
    assert_eq!(number(&begun["plan"]["total_flops"]), 3.0 * steps + number(&begun["plan"]["decode_flops"]) + flops);
    assert!(flops > 0.0 && number(&begun["plan"]["peak_bytes"]["encode"]) > 0.0);
    assert_eq!(plain["plan"]["peak_bytes"]["denoise"], begun["plan"]["peak_bytes"]["denoise"]);
    let table = place.small(&["--dry-run", "--image", &input(), "--strength", "0.3", "--steps", "10"]);
    for word in ["from step 8 of 10", "encode ", "3 steps"] {
        assert!(table.succeeds().stdout.contains(word), "{word}: {}", table.stdout);
    }
    let memory = ["--dry-run", "--image", &input(), "--memory", "10MB"];
    place.small(&memory).fails(1, &["encoding the picture takes at least"]);
}

#[test]
fn files_of_prompts_name_pictures_beside_them() {
    let place = Place::new();
    fs::create_dir(place.path("in")).expect("a folder");
    fs::copy(input(), place.path("in/draft.png")).expect("copied");
    let lines = r#"{"prompt": "a lake", "image": "draft.png", "strength": 0.5, "width": 64, "output": "a.png"}
{"prompt": "a hill", "image": {"file": "in/draft.png"}, "height": 48, "output": "b.png"}
{"prompt": "no picture", "width": 48, "height": 48, "output": "c.png"}"#;
    fs::write(place.path("in/list.jsonl"), lines).expect("written");
    let model = fixture("tiny-flux").display().to_string();
    let common = ["--model", &model, "--steps", "4", "--device", "cpu", "--max-sequence-length", "32"];
    let run = place.dype(&[&["--prompts", "in/list.jsonl"], &common[..]].concat());
    assert_eq!(run.succeeds().stdout, "a.png\nb.png\nc.png\n");
    let of = |name: &str| settings(&place, name);
    assert_eq!((&of("a.png")["height"], &of("b.png")["width"]), (&json!(48), &json!(64)));
    assert_eq!((&of("a.png")["strength"], &of("b.png")["strength"]), (&json!(0.5), &json!(0.6)));
    assert_eq!(of("a.png")["image"], of("b.png")["image"]);
    assert!(of("c.png").get("image").is_none());
    fs::write(place.path("in/list.jsonl"), r#"{"prompt": "a lake", "image": "gone.png"}"#).expect("written");
    place.dype(&[&["--prompts", "in/list.jsonl"], &common[..]].concat()).fails(1, &["gone.png"]);
}

#[test]
fn a_comparison_begins_with_the_picture_too() {
    let place = Place::new();
    let model = fixture("tiny-flux").display().to_string();
    let flags =
        ["--model", &model, "--steps", "2", "--strength", "0.5", "--device", "cpu", "--max-sequence-length", "32"];
    let more = ["--image", &input(), "--width", "64", "--prompt", "a lake", "--base-resolution", "32", "-o", "out/"];
    let run = place.dype(&[&["compare", "--methods", "base,dy_yarn"], &flags[..], &more].concat());
    assert_eq!(run.succeeds().stdout.lines().filter(|line| line.contains("48x64")).count(), 5, "{}", run.stdout);
}

#[test]
fn our_own_picture_is_made_larger_as_it_was_made() {
    let place = Place::new();
    place.small(&["--seed", "7", "--steps", "5", "--guidance", "3.5", "-o", "x.png"]).succeeds();
    let said = settings(&place, "x.png");
    let upscaled = |args: &[&str]| {
        // A variable says nothing against the picture.
        let mut command = place.command(&[args, &["-o", "y.png", "--overwrite"]].concat());
        let run = command.env("DYPE_STEPS", "9").env("DYPE_DEVICE", "cpu").output().expect("starts");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        settings(&place, "y.png")
    };
    let large = upscaled(&["--image", "x.png", "--upscale", "2"]);
    for key in ["prompt", "seed", "steps", "guidance", "max_sequence_length", "base_resolution"] {
        assert_eq!(large[key], said[key], "{key}");
    }
    assert_eq!((&large["height"], &large["width"], &large["strength"]), (&json!(128), &json!(128), &json!(0.4)));
    assert_eq!(upscaled(&["replay", "x.png", "--upscale", "2"]), large);
    let other =
        upscaled(&["--image", "x.png", "--upscale", "1.5", "--strength", "0.6", "--seed", "8", "--prompt", "a hill"]);
    assert_eq!((&other["height"], &other["strength"], &other["seed"]), (&json!(96), &json!(0.6), &json!(8)));
    assert_eq!((&other["prompt"], &other["steps"]), (&json!("a hill"), &json!(5)));
    // Again from itself, not from what it began with.
    fs::rename(place.path("y.png"), place.path("z.png")).expect("there");
    let again = upscaled(&["--image", "z.png", "--upscale", "1"]);
    assert!(again["image"]["path"].as_str().expect("a path").ends_with("z.png"), "{again}");
    assert_eq!((&again["height"], &again["strength"]), (&json!(96), &json!(0.4)));
}

/// A picture that climbed a ladder has its size already: it is drawn again from itself, by the knobs that are typed.
#[test]
fn a_picture_of_a_ladder_is_made_larger_and_switches_can_be_turned_back() {
    let place = Place::new();
    let ladder = ["--ladder", "32,64", "--ladder-pull", "0.5", "--steps", "2", "--base-resolution", "32"];
    place.small(&[&ladder[..], &["--text-anchor", "--no-dype", "-o", "x.png"]].concat()).succeeds();
    place.dype(&["--image", "x.png", "--upscale", "2", "--device", "cpu", "-o", "y.png"]).succeeds();
    let said = settings(&place, "y.png");
    assert_eq!((&said["height"], said.get("ladder"), &said["text_anchor"]), (&json!(128), None, &json!(true)));
    let back = ["--upscale", "2", "--device", "cpu", "--no-text-anchor", "--dype", "-o", "z.png"];
    place.dype(&[&["--image", "x.png"], &back[..]].concat()).succeeds();
    let said = settings(&place, "z.png");
    assert_eq!((said.get("text_anchor"), &said["dype"]), (None, &json!(true)));
    let climbs = [&["--image", "x.png"], &back[..4], &["--ladder", "auto", "-o", "w.png"]].concat();
    place.dype(&climbs).fails(2, &["--ladder", "--image"]);
}

/// It is read twice: once to know its size, once for its pixels.
#[cfg(unix)]
#[test]
fn a_picture_in_a_pipe_is_refused_at_once() {
    let place = Place::new();
    let pipe = place.path("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("starts").success());
    place.small(&["--image", "pipe.png"]).fails(2, &["pipe.png is a pipe", "save it to a file"]);
}

/// In a folder whose name is no text a plain name still means its file.
#[cfg(target_os = "linux")]
#[test]
fn a_picture_is_found_in_a_folder_whose_name_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let folder = place.path(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).expect("a folder");
    fs::copy(fixture("img2img/input.png"), folder.join("in.png")).expect("copied");
    let flags = small(&["--image", "in.png", "--strength", "0.5", "--steps", "2", "-o", "x.png"]);
    let ended = place.command(&flags).current_dir(&folder).output().expect("starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(folder.join("x.png").is_file());
}

#[test]
fn a_strangers_picture_is_made_larger_with_a_prompt() {
    let place = Place::new();
    let photo = fixture("img2img/kinds/plain.jpg").display().to_string();
    let model = fixture("tiny-flux").display().to_string();
    let flags =
        ["--model", &model, "--steps", "5", "--device", "cpu", "--image", &photo, "--upscale", "2", "-o", "x.png"];
    place.dype(&flags).fails(2, &["plain.jpg", "--prompt"]);
    place.dype(&[&flags[..], &["--prompt", "flags", "--max-sequence-length", "32"]].concat()).succeeds();
    let said = settings(&place, "x.png");
    assert_eq!((&said["height"], &said["width"], &said["strength"]), (&json!(32), &json!(64), &json!(0.4)));
}
