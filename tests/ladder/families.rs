//! Ladders of the families besides FLUX.1, through the program: what they are combined with, and what is refused.

use std::{collections::HashMap, fs, path::Path};

use candle_core::{Device, Tensor};
use dype::testing::output::{LatentsFile, read_provenance};
use serde_json::{Value, json};

use crate::support::{
    copy_folder, fixture,
    program::{Place, Run, rgb8},
    values,
};

pub const MODELS: [&str; 3] = ["flux2-klein/tiny", "z-image/tiny", "qwen-image/tiny"];
/// Sizes that are no multiples of each other, of a picture that is not square.
const FLAGS: &str =
    "--height 64 --width 48 --base-resolution 32 --steps 4 --ladder 32,48,64 --max-sequence-length 32 --device cpu";

fn run(place: &Place, model: &str, more: &[&str]) -> Run {
    let model = if Path::new(model).is_absolute() { model.to_owned() } else { fixture(model).display().to_string() };
    let flags = FLAGS.split(' ').chain(["--model", &model, "--prompt", "a lake"]);
    place.dype(&flags.chain(more.iter().copied()).collect::<Vec<_>>())
}

fn provenance(place: &Place, name: &str) -> Value {
    read_provenance(&place.path(name)).expect("readable").expect("ours")
}

/// A picture of the right size, and made again from what it says of itself.
#[track_caller]
fn assert_made_again(place: &Place, name: &str) {
    let pixels = rgb8(&place.path(name));
    assert_eq!((image::image_dimensions(place.path(name)).expect("a picture"), pixels.len()), ((48, 64), 3 * 48 * 64));
    place.dype(&["replay", name, "-o", "again.png", "--overwrite"]).succeeds();
    assert!(rgb8(&place.path("again.png")) == pixels, "{name} made again");
}

fn latents(place: &Place, name: &str) -> Vec<f32> {
    values(&LatentsFile::read(&place.path(name)).expect("latents").latents)
}

#[test]
fn every_family_climbs_with_dype_and_without() {
    for model in MODELS {
        let place = Place::new();
        let more = ["-o", "x.png", "--preview", "p.png", "--preview-every", "1", "--save-latents", "x.safetensors"];
        let climbed = run(&place, model, &more);
        climbed.succeeds().tells(&["4 steps, stage 1 of 3", "stage 2 of 3", "stage 3 of 3"]);
        assert_made_again(&place, "x.png");
        let with = latents(&place, "x.safetensors");
        assert!(with.iter().all(|number| number.is_finite()), "{model}");
        assert_eq!(provenance(&place, "x.png")["settings"]["ladder"], "32,48,64");
        match place.path("p.png").exists() {
            true => assert_eq!(provenance(&place, "p.png")["preview"]["stages"], 3, "{model}"),
            false => drop(climbed.tells(&["--preview writes nothing: the colours of this model"])),
        }
        // At two tokens a side in training every pair of YaRN's is interpolated until t is small.
        let static_yarn = ["--no-dype"];
        let others = [
            &static_yarn[..],
            &["--method", "ntk"],
            &["--method", "sega"],
            &["--ladder-pull", "0"],
            &["--ladder", "off"],
        ];
        for (i, more) in others.into_iter().enumerate() {
            let [name, file] = ["png", "safetensors"].map(|ending| format!("{i}.{ending}"));
            run(&place, model, &[more, &["-o", &name, "--save-latents", &file]].concat()).succeeds();
            assert_made_again(&place, &name);
            assert!(more == static_yarn || latents(&place, &file) != with, "{model}, {more:?}");
        }
    }
}

#[test]
fn caches_guidance_and_samplers_go_with_it() {
    for model in MODELS {
        let place = Place::new();
        let combined = [
            "--cache 0.9 --steps 8",
            "--cache first-block:0.5",
            "--cfg 3 --negative-prompt fog",
            "--cfg 3 --cache first-block:0.5",
            "--sampler heun --ladder-pull 0",
        ];
        for (i, more) in combined.into_iter().enumerate() {
            let name = format!("{i}.png");
            let more: Vec<&str> = more.split(' ').chain(["-o", &name]).collect();
            run(&place, model, &more).succeeds().tells(&["stage 3 of 3"]);
            assert_made_again(&place, &name);
        }
        run(&place, model, &["--sampler", "heun"]).fails(2, &["--ladder", "Euler", "--ladder-pull 0"]);
        run(&place, model, &["--image", "0.png"]).fails(2, &["--ladder", "--image"]);
    }
}

#[test]
fn a_file_of_prompts_climbs_line_by_line() {
    for model in MODELS {
        let place = Place::new();
        let lines = [
            json!({ "prompt": "a", "ladder": "auto" }),
            json!({ "prompt": "b", "ladder": [32, 64], "dype": false }),
            json!({ "prompt": "c", "ladder": "off", "seed": 7 }),
        ];
        fs::write(place.path("p.jsonl"), lines.map(|line| format!("{line}\n")).concat()).expect("written");
        let model = fixture(model).display().to_string();
        let flags: Vec<&str> =
            FLAGS.split(' ').chain(["--model", &model, "--prompts", "p.jsonl", "-o", "x/"]).collect();
        let paths = place.dype(&flags).succeeds().stdout.clone();
        let ladders: Vec<_> =
            paths.lines().map(|path| provenance(&place, path)["settings"]["ladder"].clone()).collect();
        assert_eq!(ladders, [json!("37,64"), json!("32,64"), Value::Null], "{model}");
        let again = place.dype(&[&flags[..], &["--resume"]].concat());
        assert!(!again.succeeds().stderr.contains("denoise"), "{}", again.stderr);
    }
}

/// A copy of a model whose autoencoder has no encoder.
fn without_encoder(place: &Place, model: &str) -> String {
    copy_folder(&fixture(model), &place.path("m"));
    let vae = place.path("m/vae");
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for entry in fs::read_dir(&vae).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            tensors.extend(candle_core::safetensors::load(&path, &Device::Cpu).expect("a shard"));
        }
        if path.file_name().is_some_and(|name| name != "config.json") {
            fs::remove_file(path).expect("removed");
        }
    }
    tensors.retain(|name, _| !name.starts_with("encoder.") && !name.starts_with("quant_conv"));
    candle_core::safetensors::save(&tensors, vae.join("diffusion_pytorch_model.safetensors")).expect("saved");
    place.path("m").display().to_string()
}

/// A model that cannot make latents of a picture has no ladder; that is said before anything is loaded.
#[test]
fn a_model_without_an_encoder_has_no_ladder() {
    for model in [&MODELS[..], &["tiny-flux"]].concat() {
        let place = Place::new();
        let model = without_encoder(&place, model);
        let run_it = |more: &[&str]| run(&place, &model, more);
        run_it(&[]).fails(2, &["encoder", "--vae"]);
        run_it(&["--dry-run"]).fails(2, &["encoder", "--vae"]);
        run_it(&["--ladder", "off", "-o", "x.png"]).succeeds();
    }
}
