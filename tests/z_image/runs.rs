//! Whole runs against the reference: six pictures and their latents, through the program.

use std::path::Path;

use candle_core::Device;
use dype::testing::{base::json::read_json, output::LatentsFile};
use serde::Deserialize;

use super::{
    golden,
    loading::write_single_file,
    support::{
        copy_folder,
        golden::{LATENTS_TOLERANCE, assert_same_picture, differences},
        program::{Place, Run, rgb8},
        relative_error, values,
    },
    tensors,
};

/// What bf16 may add to it.
const BF16_MEAN: f64 = 0.5;

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
    cfg_normalization: bool,
    prompt: String,
}

impl Golden {
    fn number(run: usize) -> Self {
        let all: Vec<Self> = read_json(&golden("expected/runs.json")).expect("six runs");
        all.into_iter().find(|golden| golden.run == run).expect("one of six")
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let numbers = [
            ("--height", self.height.to_string()),
            ("--width", self.width.to_string()),
            ("--steps", self.steps.to_string()),
            ("--seed", self.seed.to_string()),
            ("--cfg", self.guidance.to_string()),
            ("--base-resolution", self.base_resolution.to_string()),
        ];
        let mut args: Vec<String> = numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        let method = if self.method == "stock" { "base" } else { &self.method };
        let words = ["--method", method, "--prompt", &self.prompt, "--device", "cpu"];
        args.extend(words.iter().chain(more).map(|word| (*word).to_owned()));
        args.extend(self.negative_prompt.iter().flat_map(|text| ["--negative-prompt".to_owned(), text.clone()]));
        if self.cfg_normalization {
            args.push("--cfg-normalization".into());
        }
        if !self.dype {
            args.push("--no-dype".into());
        }
        args
    }

    fn run(&self, place: &Place, more: &[&str]) -> Run {
        let model = golden("tiny").display().to_string();
        place.dype(&self.args(&[&["--model", &model, "-o", "x.png", "--save-latents", "x.safetensors"], more].concat()))
    }

    fn latents_error(&self, found: &Path) -> f64 {
        let found = LatentsFile::read(found).expect("latents").latents;
        let expected = &tensors(&format!("expected/run{}.safetensors", self.run))["latents_final"];
        assert_eq!(found.dims(), expected.dims(), "as the reference's loop holds them");
        relative_error(&values(&found), &values(&expected.to_device(&Device::Cpu).expect("here")))
    }

    fn picture(&self) -> Vec<u8> {
        rgb8(&golden(&format!("expected/run{}.png", self.run)))
    }
}

/// The program's picture and latents of one run are the reference's.
fn meets(run: usize) {
    let (golden, place) = (Golden::number(run), Place::new());
    golden.run(&place, &["--dtype", "f32"]).succeeds();
    let error = golden.latents_error(&place.path("x.safetensors"));
    assert!(error < LATENTS_TOLERANCE, "run {run}: latents {error:e}");
    assert_same_picture(&rgb8(&place.path("x.png")), &golden.picture());
}

#[test]
fn run_0_native() {
    meets(0);
}

#[test]
fn run_1_yarn_with_dype_tall() {
    meets(1);
}

#[test]
fn run_2_ntk_with_dype() {
    meets(2);
}

#[test]
fn run_3_base() {
    meets(3);
}

#[test]
fn run_4_cfg_with_dype() {
    meets(4);
}

#[test]
fn run_5_cfg_normalized() {
    meets(5);
}

#[test]
fn bf16_stays_within_half_a_level() {
    for run in [1, 5] {
        let (golden, place) = (Golden::number(run), Place::new());
        golden.run(&place, &["--dtype", "bf16"]).succeeds();
        let (mean, _) = differences(&rgb8(&place.path("x.png")), &golden.picture());
        assert!(mean < BF16_MEAN, "run {run}: mean {mean}");
    }
}

/// A single file of ComfyUI with the other parts beside it, streamed, gives the bytes of the folder, resident; and what the
/// latents hold decodes to the picture.
#[test]
fn layouts_and_weights_do_not_change_the_picture() {
    let (golden_run, place) = (Golden::number(5), Place::new());
    golden_run.run(&place, &["--dtype", "f32", "--weights", "resident"]).succeeds();
    let whole = rgb8(&place.path("x.png"));
    golden_run.run(&place, &["--dtype", "f32", "--weights", "stream", "--overwrite"]).succeeds();
    assert!(rgb8(&place.path("x.png")) == whole, "streamed");
    copy_folder(&golden("tiny"), &place.path("single"));
    std::fs::remove_dir_all(place.path("single/transformer")).expect("removed");
    write_single_file(&place.path("single/z.safetensors"), "");
    let args = golden_run.args(&["--model", "single/z.safetensors", "-o", "single.png", "--dtype", "f32"]);
    place.dype(&args).succeeds();
    assert!(rgb8(&place.path("single.png")) == whole, "from a single file");
    let model = golden("tiny").display().to_string();
    place.dype(&["decode", "x.safetensors", "-o", "decoded.png", "--model", &model, "--dtype", "f32"]).succeeds();
    assert!(rgb8(&place.path("decoded.png")) == whole, "from its latents");
}

/// What a model's defaults are, what a picture says of itself, and that it is made again from that.
#[test]
fn a_picture_says_its_cfg_and_is_replayed() {
    let place = Place::new();
    let model = golden("tiny").display().to_string();
    let common =
        ["--model", &model, "--height", "64", "--width", "64", "-p", "a cat", "--device", "cpu", "--dtype", "f32"];
    let settings = |args: &[&str]| -> serde_json::Value {
        let run = place.dype(&[&common[..], args].concat());
        run.succeeds();
        let info = place.dype(&["info", "--json", run.stdout.trim_end()]);
        serde_json::from_str::<serde_json::Value>(&info.stdout).expect("JSON")["settings"].clone()
    };
    let usual = settings(&["-o", "usual.png"]);
    assert_eq!((usual["steps"].as_u64(), usual.get("cfg"), usual["guidance"].is_null()), (Some(8), None, true));
    let led = settings(&["-o", "led.png", "--steps", "2", "--cfg", "2.5", "--negative-prompt", "fog"]);
    assert_eq!((led["cfg"].as_f64(), led["negative_prompt"].as_str()), (Some(2.5), Some("fog")));
    place.dype(&["replay", "led.png", "-o", "again.png", "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("again.png")) == rgb8(&place.path("led.png")));
    assert!(rgb8(&place.path("led.png")) != rgb8(&place.path("usual.png")));
    let idle = place.dype(&[&common[..], &["--steps", "1", "-o", "idle.png", "--negative-prompt", "fog"]].concat());
    idle.succeeds().tells(&["cfg is off", "--cfg SCALE"]);
    let still = place.dype(&[&common[..], &["--steps", "1", "-o", "still.png", "--mu", "1.15"]].concat());
    still.succeeds().tells(&["--mu changes nothing", "static, 3 at every size"]);
}

#[test]
fn tokens_frequencies_and_limits_are_the_familys() {
    let place = Place::new();
    let model = golden("tiny").display().to_string();
    let read = place.dype(&["inspect", "--tokens", "--prompt", "a cat", "--model", &model, "--json"]);
    read.succeeds();
    let read: serde_json::Value = serde_json::from_str(&read.stdout).expect("JSON");
    let ids: Vec<u64> =
        read["encoders"][0]["tokens"].as_array().expect("tokens").iter().filter_map(|t| t["id"].as_u64()).collect();
    assert_eq!(ids, [881, 342, 198, 64, 618, 882, 198, 881, 418, 198]);
    let steps = place.dype(&["inspect", "--model", &model, "--json"]);
    steps.succeeds();
    let steps: serde_json::Value = serde_json::from_str(&steps.stdout).expect("JSON");
    assert_eq!(steps["steps"].as_array().map(Vec::len), Some(8), "as Turbo is run");
    let wide = ["--model", &model, "--width", "8208", "-p", "x", "--device", "cpu", "--dry-run"];
    place.dype(&wide).fails(2, &["width 8208", "8192 px"]);
    place.dype(&["--model", &model, "--max-sequence-length", "600", "-p", "x"]).fails(2, &["--max-sequence-length"]);
}
