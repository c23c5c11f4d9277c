//! Which pictures a batch is, and what is told of them.

use std::fs;

use serde_json::Value;

use crate::{
    arguments, batch, dype, files, lines, names, pictures, place, provenance,
    support::program::{Place, rgb8},
};

#[test]
fn all_combinations_are_made_and_told_in_order() {
    let place = place();
    let run = dype(&place, &batch(&[]));
    let made = lines(run.succeeds());
    assert_eq!(made.len(), 6);
    let asked: Vec<(String, u64)> = made
        .iter()
        .map(|path| provenance(&place.path(path))["settings"].clone())
        .map(|settings| {
            (settings["prompt"].as_str().expect("text").to_owned(), settings["seed"].as_u64().expect("seed"))
        })
        .collect();
    let expected = ["a lake", "a hill", "a small red boat"].map(|prompt| [1, 5].map(|seed| (prompt.to_owned(), seed)));
    assert_eq!(asked, expected.concat());
    assert_eq!(provenance(&place.path(made[2]))["settings"]["method"], "ntk");
    assert_eq!(made[4], "outputs/seed_1_method_dy_yarn_res_64x64_2.png", "the third prompt is the second of its name");
    run.tells(&["picture   1 of 6, prompts.txt line 1, seed 1: a lake", "picture   3 of 6, prompts.txt line 4"]);
    assert_eq!(run.stderr.matches("3 prompts of 32 tokens").count(), 1, "encoded together: {}", run.stderr);
    assert_eq!(run.stderr.matches("no effect at this size").count(), 2, "each note once: {}", run.stderr);
    assert_eq!(names(&place.path("outputs")).len(), 6, "no checkpoint stays");
}

#[test]
fn a_batch_makes_what_single_runs_make() {
    let place = place();
    dype(&place, &batch(&["-o", "many/"])).succeeds();
    let alone = dype(&place, &["--steps", "3", "--prompt", "a small red boat", "--seed", "5", "-o", "one.png"]);
    alone.succeeds();
    let many = pictures(&place.path("many"));
    assert_eq!(many["seed_5_method_dy_yarn_res_64x64_2.png"].1, rgb8(&place.path("one.png")));
}

#[test]
fn prompts_come_from_stdin_and_seeds_in_a_row() {
    let place = Place::new();
    let run = place.small_with_input(&[], b"");
    drop(run);
    let mut command = place.command(&arguments(&["--prompts", "-", "-n", "3", "--seed", "7", "-o", "x/"]));
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"a lake\r\n").expect("written");
    let ended = child.wait_with_output().expect("ends");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let expected = [7, 8, 9].map(|seed| format!("seed_{seed}_method_dy_yarn_res_64x64.png"));
    assert_eq!(names(&place.path("x")), expected);
}

#[test]
fn json_is_one_object_a_picture() {
    let place = place();
    let run = dype(&place, &batch(&["--json"]));
    let objects: Vec<Value> =
        lines(run.succeeds()).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(objects.len(), 6);
    for object in &objects {
        let path = place.path(object["path"].as_str().expect("a path"));
        assert_eq!(object["settings"], provenance(&path)["settings"]);
        assert_eq!(object["model"], provenance(&path)["model"]);
        assert!(object["seconds"]["denoise"].as_f64().expect("a time") > 0.0);
        assert!(object["seconds"]["total"].as_f64() >= object["seconds"]["decode"].as_f64());
        assert!(object["peak_memory_bytes"].as_u64().expect("bytes") > 1_000_000);
        assert_eq!((&object["existed"], &object["resumed_from_step"]), (&false.into(), &Value::Null));
    }
    assert!(objects[0]["seconds"]["load"].as_f64() > Some(0.0));
    assert_eq!(objects[1]["seconds"]["load"], 0.0, "one transformer load for all");
    let plans = dype(&place, &batch(&["--json", "--dry-run"]));
    assert_eq!(lines(plans.succeeds()).len(), 6);
    assert!(plans.stdout.lines().all(|line| line.contains("\"plan\"")));
}

#[test]
fn a_bad_line_is_named_before_anything_is_loaded() {
    let cases: [(&str, &[&str]); 6] = [
        ("a lake\n{\"prompt\": \"x\", \"width\": 8}\n", &["prompts.txt line 2", "width"]),
        ("a lake\n\n{\"prompt\": \"x\", \"widht\": 64}\n", &["prompts.txt line 3", "did you mean \"width\"?"]),
        ("{\"prompt\": \"x\"\n", &["prompts.txt line 1", "JSON"]),
        ("{\"prompt\": \"x\", \"output\": \"x.tiff\"}\n", &["prompts.txt line 1", ".tiff"]),
        ("# nothing\n", &["prompts.txt holds no prompt"]),
        ("{\"prompt\": \"x\", \"output\": \"a.webp\", \"width\": 16400}\n", &["prompts.txt line 1", "WebP"]),
    ];
    for (text, words) in cases {
        let place = Place::new();
        fs::write(place.path("prompts.txt"), text).expect("written");
        dype(&place, &["--prompts", "prompts.txt", "--model", "no/such-model"]).fails(2, words);
        assert_eq!(names(&place.path("")), ["prompts.txt"]);
    }
    let place = Place::new();
    dype(&place, &["--prompts", "missing.txt"]).fails(1, &["missing.txt"]);
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    let place = place();
    for args in [
        &["--prompts", "prompts.txt", "--prompt", "x"][..],
        &["--seeds", "1", "-n", "2"],
        &["--seeds", "1", "--seed", "2"],
        &["--seeds", "3-1"],
        &["-n", "0"],
        &["--shard", "3/2"],
        &["--preview-every", "2"],
    ] {
        let run = dype(&place, args);
        run.fails(2, &[]);
    }
}

#[test]
fn n_shards_make_exactly_the_batch() {
    let place = place();
    dype(&place, &batch(&["-o", "whole/"])).succeeds();
    let mut told = Vec::new();
    for shard in ["1/4", "2/4", "3/4", "4/4"] {
        let run = dype(&place, &batch(&["-o", "parts/", "--shard", shard]));
        told.extend(lines(run.succeeds()).iter().map(|line| (*line).to_owned()));
    }
    assert_eq!(told.len(), 6);
    assert_eq!(pictures(&place.path("parts")), pictures(&place.path("whole")), "names, settings and pixels");
    let empty = dype(&place, &["--prompt", "a lake", "--shard", "2/2"]);
    assert_eq!(empty.succeeds().stdout, "");
    empty.tells(&["--shard 2/2 holds no picture"]);
}

#[test]
fn what_is_asked_for_twice_is_made_once() {
    let place = Place::new();
    fs::write(place.path("prompts.txt"), "a lake\na lake\n").expect("written");
    let run = dype(&place, &["--prompts", "prompts.txt"]);
    assert_eq!(lines(run.succeeds()).len(), 1);
    run.tells(&["1 picture is asked for more than once"]);
}

#[test]
fn overwriting_never_replaces_a_picture_of_the_same_batch() {
    let place = place();
    for _ in 0..2 {
        let run = dype(&place, &batch(&["-o", "x/", "--overwrite", "--save-latents", "l.safetensors"]));
        assert_eq!(lines(run.succeeds()).len(), 6);
        assert_eq!(names(&place.path("x")).len(), 6);
    }
    let latents =
        files(&place.path("")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    assert_eq!(latents.count(), 6);
}

#[test]
fn a_preview_is_there_and_says_what_it_is_of() {
    let place = Place::new();
    let run = dype(&place, &["--prompt", "a lake", "--steps", "3", "--preview", "now.png", "--preview-every", "2"]);
    run.succeeds();
    let preview = place.path("now.png");
    assert_eq!(rgb8(&preview).len(), 3 * 8 * 8, "an eighth of 64 x 64");
    assert_eq!(provenance(&preview)["preview"], serde_json::json!({ "step": 3, "steps": 3 }));
    dype(&place, &["--preview", "now.gif"]).fails(2, &[".gif"]);
}

#[test]
fn a_tight_budget_loads_the_transformer_anew_and_changes_no_pixel() {
    let place = place();
    let objects = |args: &[&str]| -> Vec<Value> {
        let run = dype(&place, &batch(&[args, &["--json"]].concat()));
        lines(run.succeeds()).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let peaks = &objects(&["--dry-run", "--weights", "resident"])[0]["plan"]["peak_bytes"];
    let least = ["text", "denoise", "decode"].iter().filter_map(|stage| peaks[*stage].as_u64()).max().expect("a peak");
    let tight = objects(&["-o", "tight/", "--weights", "resident", "--memory", &least.to_string()]);
    assert!(tight.iter().all(|object| object["seconds"]["load"].as_f64() > Some(0.0)), "{tight:?}");
    dype(&place, &batch(&["-o", "roomy/"])).succeeds();
    assert_eq!(pictures(&place.path("tight")), pictures(&place.path("roomy")));
}
