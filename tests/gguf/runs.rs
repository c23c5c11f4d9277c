//! Whole runs with quantised transformers and text encoders, against the reference's from the dequantised weights.

use candle_core::Device;
use dype::testing::{base::json::read_json, output::load_latents};
use serde::Deserialize;

use crate::{
    path,
    support::{fixture, golden::LATENTS_TOLERANCE, program::Place, relative_error, values},
};

#[derive(Deserialize)]
pub struct Golden {
    run: usize,
    method: String,
    dype: bool,
    height: usize,
    width: usize,
    steps: usize,
    seed: u64,
    guidance: f64,
    prompt: String,
    transformer: String,
    text_encoder_2: Option<String>,
}

impl Golden {
    /// The first run with this transformer and tiny-flux's own text encoders.
    pub fn of(transformer: &str) -> Self {
        let all: Vec<Self> = read_json(&path("expected/runs.json")).expect("golden");
        let is_it = |run: &Self| run.transformer == transformer && run.text_encoder_2.is_none();
        all.into_iter().find(is_it).expect("a run")
    }

    pub fn args(&self) -> Vec<String> {
        let tiny = |part: &str| fixture("tiny-flux").join(part).display().to_string();
        let t5 = self
            .text_encoder_2
            .as_ref()
            .map_or_else(|| tiny("text_encoder_2"), |file| path(&format!("models/{file}")).display().to_string());
        let mut args: Vec<String> = [
            ("--model", path(&format!("models/{}", self.transformer)).display().to_string()),
            ("--vae", tiny("vae")),
            ("--text-encoder", tiny("text_encoder")),
            ("--text-encoder-2", t5),
            ("--tokenizer", tiny("tokenizer")),
            ("--tokenizer-2", tiny("tokenizer_2")),
            ("--height", self.height.to_string()),
            ("--width", self.width.to_string()),
            ("--steps", self.steps.to_string()),
            ("--seed", self.seed.to_string()),
            ("--part", format!("scheduler={}", tiny("scheduler"))),
            ("--max-sequence-length", "512".into()),
            ("--method", self.method.clone()),
            ("--prompt", self.prompt.clone()),
            ("--device", "cpu".into()),
            ("--dtype", "f32".into()),
            ("--rng", "torch-cpu".into()),
            ("-o", "x.png".into()),
            ("--save-latents", "x.safetensors".into()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        // The wide one takes none.
        if self.transformer.starts_with("narrow") {
            args.extend(["--guidance".into(), self.guidance.to_string()]);
        }
        if !self.dype {
            args.push("--no-dype".into());
        }
        args
    }
}

fn meets(runs: impl Fn(&Golden) -> bool, count: usize) {
    let all: Vec<Golden> = read_json(&path("expected/runs.json")).expect("golden");
    let wanted: Vec<_> = all.into_iter().filter(runs).collect();
    assert_eq!(wanted.len(), count);
    for golden in wanted {
        let place = Place::new();
        place.dype(&golden.args()).succeeds();
        let found = values(&load_latents(&place.path("x.safetensors"), 64).expect("latents"));
        let file = path(&format!("expected/run{}.safetensors", golden.run));
        let expected = candle_core::safetensors::load(file, &Device::Cpu).expect("golden");
        let error = relative_error(&found, &values(&expected["latents_final"]));
        assert!(error < LATENTS_TOLERANCE, "run {} with {}: {error:e}", golden.run, golden.transformer);
    }
}

/// Blocks of numbers are the same whether all of a transformer stays, or a part of it at a time.
#[test]
fn a_streamed_transformer_gives_the_same_latents() {
    let all: Vec<Golden> = read_json(&path("expected/runs.json")).expect("golden");
    let golden = all.into_iter().find(|golden| golden.transformer == "wide-K.gguf").expect("a run");
    let latents = |weights: &str| {
        let place = Place::new();
        let args = [golden.args(), vec!["--weights".into(), weights.into()]].concat();
        place.dype(&args).succeeds();
        values(&load_latents(&place.path("x.safetensors"), 64).expect("latents"))
    };
    assert_eq!(latents("stream"), latents("resident"));
}

#[test]
fn runs_of_every_type_meet_the_reference() {
    meets(|golden| golden.text_encoder_2.is_none() && !golden.dype, 11);
}

#[test]
fn runs_with_a_quantised_t5_meet_the_reference() {
    meets(|golden| golden.text_encoder_2.is_some(), 3);
}

#[test]
fn a_run_with_dype_meets_the_reference() {
    meets(|golden| golden.dype, 1);
}
