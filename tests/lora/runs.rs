//! Whole runs against the reference, through the program: all in one batch, each with its own files.

use std::fmt::Write;

use candle_core::Device;
use dype::testing::{base::json::read_json, output::load_latents};
use serde::Deserialize;
use serde_json::json;

use super::support::{fixture, golden::LATENTS_TOLERANCE, program::Place, relative_error, values};

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
    loras: Vec<(String, f64)>,
}

impl Golden {
    fn all() -> Vec<Self> {
        read_json(&fixture("lora/runs.json")).expect("runs")
    }

    /// As a line of a file of prompts.
    fn line(&self) -> String {
        let file = |(name, strength): &(String, f64)| json!({ "file": fixture(&format!("lora/files/{name}.safetensors")), "strength": strength });
        let loras: Vec<_> = self.loras.iter().map(file).collect();
        let Self { method, dype, height, width, steps, seed, guidance, prompt, .. } = self;
        json!({
            "prompt": prompt, "method": method, "dype": dype, "height": height, "width": width, "steps": steps, "seed": seed,
            "guidance": guidance, "loras": loras
        })
        .to_string()
    }

    fn latents(&self) -> Vec<f32> {
        let file = fixture(&format!("lora/run{}.safetensors", self.run));
        values(&candle_core::safetensors::load(file, &Device::Cpu).expect("golden")["latents_final"])
    }
}

/// The program's latents of these runs, streamed or not, are the reference's.
fn meet(runs: &[Golden], more: &[&str]) {
    let place = Place::new();
    let mut lines = String::new();
    runs.iter().for_each(|run| writeln!(lines, "{}", run.line()).expect("text"));
    std::fs::write(place.path("p.jsonl"), lines).expect("writes");
    let model = fixture("tiny-flux").display().to_string();
    let flags = ["--model", &model, "--prompts", "p.jsonl", "-o", "x.png", "--save-latents", "x.safetensors"];
    place.dype(&[&flags[..], &["--device", "cpu", "--dtype", "f32"], more].concat()).succeeds();
    for (index, golden) in runs.iter().enumerate() {
        let name = if index == 0 { "x.safetensors".to_owned() } else { format!("x_{}.safetensors", index + 1) };
        let latents = load_latents(&place.path(name), 64).expect("latents");
        let error = relative_error(&values(&latents), &golden.latents());
        assert!(error < LATENTS_TOLERANCE, "run {}, {:?}: {error:e}", golden.run, golden.loras);
    }
}

#[test]
fn every_run_is_the_references() {
    let runs = Golden::all();
    assert_eq!(runs.len(), 18);
    meet(&runs, &[]);
}

#[test]
fn streamed_weights_give_the_same() {
    let runs: Vec<_> = Golden::all().into_iter().filter(|golden| [6, 9, 11, 14].contains(&golden.run)).collect();
    meet(&runs, &["--weights", "stream"]);
}
