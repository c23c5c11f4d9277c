//! Whole runs against the reference: six pictures and their latents, through the program and through the library.

use crate::support::{
    fixture,
    golden::{LATENTS_TOLERANCE, assert_same_picture},
    program::{Place, rgb8},
    relative_error, values,
};
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::json::read_json,
    base::progress::Silent,
    models::ModelRequest,
    nn::CodeProducts,
    output::load_latents,
    plan::{Machine, Plan, Task},
    recipe::{ModelFacts, Recipe, Wanted},
    run::pipeline::Pipeline,
    sampling::Progress,
};
use serde::Deserialize;

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
    prompt: String,
}

impl Golden {
    fn all() -> Vec<Self> {
        read_json(&fixture("expected/runs.json")).expect("six runs")
    }

    fn number(run: usize) -> Self {
        Self::all().into_iter().find(|golden| golden.run == run).expect("one of six")
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let numbers = [
            ("--height", self.height.to_string()),
            ("--width", self.width.to_string()),
            ("--steps", self.steps.to_string()),
            ("--seed", self.seed.to_string()),
            ("--guidance", self.guidance.to_string()),
        ];
        let mut args: Vec<String> = numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        let words = ["--method", &self.method, "--prompt", &self.prompt, "--device", "cpu", "--dtype", "f32"];
        args.extend(words.iter().chain(more).map(|word| (*word).to_owned()));
        if !self.dype {
            args.push("--no-dype".into());
        }
        args
    }

    fn recipe(&self, facts: &ModelFacts) -> Recipe {
        let wanted = Wanted {
            prompt: Some(self.prompt.clone()),
            height: Some(self.height),
            width: Some(self.width),
            steps: Some(self.steps),
            seed: Some(self.seed),
            guidance: Some(self.guidance),
            method: Some(self.method.parse().expect("a method")),
            dype: Some(self.dype),
            ..Wanted::default()
        };
        Recipe::new(&wanted, facts).expect("in range")
    }

    fn latents(&self, key: &str) -> Vec<f32> {
        let file = fixture(&format!("expected/run{}.safetensors", self.run));
        values(&candle_core::safetensors::load(file, &Device::Cpu).expect("golden")[key])
    }

    fn picture(&self) -> Vec<u8> {
        rgb8(&fixture(&format!("expected/run{}.png", self.run)))
    }
}

/// The program's picture and latents of one run are the reference's.
fn meets(run: usize) {
    let golden = Golden::number(run);
    let place = Place::new();
    let model = fixture("tiny-flux").display().to_string();
    let flags = ["--model", &model, "-o", "x.png", "--save-latents", "x.safetensors"];
    let ended = place.dype(&golden.args(&flags));
    ended.succeeds();
    assert_eq!(ended.stdout, "x.png\n");
    let latents = load_latents(&place.path("x.safetensors"), 64).expect("latents");
    let error = relative_error(&values(&latents), &golden.latents("latents_final"));
    assert!(error < LATENTS_TOLERANCE, "latents: {error:e}");
    assert_same_picture(&rgb8(&place.path("x.png")), &golden.picture());
}

#[test]
fn run_0_yarn_with_dype() {
    meets(0);
}

#[test]
fn run_1_yarn() {
    meets(1);
}

#[test]
fn run_2_ntk_with_dype() {
    meets(2);
}

#[test]
fn run_3_ntk() {
    meets(3);
}

#[test]
fn run_4_base() {
    meets(4);
}

#[test]
fn run_5_wide_with_another_seed() {
    meets(5);
}

/// Latents after the first step, as the library's pipeline hands them out.
#[test]
fn the_first_step_of_every_run_is_the_references() {
    let files = crate::support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let pipeline = Pipeline::open(&files, Device::Cpu, DType::F32, &Silent).expect("opens");
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    for golden in Golden::all() {
        let recipe = golden.recipe(&files.facts.recipe);
        let task = Task::new(recipe.size(), recipe.steps, 512);
        let choices = Plan::new(&files, &task, &machine).expect("fits").choices;
        let embeddings = pipeline.encode(&[golden.prompt.as_str()], 512).expect("encodes").remove(0);
        let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
        let noise = pipeline.noise(&recipe).expect("noise");
        let mut first: Option<Tensor> = None;
        let stopped =
            pipeline.denoise(&*transformer, (&recipe, 0), &embeddings.into(), Progress::start(noise), &mut |after| {
                assert_eq!(after.step.index, 0);
                first = Some(after.latents.clone());
                Err(Error::request("one step is enough", ""))
            });
        assert_eq!(stopped.expect_err("the callback's error").to_string(), "one step is enough");
        let error = relative_error(&values(&first.expect("one step")), &golden.latents("latents_step1"));
        assert!(error < LATENTS_TOLERANCE, "run {}: {error:e}", golden.run);
    }
}

/// FLUX.1 takes true classifier-free guidance too, beside its distilled one.
#[test]
fn cfg_is_plain_arithmetic() {
    let model = crate::support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let (side, tokens) = (Some(48), Some(16));
    let wanted = Wanted { height: side, width: side, max_sequence_length: tokens, ..Wanted::default() };
    crate::support::guided::assert_is_arithmetic(&model, &wanted);
}

/// The same picture from the single-file layout: a transformer, the autoencoder beside it, and the text parts by flags.
#[test]
fn single_files_give_the_reference_picture() {
    let golden = Golden::number(5);
    let place = Place::new();
    let of = |path: &str| fixture(path).display().to_string();
    let flags = [
        ("--model", of("tiny-bfl/flux1-tiny.safetensors")),
        ("--text-encoder", of("tiny-flux/text_encoder")),
        ("--text-encoder-2", of("tiny-flux/text_encoder_2/model.safetensors")),
        ("--tokenizer", of("tiny-flux/tokenizer")),
        ("--tokenizer-2", of("tiny-flux/tokenizer_2/tokenizer.json")),
        ("-o", "x.png".to_owned()),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).collect();
    place.dype(&golden.args(&flags)).succeeds();
    assert_same_picture(&rgb8(&place.path("x.png")), &golden.picture());
}

/// Streamed weights give the same bytes; little memory means other pieces, and the same picture up to rounding.
#[test]
fn memory_does_not_change_the_picture() {
    let place = Place::new();
    let size = ["--height", "320", "--width", "192"];
    let pixels = |more: &[&str]| place.pixels(&[&size, more].concat());
    let resident = pixels(&["--weights", "resident"]);
    assert!(pixels(&["--weights", "stream"]) == resident);
    let plan = place.small(&[&size[..], &["--dry-run", "--json"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&plan.succeeds().stdout).expect("JSON");
    let less = plan["plan"]["peak_bytes"]["decode"].as_u64().expect("bytes") - 15_000_000;
    let small = place.small(&[&size[..], &["--memory", &less.to_string(), "-v"]].concat());
    small.succeeds().tells(&["bands of 8 rows"]);
    let pieces = rgb8(&place.path(small.stdout.trim_end()));
    let furthest = pieces.iter().zip(&resident).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest <= Some(1), "{furthest:?}");
}
