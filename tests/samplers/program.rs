//! The flags, end to end.

use serde_json::Value;

use crate::support::program::{Place, rgb8};

fn provenance(place: &Place, name: &str) -> Value {
    let run = place.dype(&["info", "--json", name]);
    serde_json::from_str(&run.succeeds().stdout).expect("JSON")
}

/// What is asked for is said, and makes the same picture again; so does the text that other tools read.
#[test]
fn a_picture_says_its_sampler_and_is_made_again() {
    let place = Place::new();
    let steps = ["--steps", "6", "-o", "x.png", "--overwrite"];
    for (flags, settings, parameters) in [
        (&["--sampler", "dpm++2m"][..], [("sampler", "dpmpp-2m")].as_slice(), "Sampler: DPM++ 2M,"),
        (
            &["--sampler", "ER_SDE", "--schedule", "beta"],
            &[("sampler", "er-sde"), ("schedule", "beta")],
            "Sampler: ER SDE, Schedule type: Beta,",
        ),
        (&["--sampler", "heun", "--cache", "1.5"], &[("sampler", "heun"), ("step_cache", "1.5")], "Step cache: 1.5"),
        (
            &["--schedule", "simple", "--cache", "first-block:0.9"],
            &[("step_cache", "first-block:0.9")],
            "Sampler: Euler, Schedule type: Simple,",
        ),
    ] {
        place.small(&[&steps[..], flags].concat()).succeeds();
        let said = provenance(&place, "x.png");
        for (name, value) in settings {
            assert_eq!(said["settings"][name], *value, "{said}");
        }
        let bytes = std::fs::read(place.path("x.png")).expect("readable");
        assert!(String::from_utf8_lossy(&bytes).contains(parameters), "{parameters}");
        place.dype(&["replay", "x.png", "-o", "y.png", "--overwrite"]).succeeds();
        assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")), "{flags:?}");
    }
}

/// Whoever asks for what is usual gets what there was before, settings and all.
#[test]
fn the_usual_is_not_said() {
    let place = Place::new();
    place.small(&["--steps", "2", "-o", "x.png"]).succeeds();
    place
        .small(&["--steps", "2", "-o", "y.png", "--sampler", "euler", "--schedule", "uniform", "--cache", "off"])
        .succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")));
    let [x, y] = ["x.png", "y.png"].map(|name| provenance(&place, name)["settings"].clone());
    assert_eq!(x, y);
    assert!(["sampler", "schedule", "step_cache"].iter().all(|name| x.get(name).is_none()), "{x}");
    let bytes = std::fs::read(place.path("x.png")).expect("readable");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("Sampler: Euler, CFG scale: 1,") && !text.contains("Schedule type"));
}

#[test]
fn a_run_says_how_many_steps_it_skipped() {
    let place = Place::new();
    let run = place.small(&["--steps", "12", "--cache", "1.5", "--json"]);
    let told: Value = serde_json::from_str(&run.succeeds().stdout).expect("JSON");
    let skipped = told["skipped_steps"].as_u64().expect("a number");
    assert!(skipped > 0);
    run.tells(&[&format!("12 steps, {skipped} skipped")]);
    let run = place.small(&["--steps", "2", "--json"]);
    assert!(!run.succeeds().stdout.contains("skipped") && !run.stderr.contains("skipped"), "{}", run.stderr);
    place.small(&["--steps", "4", "--cache", "0.2"]).succeeds().tells(&["hardly a step to skip"]);
}

#[test]
fn lines_of_a_file_of_prompts_have_samplers_of_their_own() {
    let place = Place::new();
    let lines = r#"{"prompt": "a", "sampler": "dpmpp_2m", "cache": 0.3, "schedule": "simple"}
{"prompt": "b", "sampler": "Heun", "cache": "off"}"#;
    std::fs::write(place.path("p.jsonl"), lines).expect("written");
    let model = crate::support::fixture("tiny-flux").display().to_string();
    let size = ["--model", &model, "--height", "64", "--width", "64", "--steps", "8", "--max-sequence-length", "16"];
    let run = place.dype(&[&size[..], &["--prompts", "p.jsonl", "--cache", "0.2", "--dry-run", "--json"]].concat());
    let told: Vec<Value> =
        run.succeeds().stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |at: usize, name: &str| told[at]["settings"].get(name).cloned();
    assert_eq!(
        (of(0, "sampler"), of(0, "step_cache"), of(0, "schedule")),
        (Some("dpmpp-2m".into()), Some("0.3".into()), Some("simple".into()))
    );
    assert_eq!((of(1, "sampler"), of(1, "step_cache"), of(1, "schedule")), (Some("heun".into()), None, None));
    // Heun's steps are two evaluations but for the last.
    let plan = &told[1]["plan"];
    let flops = |name: &str| plan[name].as_u64().expect("a number");
    assert_eq!(plan["evaluations"], 15);
    assert_eq!(flops("total_flops"), 15 * flops("step_flops") + flops("decode_flops"));
    assert!(told[0]["plan"].get("evaluations").is_none());
}

#[test]
fn what_there_is_not_is_refused_before_anything_is_loaded() {
    let place = Place::new();
    place.small(&["--sampler", "dpmpp-2n"]).fails(2, &["--sampler", "dpmpp-2m"]);
    place.small(&["--schedule", "karras"]).fails(2, &["--schedule"]);
    for text in ["0", "-1", "much", "first-block:0"] {
        place.small(&["--cache", text]).fails(2, &["--cache", "first-block:0.05"]);
    }
}

#[test]
fn the_plan_counts_what_is_asked() {
    let place = Place::new();
    let table = |more: &[&str]| place.small(&[&["--steps", "8", "--dry-run"], more].concat()).succeeds().stdout.clone();
    assert!(
        table(&["--sampler", "heun"]).contains("an evaluation, 15 evaluations"),
        "{}",
        table(&["--sampler", "heun"])
    );
    assert!(table(&["--cache", "0.2"]).contains("less what the cache skips"));
    assert!(table(&[]).contains(" a step, "));
}
