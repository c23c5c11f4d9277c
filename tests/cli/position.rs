//! The flags that say how positions are extrapolated, at a side beyond the training resolution.

use crate::support::program::Place;

/// 1280 px are 80 tokens, 16 more than the model was trained with.
const LARGE: [&str; 8] = ["--height", "1280", "--width", "32", "--steps", "2", "--max-sequence-length", "16"];

fn large(place: &Place, flags: &[&str]) -> Vec<u8> {
    place.pixels(&[&LARGE, flags].concat())
}

#[test]
fn methods_and_dype_each_change_the_picture() {
    let place = Place::new();
    let pictures: Vec<_> = [
        &["--method", "yarn"][..],
        &["--method", "yarn", "--no-dype"],
        &["--method", "ntk"],
        &["--method", "ntk", "--no-dype"],
        &["--method", "base"],
        &["--dype-thresholds", "power"],
    ]
    .iter()
    .map(|flags| large(&place, flags))
    .collect();
    for (i, picture) in pictures.iter().enumerate() {
        assert!(pictures[..i].iter().all(|other| other != picture), "picture {i} is like one before it");
    }
    assert!(large(&place, &[]) == pictures[0], "yarn with DyPE is the default");
    assert!(large(&place, &["--no_dype"]) == pictures[1], "the reference's spelling");
    assert!(large(&place, &["--dype-thresholds", "product"]) == pictures[0]);
}

#[test]
fn dype_follows_its_lambdas() {
    let place = Place::new();
    let usual = large(&place, &[]);
    assert!(large(&place, &["--dype-scale", "1", "--dype-exponent", "2"]) == usual, "the paper's for yarn");
    assert!(large(&place, &["--dype-scale", "0.5"]) != usual);
    assert!(large(&place, &["--dype-exponent", "0.5"]) != usual);
    let ntk = ["--method", "ntk"];
    assert!(large(&place, &[&ntk[..], &["--dype-scale", "2"]].concat()) == large(&place, &ntk), "the paper's for ntk");
}

#[test]
fn the_base_resolution_says_where_extrapolation_begins() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    assert!(place.pixels(&["--base-resolution", "1024"]) == usual);
    assert!(place.pixels(&["--base-resolution", "32"]) != usual);
    let run = place.small(&["--base-resolution", "32"]);
    assert!(!run.succeeds().stderr.contains("no effect"), "{}", run.stderr);
}

#[test]
fn the_time_shift_is_pinned_unless_asked_otherwise() {
    let place = Place::new();
    let pixels = |flags: &[&str]| place.pixels(&[&["--steps", "2"], flags].concat());
    let usual = pixels(&[]);
    assert!(pixels(&["--mu", "1.15"]) == usual, "max_shift of the scheduler's config");
    assert!(pixels(&["--mu", "0.5"]) != usual);
    let run = place.small(&["--steps", "2", "--mu", "stock"]);
    // 16 tokens: mu = 0.5 + (16 - 256) (1.15 - 0.5) / (4096 - 256) = 0.459, so t of the second step is e^mu / (e^mu + 1).
    run.succeeds().tells(&["step 2/2", "t 0.613"]);
}

#[test]
fn bars_show_t_and_kappa() {
    let place = Place::new();
    let run = place.small(&["--steps", "2"]);
    run.succeeds().tells(&["t 1.000  kappa 1.000", "t 0.760  kappa 0.577"]);
    let run = place.small(&["--no-dype"]);
    assert!(!run.succeeds().stderr.contains("kappa"), "{}", run.stderr);
}

#[test]
fn flags_that_change_nothing_are_told() {
    let place = Place::new();
    let run = place.small(&["--method", "ntk", "--dype-thresholds", "power"]);
    run.succeeds().tells(&["note: --dype-thresholds has no effect here"]);
    place.dype(&["inspect", "--method", "base", "--dype-scale", "2"]).succeeds().tells(&["note: --dype-scale and"]);
}

#[test]
fn a_small_picture_says_that_dype_has_no_effect() {
    let place = Place::new();
    let run = place.small(&[]);
    run.succeeds().tells(&["note: DyPE has no effect at this size with --method yarn", "1024 px"]);
    place.small(&["--no-dype", "--method", "ntk"]).succeeds().tells(&["note: extrapolation has no effect"]);
    let base = place.small(&["--method", "base"]);
    assert!(!base.succeeds().stderr.contains("no effect"), "{}", base.stderr);
}

#[test]
fn tokens_are_shown_by_piece_and_id_and_what_is_cut() {
    let place = Place::new();
    let base = ["inspect", "--model", "demo", "--tokens", "--prompt", "a calm lake below mountains"];
    let all = place.dype(&base);
    for words in ["CLIP: ", " of 77 tokens", "\"<|startoftext|>\"", "T5: ", "\"</s>\"", "padding"] {
        assert!(all.succeeds().stdout.contains(words), "{words}: {}", all.stdout);
    }
    assert!(!all.stdout.contains("not read"), "{}", all.stdout);
    let cut = place.dype(&[&base[..], &["--max-sequence-length", "3", "--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&cut.succeeds().stdout).expect("JSON");
    let [clip, t5] = [&json["encoders"][0], &json["encoders"][1]];
    assert_eq!(
        (&clip["encoder"], &clip["length"], &clip["cut"]),
        (&"CLIP".into(), &77.into(), &serde_json::Value::Null)
    );
    assert_eq!((t5["length"].as_u64(), t5["tokens"].as_array().map(Vec::len)), (Some(3), Some(3)));
    assert!(t5["cut"].as_str().is_some_and(|cut| cut.ends_with("mountains")), "{t5}");
    place.dype(&["inspect", "--tokens"]).fails(2, &["--prompt"]);
    place.dype(&[&base[..], &["--max-sequence-length", "1"]].concat()).fails(2, &["--max-sequence-length 1"]);
}

/// The largest picture of all: more operations than 64 bits count, told as a number.
#[test]
fn the_work_of_the_largest_picture_is_counted() {
    let place = Place::new();
    let base =
        ["--model", "demo", "--prompt", "x", "--width", "65536", "--height", "65536", "--memory", "2TB", "--dry-run"];
    let json = place.dype(&[&base[..], &["--json"]].concat());
    let plan: serde_json::Value =
        serde_json::from_str(json.succeeds().stdout.lines().next().expect("a line")).expect("JSON");
    let [step, total] = ["step_flops", "total_flops"].map(|key| plan["plan"][key].as_f64().expect("a number"));
    assert!(total > 1.8e19 && (total / step - 28.0).abs() < 0.1, "{step:e} {total:e}");
}
