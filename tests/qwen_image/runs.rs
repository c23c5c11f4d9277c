//! Whole runs through the program: diffusers', the authors' and the paper's.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::{geometry::ImageSize, json::read_json, memory::Bytes, progress::Silent},
    models::Model,
    nn::CodeProducts,
    output::load_latents,
    plan::{Machine, Plan, Task},
    recipe::{Recipe, Wanted},
    run::pipeline::Pipeline,
    sampling::Progress,
};
use serde::Deserialize;

use crate::{
    support::{
        fixture,
        golden::{LATENTS_TOLERANCE, assert_same_picture, differences},
        program::{Place, rgb8},
        relative_error, values,
    },
    tiny,
};

#[derive(Debug, Deserialize)]
struct Golden {
    run: usize,
    prompt: String,
    negative_prompt: Option<String>,
    cfg: f64,
    height: usize,
    width: usize,
    steps: usize,
    seed: u64,
    method: String,
}

impl Golden {
    fn number(run: usize) -> Self {
        // The last row says how much the runs differ.
        let mut all: Vec<serde_json::Value> = read_json(&fixture("qwen-image/expected/runs.json")).expect("fixture");
        serde_json::from_value(all.swap_remove(run)).expect("a run")
    }

    /// The authors' "dype" is YaRN as it stands, without the schedule; "paper" is YaRN with it.
    fn method(&self) -> (&'static str, bool) {
        match self.method.as_str() {
            "base" => ("base", false),
            "paper" => ("yarn", true),
            _ => ("yarn", false),
        }
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let model = fixture("qwen-image/tiny").display().to_string();
        let (method, dype) = self.method();
        let words = [
            ("--model", model),
            ("--height", self.height.to_string()),
            ("--width", self.width.to_string()),
            ("--steps", self.steps.to_string()),
            ("--seed", self.seed.to_string()),
            ("--cfg", self.cfg.to_string()),
            ("--method", method.to_owned()),
            ("--prompt", self.prompt.clone()),
            ("--device", "cpu".to_owned()),
            ("--dtype", "f32".to_owned()),
        ];
        let words = words.into_iter().filter(|(flag, _)| !more.contains(flag));
        let mut args: Vec<String> = words.flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        args.extend(
            self.negative_prompt.iter().flat_map(|negative| ["--negative-prompt".to_owned(), negative.clone()]),
        );
        args.extend((!dype && method != "base").then(|| "--no-dype".to_owned()));
        args.extend(more.iter().map(|word| (*word).to_owned()));
        args
    }

    fn latents(&self) -> Vec<f32> {
        let file = fixture(&format!("qwen-image/expected/run{}.safetensors", self.run));
        values(&candle_core::safetensors::load(file, &Device::Cpu).expect("golden")["latents_final"])
    }
}

fn latents(path: &Path) -> Vec<f32> {
    values(&load_latents(path, 64).expect("latents"))
}

/// The program's latents of a run are the reference's; the place they were made in.
fn meets(run: usize, more: &[&str]) -> Place {
    let (golden, place) = (Golden::number(run), Place::new());
    let flags = [&["-o", "x.png", "--save-latents", "x.safetensors"], more].concat();
    place.dype(&golden.args(&flags)).succeeds();
    let error = relative_error(&latents(&place.path("x.safetensors")), &golden.latents());
    assert!(error < LATENTS_TOLERANCE, "run {run}: {error:e}");
    place
}

#[test]
fn run_0_of_diffusers_with_its_picture() {
    let place = meets(0, &[]);
    assert_same_picture(&rgb8(&place.path("x.png")), &rgb8(&fixture("qwen-image/expected/run0.png")));
}

#[test]
fn run_1_without_guidance() {
    meets(1, &[]);
}

#[test]
fn run_2_of_the_authors_is_static() {
    meets(2, &[]);
}

#[test]
fn run_3_of_the_authors_without_their_method() {
    meets(3, &[]);
}

#[test]
fn run_4_wide_and_without_guidance() {
    meets(4, &[]);
}

#[test]
fn run_5_by_the_paper_s_schedule() {
    meets(5, &[]);
}

/// Streamed weights and the least memory give the same latents.
#[test]
fn streams_and_little_memory_meet_the_reference_too() {
    meets(0, &["--weights", "stream"]);
}

#[test]
fn bf16_stays_within_half_a_level() {
    for run in [0, 2] {
        let (golden, place) = (Golden::number(run), Place::new());
        let make = |name: &str, dtype: &str| {
            place.dype(&golden.args(&["-o", name, "--dtype", dtype])).succeeds();
            rgb8(&place.path(name))
        };
        let (mean, _) = differences(&make("bf16.png", "bf16"), &make("f32.png", "f32"));
        assert!(mean < 0.5, "run {run}: mean {mean}");
    }
}

/// What is said of the authors' script: how far the paper's schedule is from it, and from none.
#[test]
fn the_schedule_is_as_far_from_the_authors_script_as_the_readme_says() {
    let [authors, base, paper] = [2, 3, 5].map(|run| Golden::number(run).latents());
    let differs = |a: &[f32], b: &[f32]| (100.0 * relative_error(a, b)).round();
    assert_eq!((differs(&paper, &authors), differs(&paper, &base), differs(&authors, &base)), (6.0, 9.0, 11.0));
}

/// Whoever names the model and nothing else gets what its card and the method's authors use.
#[test]
fn defaults_are_the_family_s() {
    let model = fixture("qwen-image/tiny").display().to_string();
    let place = Place::new();
    let ended = place.dype(&["--model", &model, "--device", "cpu", "--dry-run", "--json", "--prompt", "a lake"]);
    ended.succeeds();
    let plan: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let settings = plan.to_string();
    for word in ["\"steps\":40", "\"cfg\":4.0", "\"base_resolution\":1328", "\"height\":3072", "\"width\":3072"] {
        assert!(settings.contains(word), "{word}: {settings}");
    }
}

/// A long prompt is read further than is usual, where the reference's pipeline reads it.
#[test]
fn a_prompt_may_have_1024_tokens() {
    let model = fixture("qwen-image/tiny").display().to_string();
    let place = Place::new();
    let prompt = "a lake ".repeat(600);
    let common =
        ["--model", &model, "--device", "cpu", "--height", "32", "--width", "32", "--steps", "1", "-p", &prompt];
    let make = |tokens: &str| place.dype(&[&common[..], &["--cfg", "1", "--max-sequence-length", tokens]].concat());
    make("512").succeeds().tells(&["Qwen2.5-VL reads 512 tokens", "raise --max-sequence-length (at most 1024)"]);
    make("1024").succeeds().tells(&["Qwen2.5-VL reads 1024 tokens", "shorten the prompt"]);
    make("1025").fails(2, &["--max-sequence-length", "2 to 1024"]);
}

/// A run that was cut off goes on to the same latents.
#[test]
fn a_run_goes_on_from_its_checkpoint() {
    let model = tiny();
    let pipeline = Pipeline::open(&model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let golden = Golden::number(1);
    let wanted = Wanted {
        prompt: Some(golden.prompt.clone()),
        height: Some(64),
        width: Some(96),
        steps: Some(3),
        seed: Some(golden.seed),
        cfg: Some(1.0),
        ..Wanted::default()
    };
    let recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
    let task = Task::new(recipe.size(), 3, 512);
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let choices = Plan::new(&model, &task, &machine).expect("fits").choices;
    let text = pipeline.encode(&[golden.prompt.as_str()], 512).expect("encodes").remove(0);
    let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let from = || Progress::start(pipeline.noise(&recipe).expect("noise"));
    let texts = text.into();
    let whole = pipeline.denoise(&*transformer, (&recipe, 0), &texts, from(), &mut |_| Ok(())).expect("runs");
    let mut middle = None;
    let stopped = pipeline.denoise(&*transformer, (&recipe, 0), &texts, from(), &mut |after| {
        middle = Some(after.progress()?);
        Err(Error::request("enough", ""))
    });
    assert_eq!(stopped.expect_err("the callback's error").to_string(), "enough");
    let rest = pipeline.denoise(&*transformer, (&recipe, 0), &texts, middle.expect("a step"), &mut |_| Ok(()));
    let numbers = |latents: &Tensor| values(latents);
    assert_eq!(numbers(&rest.expect("runs")), numbers(&whole));
}

/// Larger pictures take more, and even 8192 px can be planned on a processor.
#[test]
fn plans_follow_the_size() {
    let model = tiny();
    let mut before = 0;
    for side_px in [1024, 4096, 8192] {
        let size = ImageSize::new(side_px, side_px).expect("a size");
        let task = Task { prompts: 2, cfg: true, ..Task::new(size, 40, 512) };
        let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: Some(Bytes(64 << 30)), weights: None };
        let plan = Plan::new(&model, &task, &machine).expect("fits");
        assert!(plan.largest_tensor_elements > before, "{side_px}");
        before = plan.largest_tensor_elements;
    }
}
