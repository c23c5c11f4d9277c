//! `--lora` as a process: what is said, what is refused, what pictures tell, and what makes two runs the same.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use super::support::{fixture, program::Place};

fn file(name: &str) -> String {
    fixture(&format!("lora/files/{name}.safetensors")).display().to_string()
}

/// What `dype info --json` says of a picture's LoRA files.
fn said(place: &Place, picture: &str) -> Value {
    let info = place.dype(&["info", picture, "--json"]);
    info.succeeds();
    let json: Value = serde_json::from_str(&info.stdout).expect("JSON");
    json["settings"]["lora"].clone()
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_loaded() {
    let place = Place::new();
    let folder = fixture("lora").display().to_string();
    for (lora, code, words) in [
        ("nowhere.safetensors", 2, &["--lora nowhere.safetensors", "no such file", "Hub id"][..]),
        (folder.as_str(), 2, &["is a folder"]),
        ("x.safetensors:200", 2, &["-100 to 100"]),
        (file("bad-in").as_str(), 1, &["[4, 144]", "[4, 128]"]),
        (file("bad-rank").as_str(), 1, &["ranks"]),
        (file("bad-qkv").as_str(), 1, &["[384, 4]"]),
        (file("other-family").as_str(), 1, &["made for another model", "Qwen-Image"]),
        (file("no-lora").as_str(), 1, &["no LoRA"]),
        (fixture("tiny-bfl/flux1-tiny.safetensors").display().to_string().as_str(), 1, &["no LoRA", "--model"]),
    ] {
        for more in [&[][..], &["--dry-run"]] {
            let run = place.small(&[&["--lora", lora], more].concat());
            if code == 2 && lora.ends_with(":200") {
                assert_eq!(run.code, Some(2), "{}", run.stderr);
                run.tells(words);
                continue;
            }
            run.fails(code, words);
        }
    }
    let made = std::fs::read_dir(place.path("outputs")).map_or(0, Iterator::count);
    assert_eq!(made, 0, "no picture was made");
}

#[test]
fn a_picture_says_its_files_and_is_made_again_with_them() {
    let place = Place::new();
    let (peft, kohya) = (file("peft"), file("kohya"));
    let first = format!("{peft}:0.6");
    place.small(&["-o", "x.png", "--lora", &first, "--lora", &kohya]).succeeds();
    place.small(&["-o", "plain.png"]).succeeds();
    let pixels = |name: &str| super::support::program::rgb8(&place.path(name));
    assert!(pixels("x.png") != pixels("plain.png"));
    let loras = said(&place, "x.png");
    assert_eq!((&loras[0]["name"], &loras[0]["strength"]), (&Value::from(peft.as_str()), &Value::from(0.6)));
    assert_eq!(loras[1]["strength"], 1.0);
    assert_eq!(loras[0]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(said(&place, "plain.png"), Value::Null);
    let info = place.dype(&["info", "x.png"]);
    assert!(info.succeeds().stdout.contains("peft.safetensors at 0.6"), "{}", info.stdout);
    place.dype(&["replay", "x.png", "-o", "again.png", "--device", "cpu"]).succeeds();
    assert!(pixels("again.png") == pixels("x.png"), "the same picture");
    assert_eq!(said(&place, "again.png"), loras);
    // Another strength is another picture; a file of the same name that holds something else is told of.
    std::fs::copy(&peft, place.path("l.safetensors")).expect("copies");
    place.small(&["-o", "l.png", "--lora", "l.safetensors:0.6", "--lora", &kohya]).succeeds();
    assert!(pixels("l.png") == pixels("x.png"));
    std::fs::copy(&kohya, place.path("l.safetensors")).expect("copies");
    place
        .dype(&["replay", "l.png", "-o", "other.png", "--device", "cpu"])
        .succeeds()
        .tells(&["l.safetensors", "not the one the picture was made with"]);
    assert!(pixels("other.png") != pixels("x.png"));
    std::fs::remove_file(place.path("l.safetensors")).expect("removes");
    place.dype(&["replay", "l.png", "--device", "cpu"]).fails(2, &["l.safetensors", "no such file"]);
}

#[test]
fn unused_tensors_are_counted_and_named_in_one_line() {
    let place = Place::new();
    let run = place.small(&["--lora", &file("extra-keys")]);
    run.succeeds().tells(&["7 of its 22 tensors", "emb_params", "and 4 more"]);
    assert_eq!(run.stderr.lines().filter(|line| line.contains("extra-keys.safetensors")).count(), 1, "{}", run.stderr);
}

#[test]
fn a_picture_is_found_again_by_what_its_files_hold() {
    let place = Place::new();
    let (peft, kohya) = (file("peft"), file("kohya"));
    let at = |lora: &str, strength: &str| place.small(&["--resume", "--json", "--lora", &format!("{lora}:{strength}")]);
    let existed = |run: &super::support::program::Run| {
        let json: Value = serde_json::from_str(run.succeeds().stdout.trim()).expect("JSON");
        json["existed"].as_bool().expect("told")
    };
    assert!(!existed(&at(&peft, "0.6")));
    assert!(existed(&at(&peft, "0.6")));
    std::fs::copy(&peft, place.path("copy.safetensors")).expect("copies");
    assert!(existed(&at("copy.safetensors", "0.60")), "the same file in another place");
    assert!(!existed(&at(&peft, "0.7")), "another strength");
    assert!(!existed(&at(&kohya, "0.6")), "another file");
    assert!(!existed(&place.small(&["--resume", "--json"])), "none");
}

#[test]
fn a_checkpoint_is_gone_on_with_by_the_same_files_at_the_same_strength() {
    let place = Place::new();
    let (peft, kohya) = (file("peft"), file("kohya"));
    let args = |lora: &str, strength: &str| -> Vec<String> {
        let lora = format!("{lora}:{strength}");
        super::support::program::small(&[
            "--steps", "8", "--width", "256", "--height", "256", "--lora", &lora, "--resume",
        ])
    };
    let mut child =
        place.command(&args(&peft, "0.6")).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
    let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("step 3/8")), "three steps");
    child.kill().expect("killed");
    child.wait().expect("ended");
    for (lora, strength) in [(&peft, "0.7"), (&kohya, "0.6")] {
        let other = place.dype(&args(lora, strength));
        assert!(!other.succeeds().stderr.contains("going on after step"), "{}", other.stderr);
    }
    place.dype(&args(&peft, "0.6")).succeeds().tells(&["going on after step"]);
}

#[test]
fn files_of_prompts_and_a_variable_name_them_too() {
    let place = Place::new();
    let peft = file("peft");
    let line = serde_json::json!({ "prompt": "a lake", "lora": format!("{peft}:0.5") });
    std::fs::write(place.path("p.jsonl"), format!("{line}\na lake\n")).expect("writes");
    let args: Vec<String> = super::support::program::small(&["-o", "out/"]);
    // `small` names a prompt, which a file of prompts stands in place of.
    let args: Vec<String> =
        args.iter().filter(|word| !["--prompt", "a lake"].contains(&word.as_str())).cloned().collect();
    let mut run = place.command(&[&args[..], &["--prompts".to_owned(), "p.jsonl".to_owned()]].concat());
    let ended: super::support::program::Run =
        run.env("DYPE_LORA", format!("{peft}:0.25")).output().expect("starts").into();
    ended.succeeds();
    let strengths: Vec<_> = ended.stdout.lines().map(|picture| said(&place, picture)[0]["strength"].clone()).collect();
    assert_eq!(strengths, [0.5, 0.25], "a line's own goes before");
}

#[test]
fn a_dry_run_counts_what_they_take() {
    let place = Place::new();
    let plan = |more: &[&str]| {
        let run = place.small(&[&["--dry-run", "--json"], more].concat());
        let json: Value = serde_json::from_str(run.succeeds().stdout.trim()).expect("JSON");
        let number = |key: &str| json["plan"][key].as_u64().expect("a number");
        (number("step_flops"), number("transformer_bytes"))
    };
    let (plain, with) = (plan(&[]), plan(&["--lora", &file("kohya-outer")]));
    // Its factors in f32: alphas are read where they are needed.
    assert_eq!(with.1 - plain.1, 42_496, "{with:?} {plain:?}");
    assert!(with.0 > plain.0, "{with:?} {plain:?}");
    let table = place.small(&["--dry-run", "--lora", &file("peft")]);
    assert!(table.succeeds().stdout.contains("peft.safetensors at 1"), "{}", table.stdout);
}

#[test]
fn a_prompt_that_names_one_is_told_of_the_flag() {
    let place = Place::new();
    place.small(&["--prompt", "a lake <lora:snow:0.8>"]).succeeds().tells(&["<lora:snow:0.8>", "--lora"]);
}

#[test]
fn a_name_is_found_in_folders_of_lora_files() {
    let place = Place::new();
    let put = |path: &str, name: &str| {
        let to = place.path(path);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
        std::fs::copy(file(name), to).expect("copies");
    };
    put("C/models/loras/style/snow.safetensors", "peft");
    put("C/models/loras/fog.safetensors", "kohya");
    put("C/models/loras/old/fog.safetensors", "peft");
    put("mine/rain.safetensors", "peft");
    let dirs = ["--model-dir", "C", "--model-dir", "mine"];
    let pixels = |lora: &str| place.pixels(&[&dirs[..], &["--lora", lora, "-o", "x.png", "--overwrite"]].concat());
    let expected = place.pixels(&["--lora", &file("peft"), "-o", "x.png", "--overwrite"]);
    for name in ["snow", "snow.safetensors", "style/snow", "style/snow.safetensors", "rain", "old/fog"] {
        assert!(pixels(name) == expected, "{name}");
    }
    let half = place.pixels(&["--lora", &format!("{}:0.5", file("peft")), "-o", "x.png", "--overwrite"]);
    assert!(pixels("snow:0.5") == half);
    assert!(said(&place, "x.png")[0]["name"].as_str().is_some_and(|name| name.ends_with("style/snow.safetensors")));
    let run = |lora: &str| place.small(&[&dirs[..], &["--lora", lora]].concat());
    run("fog").fails(2, &["--lora fog", "several", "old/fog.safetensors", "with its folder"]);
    run("sleet").fails(2, &["--lora sleet", "no such file", "models/loras", "mine"]);
    run("now").fails(2, &["no such file"]);
    // Around the model's own file.
    std::fs::create_dir_all(place.path("C/models/unet")).expect("folders");
    std::fs::copy(fixture("tiny-bfl/flux1-tiny.safetensors"), place.path("C/models/unet/m.safetensors"))
        .expect("copies");
    let convert = ["convert", "C/models/unet/m.safetensors", "-o", "m.gguf", "--type", "q8_0", "--lora", "snow"];
    place.dype(&convert).succeeds();
}

/// Pictures that take files in turn come in the order they were asked for, and as each comes alone.
#[test]
fn files_in_turn_make_the_pictures_that_each_makes_alone() {
    let place = Place::new();
    let (peft, text) = (file("peft"), file("kohya-text"));
    let loras = [Some(peft.as_str()), None, Some(text.as_str()), Some(peft.as_str()), None, Some(text.as_str())];
    let mut lines = String::new();
    for (index, lora) in loras.iter().enumerate() {
        let mut line = serde_json::json!({ "prompt": "a lake", "seed": index });
        if let Some(lora) = lora {
            line["lora"] = (*lora).into();
        }
        lines += &format!("{line}\n");
    }
    std::fs::write(place.path("p.jsonl"), lines).expect("writes");
    let args = super::support::program::small(&["-o", "out/"]);
    let args: Vec<String> =
        args.iter().filter(|word| !["--prompt", "a lake"].contains(&word.as_str())).cloned().collect();
    for weights in ["resident", "stream"] {
        let more = ["--prompts", "p.jsonl", "--weights", weights, "--overwrite"].map(str::to_owned);
        let run = place.dype(&[&args[..], &more].concat());
        let made: Vec<_> = run.succeeds().stdout.lines().map(str::to_owned).collect();
        assert_eq!(made.len(), loras.len());
        for (index, (picture, lora)) in made.iter().zip(loras).enumerate() {
            assert!(picture.contains(&format!("seed_{index}_")), "{picture}");
            let seed = index.to_string();
            let mut alone = vec!["--seed", &seed, "-o", "x.png", "--overwrite", "--weights", weights];
            alone.extend(lora.iter().flat_map(|lora| ["--lora", lora]));
            assert!(
                super::support::program::rgb8(&place.path(picture)) == place.pixels(&alone),
                "{weights}: {picture}"
            );
        }
    }
}
