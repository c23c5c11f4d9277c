//! Whole runs against the reference: six pictures and their latents, through the program and through the library.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{json::read_json, progress::Silent},
    models::On,
    nn::CodeProducts,
    output::load_latents,
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{Item, pipeline::Pipeline},
    sampling::Progress,
};
use serde::Deserialize;

use super::{expected, fixture, tiny, tiny_base};
use crate::support::{
    golden::{LATENTS_TOLERANCE, assert_same_picture, differences},
    program::{Place, rgb8},
    relative_error, values,
};

/// A run of the reference.
#[derive(Deserialize)]
struct Golden {
    run: usize,
    method: String,
    dype: bool,
    height: usize,
    width: usize,
    steps: usize,
    seed: u64,
    guidance: f64,
    base_resolution: usize,
    negative_prompt: Option<String>,
    mu: Option<f64>,
    mu_used: f64,
    is_distilled: bool,
    prompt: String,
}

impl Golden {
    fn number(run: usize) -> Self {
        let all: Vec<Self> = read_json(&fixture("expected/runs.json")).expect("six runs");
        all.into_iter().find(|golden| golden.run == run).expect("one of six")
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let numbers = [
            ("--height", self.height.to_string()),
            ("--width", self.width.to_string()),
            ("--steps", self.steps.to_string()),
            ("--seed", self.seed.to_string()),
            ("--base-resolution", self.base_resolution.to_string()),
        ];
        let mut args: Vec<String> = numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        let method = if self.method == "stock" { "base" } else { &self.method };
        let words = ["--method", method, "--prompt", &self.prompt, "--device", "cpu"];
        args.extend(words.iter().chain(more).map(|word| (*word).to_owned()));
        if !self.dype {
            args.push("--no-dype".into());
        }
        // What is pinned follows from base resolution and steps; the rest is asked for.
        match self.mu {
            Some(mu) if mu == 1.15 => args.extend(["--mu".into(), mu.to_string()]),
            Some(_) => {}
            None => args.extend(["--mu".into(), "stock".into()]),
        }
        // Scale 4 and nothing to lead away from are a base variant's own.
        assert!(self.is_distilled || self.guidance == 4.0);
        if let Some(negative) = &self.negative_prompt {
            args.extend(["--negative-prompt".into(), negative.clone()]);
        }
        args
    }

    fn latents(&self, key: &str) -> Vec<f32> {
        values(&expected(&format!("run{}", self.run))[key])
    }

    fn picture(&self) -> Vec<u8> {
        rgb8(&fixture(&format!("expected/run{}.png", self.run)))
    }
}

/// The model's folder, kept while it is used.
fn folder(golden: &Golden) -> (Option<tempfile::TempDir>, String) {
    if golden.is_distilled {
        return (None, fixture("tiny").display().to_string());
    }
    let base = tiny_base();
    let path = base.path().display().to_string();
    (Some(base), path)
}

/// The program's picture and latents of one run are the reference's.
fn meets(run: usize, more: &[&str]) {
    let (golden, place) = (Golden::number(run), Place::new());
    let (_kept, model) = folder(&golden);
    let flags = ["--model", &model, "-o", "x.png", "--save-latents", "x.safetensors", "--dtype", "f32"];
    let ended = place.dype(&golden.args(&[&flags, more].concat()));
    ended.succeeds();
    assert_eq!(ended.stdout, "x.png\n");
    let latents = load_latents(&place.path("x.safetensors"), 128).expect("latents");
    assert_eq!(latents.dims()[2], 128);
    let error = relative_error(&values(&latents), &golden.latents("latents_final"));
    assert!(error < LATENTS_TOLERANCE, "latents: {error:e}");
    assert_same_picture(&rgb8(&place.path("x.png")), &golden.picture());
    let plan = place.dype(&golden.args(&["--model", &model, "--dry-run", "--json"]));
    let plan: serde_json::Value = serde_json::from_str(&plan.succeeds().stdout).expect("JSON");
    let mu = plan["shift"]["mu"].as_f64().expect("a mu");
    assert!((mu - golden.mu_used).abs() < 1e-9, "mu {mu}");
}

#[test]
fn run_0_at_the_base_resolution() {
    meets(0, &[]);
}

#[test]
fn run_1_yarn_with_dype() {
    meets(1, &[]);
}

#[test]
fn run_2_ntk_with_dype_and_streamed_weights() {
    meets(2, &["--weights", "stream"]);
}

#[test]
fn run_3_wide_without_extrapolation() {
    meets(3, &[]);
}

#[test]
fn run_4_a_base_variant_with_dype() {
    meets(4, &[]);
}

#[test]
fn run_5_a_base_variant_led_away_from_a_prompt() {
    meets(5, &[]);
}

#[test]
fn bf16_is_near() {
    let (golden, place) = (Golden::number(1), Place::new());
    let model = fixture("tiny").display().to_string();
    place.dype(&golden.args(&["--model", &model, "-o", "x.png", "--dtype", "bf16"])).succeeds();
    let (mean, _) = differences(&rgb8(&place.path("x.png")), &golden.picture());
    assert!(mean < 0.5, "mean difference {mean}");
}

#[test]
fn text_is_the_references_padding_included() {
    #[derive(Deserialize)]
    struct Text {
        name: String,
        prompt: String,
        ids: Vec<u32>,
        rows: serde_json::Value,
    }
    let texts: Vec<Text> = read_json(&fixture("expected/text.json")).expect("prompts");
    let (model, golden) = (tiny(), expected("text"));
    let on = On::new(Device::Cpu, DType::F32);
    let encoder = model.text_encoder_on(&on).expect("opens");
    let mut met = 0;
    for Text { name, prompt, ids, rows } in texts {
        assert_eq!(encoder.tokenizer.encode(&prompt, 512).expect("ids").ids, ids, "{name}");
        let Some(expected) = golden.get(&format!("{name}.prompt_embeds")) else { continue };
        let embeds = encoder.encode(&[&prompt], 512, &Silent).expect("embeddings").remove(0);
        assert_eq!(embeds.dims(), [1, 512, 84]);
        let rows = rows.as_array().expect("some rows").iter().map(|row| row.as_u64().expect("a row") as u32);
        let rows = Tensor::new(rows.collect::<Vec<_>>(), &Device::Cpu).expect("rows");
        let found = embeds.squeeze(0).and_then(|embeds| embeds.index_select(&rows, 0)).expect("rows");
        let error = super::relative_error(&found, expected);
        assert!(error < 1e-4, "{name}: {error:e}");
        met += 1;
    }
    assert_eq!(met, 2);
}

/// From the latents after the first step, as a checkpoint holds them, the end is the reference's too.
#[test]
fn a_run_goes_on_from_its_first_step() {
    let (golden, model) = (Golden::number(1), tiny());
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let pipeline = Pipeline::open(&model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let wanted = Wanted {
        prompt: Some(golden.prompt.clone()),
        height: Some(golden.height),
        width: Some(golden.width),
        steps: Some(golden.steps),
        seed: Some(golden.seed),
        base_resolution: Some(golden.base_resolution),
        ..Wanted::default()
    };
    let recipe = Recipe::new(&wanted, &model.facts.recipe).expect("in range");
    assert_eq!((recipe.cfg(), recipe.guidance), (None, None));
    let choices = Plan::new(&model, &Item::task(&recipe, 1), &machine).expect("fits").choices;
    let texts = pipeline.encode(&[golden.prompt.as_str()], 512).expect("encodes").remove(0).into();
    let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let mut after_first = None;
    let start = Progress::start(pipeline.noise(&recipe).expect("noise"));
    let whole = pipeline
        .denoise(&*transformer, (&recipe, 0), &texts, start, &mut |after| {
            if after.step.index == 0 {
                after_first = after.progress().ok();
            }
            Ok(())
        })
        .expect("runs");
    let after_first = after_first.expect("a first step");
    let error = relative_error(&values(&after_first.latents), &golden.latents("latents_step1"));
    assert!(error < LATENTS_TOLERANCE, "first step: {error:e}");
    let end = pipeline.denoise(&*transformer, (&recipe, 0), &texts, after_first, &mut |_| Ok(())).expect("runs");
    assert!(values(&end) == values(&whole), "the same bits");
    let error = relative_error(&values(&end), &golden.latents("latents_final"));
    assert!(error < LATENTS_TOLERANCE, "end: {error:e}");
}

#[test]
fn a_picture_is_replayed_and_previews_are_told_to_be_missing() {
    let place = Place::new();
    let model = fixture("tiny").display().to_string();
    let flags = ["--model", &model, "--prompt", "a lake", "--height", "64", "--width", "64", "-o", "x.png"];
    let made = place.dype(&[&flags[..], &["--device", "cpu", "--preview", "now.png"]].concat());
    made.succeeds().tells(&["--preview writes nothing"]);
    assert_eq!(place.names(), ["x.png"]);
    let info = place.dype(&["info", "x.png"]);
    assert!(info.succeeds().stdout.contains("4"), "{}", info.stdout);
    place.dype(&["replay", "x.png", "-o", "y.png", "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")));
    let saved =
        place.dype(&[&flags[..8], &["-o", "z.png", "--device", "cpu", "--save-latents", "z.safetensors"]].concat());
    saved.succeeds();
    place.dype(&["decode", "z.safetensors", "-o", "w.png", "--model", &model, "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("w.png")) == rgb8(&place.path("x.png")));
    let tokens = place.dype(&["inspect", "--model", &model, "--tokens", "--prompt", "a cat"]);
    assert!(tokens.succeeds().stdout.starts_with("Qwen3: 14 of 512 tokens, 498 of padding"), "{}", tokens.stdout);
    let table = place.dype(&["inspect", "--model", &model, "--dype-thresholds", "settled"]);
    assert!(table.succeeds().stdout.contains("4096 x 4096 px"), "{}", table.stdout);
    assert!(table.stdout.contains("still extrapolates (kappa 0.59)"), "{}", table.stdout);
}
