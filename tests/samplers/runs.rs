//! Whole runs of tiny-flux with step caches, and every sampler resumed.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Result,
    base::{json::read_json, progress::Silent},
    methods::{Moment, PositionScaler},
    models::{Conditioning, Model, ModelRequest, Velocity, VelocityAt, flux1::Flux1},
    nn::{CodeProducts, PositionIds, RopeTables},
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{
        Item,
        pipeline::{Pipeline, Texts},
    },
    sampling::{Decision, Denoiser, EasyCache, EasyRule, Euler, Progress, StepInfo, denoise},
};
use serde::Deserialize;

use crate::support::{self, fixture, golden::LATENTS_TOLERANCE, relative_error, values};

#[derive(Deserialize)]
struct Golden {
    case: String,
    prompt: String,
    guidance: f64,
    seed: u64,
    base_resolution: usize,
    height: usize,
    width: usize,
    steps: usize,
    threshold: f64,
    start_sigma: Option<f64>,
    end_sigma: Option<f64>,
    computed: Vec<u8>,
}

impl Golden {
    fn of(case: &str) -> Self {
        let cases: Vec<Self> = read_json(&fixture("expected/cache-runs.json")).expect("golden");
        cases.into_iter().find(|golden| golden.case == case).expect("one of two")
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            prompt: Some(self.prompt.clone()),
            guidance: Some(self.guidance),
            seed: Some(self.seed),
            base_resolution: Some(self.base_resolution),
            height: Some(self.height),
            width: Some(self.width),
            steps: Some(self.steps),
            ..Wanted::default()
        }
    }

    #[track_caller]
    fn assert_meets(&self, latents: &Tensor) {
        let file = fixture("expected/cache-runs.safetensors");
        let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(file, &Device::Cpu).expect("golden");
        let error = relative_error(&values(latents), &values(&tensors[&format!("{}/latents_final", self.case)]));
        assert!(error < LATENTS_TOLERANCE, "{}: {error:e}", self.case);
    }
}

fn model() -> Flux1 {
    support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux")
}

/// A recipe's model, ready.
struct Ready<'m> {
    pipeline: Pipeline<'m>,
    recipe: Recipe,
    texts: Texts,
    transformer: Box<dyn Velocity>,
}

impl<'m> Ready<'m> {
    fn new(model: &'m Flux1, wanted: &Wanted) -> Self {
        let pipeline = Pipeline::open(model, Device::Cpu, DType::F32, &Silent).expect("opens");
        let recipe = Recipe::new(wanted, &model.facts().recipe).expect("in range");
        let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
        let choices = Plan::new(model, &Item::task(&recipe, 1), &machine).expect("fits").choices;
        let negative = recipe.cfg().map(|(_, negative)| negative);
        let prompts: Vec<&str> = [Some(recipe.prompt.as_str()), negative].into_iter().flatten().collect();
        let mut encoded = pipeline.encode(&prompts, recipe.max_sequence_length).expect("encodes").into_iter();
        let texts = Texts { prompt: encoded.next().expect("a prompt"), negative: encoded.next() };
        let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
        Self { pipeline, recipe, texts, transformer }
    }

    fn start(&self) -> Progress {
        Progress::start(self.pipeline.noise(&self.recipe).expect("noise"))
    }

    /// The end from there, the places on the way and the steps that were skipped.
    fn run(&self, from: Progress) -> (Tensor, Vec<Progress>, usize) {
        let (mut seen, mut skipped) = (vec![], 0);
        let end = self.pipeline.denoise(&*self.transformer, (&self.recipe, 0), &self.texts, from, &mut |after| {
            seen.push(after.progress()?);
            skipped = after.skips().steps;
            Ok(())
        });
        (end.expect("runs"), seen, skipped)
    }
}

/// The transformer as a denoiser of its own, to be cached by a rule that no schedule gives.
struct Bare<'a> {
    transformer: &'a dyn Velocity,
    text: &'a Conditioning,
    guidance: f64,
    positions: PositionIds,
    base_patches: usize,
    scaler: Box<dyn PositionScaler>,
    computed: Vec<usize>,
}

impl Denoiser for Bare<'_> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        self.computed.push(step.index);
        let at = Moment::at(step.t);
        let rope = RopeTables::new(&self.positions, self.base_patches, &*self.scaler, &at, &Device::Cpu)?;
        let (text, guidance) = (self.text, Some(self.guidance));
        let at =
            VelocityAt { t: step.t, guidance, text, rope: &rope, text_bias: None, logit_scale: 1.0, first_block: None };
        self.transformer.velocity(latents, &at)
    }
}

#[test]
fn a_run_with_easy_cache_is_comfyuis() {
    let (golden, model) = (Golden::of("easy"), model());
    let ready = Ready::new(&model, &golden.wanted());
    let (start, end) = golden.start_sigma.zip(golden.end_sigma).expect("a window");
    let bare = Bare {
        transformer: &*ready.transformer,
        text: &ready.texts.prompt,
        guidance: golden.guidance,
        positions: model.positions(model.facts().latents.tokens(ready.recipe.size()), &ready.texts.prompt),
        base_patches: model.facts().patches(golden.base_resolution),
        scaler: ready.recipe.scaler(),
        computed: vec![],
    };
    let rule = EasyRule { threshold: golden.threshold, start, end };
    let sigmas = ready.pipeline.sigmas(&ready.recipe).expect("a schedule");
    let mut cache = EasyCache::leading(bare, rule, Decision::default());
    let latents = denoise(&mut cache, &mut Euler, &sigmas, ready.start(), &mut |_| Ok(())).expect("runs");
    assert_eq!(cache.skips().steps, golden.computed.iter().filter(|computed| **computed == 0).count());
    golden.assert_meets(&latents);
}

#[test]
fn a_run_with_first_block_cache_is_diffusers() {
    let (golden, model) = (Golden::of("first_block"), model());
    let step_cache = format!("first-block:{}", golden.threshold).parse().ok();
    let ready = Ready::new(&model, &Wanted { step_cache, ..golden.wanted() });
    let (latents, _, skipped) = ready.run(ready.start());
    assert_eq!(skipped, golden.computed.iter().filter(|computed| **computed == 0).count());
    golden.assert_meets(&latents);
    // Without it the picture is another.
    let plain = Ready::new(&model, &golden.wanted());
    assert!(relative_error(&values(&plain.run(plain.start()).0), &values(&latents)) > 0.02);
}

fn small(more: Wanted) -> Wanted {
    let (prompt, side) = (Some("a lake".to_owned()), Some(64));
    Wanted { prompt, height: side, width: side, steps: Some(7), max_sequence_length: Some(16), ..more }
}

/// Samplers with and without classifier-free guidance, and EasyCache at a threshold for random weights.
#[test]
fn every_sampler_goes_on_bit_for_bit() {
    let model = model();
    let mut ends: Vec<Vec<f32>> = vec![];
    for sampler in ["euler", "heun", "dpmpp-2m", "er-sde"] {
        for (cfg, cache, schedule) in [(None, "off", "uniform"), (Some(3.0), "1.5", "beta")] {
            let more = Wanted {
                sampler: sampler.parse().ok(),
                step_cache: cache.parse().ok(),
                schedule: schedule.parse().ok(),
                cfg,
                negative_prompt: Some("fog".to_owned()),
                ..Wanted::default()
            };
            let ready = Ready::new(&model, &small(more));
            let (whole, seen, skipped) = ready.run(ready.start());
            assert_eq!(skipped > 0, cache != "off", "{sampler}");
            assert_eq!(values(&ready.run(ready.start()).0), values(&whole), "the same again");
            for progress in seen {
                let step = progress.step;
                assert_eq!(values(&ready.run(progress).0), values(&whole), "{sampler} from step {step}");
            }
            ends.push(values(&whole));
        }
    }
    for (index, end) in ends.iter().enumerate() {
        assert!(ends[..index].iter().all(|other| other != end), "run {index} is one of its own");
    }
}

/// A run by streamed weights skips the same blocks.
#[test]
fn blocks_that_are_left_out_are_left_out_of_a_stream_too() {
    let model = model();
    let ready = Ready::new(&model, &small(Wanted { step_cache: "first-block:0.9".parse().ok(), ..Wanted::default() }));
    let (whole, _, skipped) = ready.run(ready.start());
    assert!(skipped > 0);
    let weights = Some(dype::testing::nn::WeightsMode::Stream);
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights };
    let choices = Plan::new(&model, &Item::task(&ready.recipe, 1), &machine).expect("fits").choices;
    let transformer = ready.pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let (end, _, again) = Ready { transformer, ..ready }.run_from_start();
    assert_eq!((values(&end), again), (values(&whole), skipped));
}

impl Ready<'_> {
    fn run_from_start(&self) -> (Tensor, Vec<Progress>, usize) {
        self.run(self.start())
    }
}
