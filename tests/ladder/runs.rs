//! Whole ladders: against the reference, from parts, and through the program's flags and files.

use std::{collections::HashMap, fs};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{
        geometry::{ImageSize, LatentGeometry},
        progress::Silent,
    },
    models::{Model, ModelRequest, parts::kl::Posterior},
    nn::CodeProducts,
    output::{load_latents, read_provenance},
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{Item, pipeline::Pipeline},
    sampling::{Progress, ladder::Enlarged, noised},
};
use serde_json::Value;

use crate::support::{
    self, fixture,
    golden::LATENTS_TOLERANCE,
    program::{Place, Run, rgb8},
    relative_error, values,
};

const PROMPT: &str = "A serene mountain landscape at sunset";
const BASE: ImageSize = ImageSize { height_px: 192, width_px: 160 };
const WHOLE: ImageSize = ImageSize { height_px: 384, width_px: 320 };
/// Of the reference's run.
const FLAGS: &str = "--height 384 --width 320 --base-resolution 256 --steps 6 --seed 42 --device cpu --dtype f32";
const LADDER: [&str; 2] = ["--ladder", "192,384"];

fn run(place: &Place, more: &[&str]) -> Run {
    let model = fixture("tiny-flux").display().to_string();
    let flags = FLAGS.split(' ').chain(["--model", &model, "--prompt", PROMPT]);
    place.dype(&flags.chain(more.iter().copied()).collect::<Vec<_>>())
}

fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("expected/ladder-run.safetensors"), &Device::Cpu).expect("the fixture")
}

fn latents(place: &Place, name: &str) -> Vec<f32> {
    values(&load_latents(&place.path(name), 64).expect("latents"))
}

#[track_caller]
fn assert_met(found: &[f32], expected: &Tensor, what: &str) {
    let error = relative_error(found, &values(expected));
    assert!(error < LATENTS_TOLERANCE, "{what}: {error:e}");
}

/// Both stages and what lies between them; without the pull it is another picture by far.
#[test]
fn a_run_is_the_references() {
    let (place, golden) = (Place::new(), golden());
    let ladder = run(&place, &[&LADDER[..], &["-o", "x.png", "--save-latents", "x.safetensors"]].concat());
    ladder.succeeds().tells(&["6 steps, stage 1 of 2", "4 steps, stage 2 of 2", "384 x 320 px"]);
    assert_met(&latents(&place, "x.safetensors"), &golden["ladder/stage1_final"], "the picture's latents");
    let base = "--height 192 --width 160 --guidance 3.5 -o b.png --save-latents b.safetensors";
    run(&place, &base.split(' ').collect::<Vec<_>>()).succeeds();
    assert_met(&latents(&place, "b.safetensors"), &golden["ladder/base_final"], "the first stage's latents");

    let more = "--ladder 192,384 --ladder-pull 0 -o f.png --save-latents f.safetensors";
    run(&place, &more.split(' ').collect::<Vec<_>>()).succeeds();
    let free = latents(&place, "f.safetensors");
    assert!(relative_error(&free, &values(&golden["ladder/stage1_final"])) > 0.05, "the pull acts");
    let parts = from_parts(&golden);
    assert!(free == parts, "without it a stage is image to image from the picture below");

    let settings =
        |name: &str| read_provenance(&place.path(name)).expect("readable").expect("ours")["settings"].clone();
    assert_eq!((&settings("x.png")["ladder"], &settings("b.png")["ladder"]), (&"192,384".into(), &Value::Null));
    assert_eq!((settings("x.png").get("ladder_pull"), &settings("f.png")["ladder_pull"]), (None, &0.0.into()));
    place.dype(&["replay", "x.png", "-o", "y.png"]).succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")), "made again");
    let info = place.dype(&["info", "x.png"]);
    assert!(info.succeeds().stdout.contains("192, 384 px"), "{}", info.stdout);
}

/// The second stage as image to image by hand: from the first one's latents, and its anchor against the reference's.
fn from_parts(golden: &HashMap<String, Tensor>) -> Vec<f32> {
    let model = support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let wanted = Wanted {
        prompt: Some(PROMPT.into()),
        height: Some(WHOLE.height_px),
        width: Some(WHOLE.width_px),
        steps: Some(6),
        base_resolution: Some(256),
        ..Wanted::default()
    };
    let recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
    let (height, width) = (Some(BASE.height_px), Some(BASE.width_px));
    let below = Wanted { height, width, guidance: Some(3.5), ..wanted.clone() };
    let below = Recipe::new(&below, &model.facts().recipe).expect("in range");
    let ladder = Wanted { ladder: "192,384".parse().ok(), ..wanted };
    let ladder = Recipe::new(&ladder, &model.facts().recipe).expect("in range");
    let plan = Plan::of_passes(&model, &Item::tasks(&ladder, 1, model.facts(), None), &machine).expect("fits");
    let (choices, choices_below) = (&plan.choices, &plan.pass(0).choices);
    let pipeline = Pipeline::open(&model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let text = pipeline.encode(&[PROMPT], 512).expect("encodes").remove(0);
    let transformer = pipeline.load_transformer(choices, CodeProducts::NONE).expect("loads");
    let denoise = |recipe: &Recipe, first: usize, latents: Tensor| {
        let from = Progress { step: first, ..Progress::start(latents) };
        pipeline.denoise(&*transformer, (recipe, first), &text.clone().into(), from, &mut |_| Ok(())).expect("denoises")
    };
    let base = denoise(&below, 0, pipeline.noise(&below).expect("noise"));
    let anchor = |latents: &Tensor| {
        let picture = pipeline.decode_unclamped(latents, BASE, choices_below).expect("decodes");
        let enlarged = Enlarged::new(picture, BASE, WHOLE);
        let mut rows = |first: usize, rows: &mut [f32]| {
            enlarged.fill(first, rows);
            Ok(())
        };
        pipeline.encode_picture((Posterior::Mean, WHOLE), &mut rows, choices).expect("encodes")
    };
    assert_met(&values(&anchor(&golden["ladder/base_final"])), &golden["ladder/stage1_anchor"], "the anchor");
    let LatentGeometry { channels, .. } = pipeline.geometry();
    let noise = pipeline.noise_after(&recipe, &[channels * 24 * 20]).expect("noise");
    let t = pipeline.sigmas(&recipe).expect("sigmas")[2];
    values(&denoise(&recipe, 2, noised(&anchor(&base), &noise, t).expect("one shape")))
}

/// What a small ladder of three stages takes; its sizes are no multiples of each other.
const SMALL: [&str; 8] = ["--ladder", "48,64,96", "--height", "96", "--width", "80", "--steps", "3"];

#[test]
fn auto_is_the_sizes_it_stands_for() {
    let place = Place::new();
    let size = ["--height", "96", "--width", "96", "--base-resolution", "48"];
    let auto = place.small(&[&size[..], &["--ladder", "auto", "-o", "a.png"]].concat());
    auto.succeeds().tells(&["stage 1 of 2", "stage 2 of 2"]);
    place.small(&[&size[..], &["--ladder", "48,96", "-o", "b.png"]].concat()).succeeds();
    let provenance = |name: &str| read_provenance(&place.path(name)).expect("readable").expect("ours");
    assert_eq!(provenance("a.png")["settings"], provenance("b.png")["settings"]);
    assert!(rgb8(&place.path("a.png")) == rgb8(&place.path("b.png")));
    let none = place.small(&["--ladder", "auto", "-o", "c.png"]);
    none.succeeds().tells(&["--ladder auto makes no stages of 64 x 64 px", "1024 px"]);
    place.small(&["-o", "d.png"]).succeeds();
    assert_eq!(provenance("c.png")["settings"], provenance("d.png")["settings"]);
    assert!(rgb8(&place.path("c.png")) == rgb8(&place.path("d.png")), "it is the picture without a ladder");
}

#[test]
fn a_dry_run_tells_of_each_stage_and_of_all() {
    let place = Place::new();
    let table = place.small(&[&SMALL[..], &["--dry-run"]].concat()).succeeds().stdout.clone();
    for line in [
        "96 x 80 px, 6 steps in 3 stages",
        "stage 1    48 x 48 px, 3 steps",
        "stage 2    64 x 48 px, 2 steps",
        "stage 3    96 x 80 px, 1 step,",
        "guidance 3.500",
        "guidance 6.000",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
    let number = |stage: &Value, key: &str| stage[key].as_f64().unwrap_or_default();
    let planned = |more: &[&str]| -> Value {
        let run = place.small(&[&SMALL[..], &["--dry-run", "--json"], more].concat());
        let json: Value = serde_json::from_str(run.succeeds().stdout.trim()).expect("JSON");
        let stages = json["stages"].as_array().expect("stages");
        assert_eq!(stages.iter().map(|stage| number(stage, "steps")).collect::<Vec<_>>(), [3.0, 2.0, 1.0]);
        let all: f64 = stages
            .iter()
            .map(|stage| number(stage, "denoise_flops") + number(stage, "encode_flops") + number(stage, "decode_flops"))
            .sum();
        assert_eq!(all, number(&json["plan"], "total_flops"), "the work is the sum");
        json
    };
    let json = planned(&[]);
    // Asked twice a step, but for the last.
    let twice = planned(&["--ladder-pull", "0", "--sampler", "heun"]);
    let first = |json: &Value| number(&json["stages"][0], "denoise_flops");
    assert!(first(&twice) > first(&json), "{twice}");
    let plain = place.small(&["--height", "96", "--width", "80", "--steps", "1", "--dry-run", "--json"]);
    let plain: Value = serde_json::from_str(plain.succeeds().stdout.trim()).expect("JSON");
    assert_eq!(plain.get("stages"), None);
    assert!(json["plan"]["peak_bytes"]["denoise"].as_u64() >= plain["plan"]["peak_bytes"]["denoise"].as_u64());
}

#[test]
fn a_preview_says_its_stage() {
    let place = Place::new();
    place.small(&[&SMALL[..], &["--preview", "p.png", "--preview-every", "1", "-o", "x.png"]].concat()).succeeds();
    let said = read_provenance(&place.path("p.png")).expect("readable").expect("ours");
    assert_eq!(said["preview"], serde_json::json!({ "step": 3, "steps": 3, "stage": 3, "stages": 3 }));
    assert_eq!(image::image_dimensions(place.path("p.png")).expect("a picture"), (10, 12), "a pixel a latent");
}

#[test]
fn lines_of_a_file_have_their_own_ladders() {
    let place = Place::new();
    let lines = "{\"prompt\": \"a\", \"ladder\": [32, 64]}\n{\"prompt\": \"b\", \"ladder\": \"off\"}\nc\n";
    fs::write(place.path("p.txt"), lines).expect("written");
    let model = fixture("tiny-flux").display().to_string();
    let flags = "--height 64 --width 64 --steps 2 --max-sequence-length 32 --ladder 48,64 --prompts p.txt -o x/";
    let flags: Vec<&str> = flags.split(' ').chain(["--model", &model]).collect();
    let paths = place.dype(&flags).succeeds().stdout.clone();
    let ladder = |path: &str| {
        let said = read_provenance(&place.path(path)).expect("readable").expect("ours");
        said["settings"].get("ladder").and_then(Value::as_str).map(str::to_owned)
    };
    let ladders: Vec<_> = paths.lines().map(ladder).collect();
    assert_eq!(ladders, [Some("32,64".to_owned()), None, Some("48,64".to_owned())]);
    let again = place.dype(&[&flags[..], &["--resume"]].concat());
    assert!(!again.succeeds().stderr.contains("denoise"), "{}", again.stderr);
}

#[test]
fn a_ladder_that_makes_no_sense_is_refused() {
    let place = Place::new();
    place.small(&["--ladder", "128,64"]).fails(2, &["--ladder", "1024,2048,4096"]);
    place.small(&["--ladder", "32,48"]).fails(2, &["ends at 48 px", "64 px", "--ladder auto"]);
    place.small(&["--ladder", "32,64", "--ladder-pull", "2"]).fails(2, &["--ladder-pull", "from 0 to 1"]);
    place.small(&["--ladder-pull", "0.5", "-o", "x.png"]).succeeds().tells(&["--ladder-pull changes nothing"]);
}
