//! Methods beyond those of DyPE's reference, with a model: SEGA's spectrum of latents (slopes of 0 to 3, mixes with noise, sides
//! even and odd, short, equal), its runs, and anchored text.

use std::collections::HashMap;

use crate::support::{
    fixture,
    golden::LATENTS_TOLERANCE,
    program::{Place, rgb8},
    relative_error, values,
};
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::geometry::{ImageSize, TokenGrid},
    base::json::read_json,
    base::progress::Silent,
    methods::{DypeSettings, Method, Moment, Spectrum, TextBias},
    models::{Model, ModelRequest, On, VelocityAt},
    nn::{CodeProducts, RopeTables, WeightsMode},
    output::{load_latents, save_latents},
    plan::{Machine, Plan, Task},
    recipe::{Recipe, Wanted},
    run::pipeline::Pipeline,
    sampling::spectrum,
};

/// What f64 may lose on the way: the expected values come from another transform.
const TOLERANCE: f64 = 1e-8;
/// What is lost where noise and picture were mixed before they were rounded to the f32 they are given in.
const MIXED: f64 = 2e-7;
/// Below this part of the strongest bin there is only rounding.
const ROUNDING: f64 = 1e-14;

fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).expect("f64")
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    close_to(found, expected, TOLERANCE, what);
}

fn close_to(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let strongest = expected.iter().copied().fold(0.0, f64::max);
    for (bin, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * expected + ROUNDING * strongest, "{what} {bin}: {found} for {expected}");
    }
}

/// The tokens of a case [1, N, C], and what they are read through. Noise and picture are two channels that t mixes.
fn tokens_of(name: &str, tensors: &HashMap<String, Tensor>) -> (Tensor, Vec<f64>) {
    match name.strip_prefix("mix_t") {
        None => (tensors[&format!("{name}/map")].clone(), vec![1.0]),
        Some(t) => {
            let t: f64 = t.parse().expect("a number");
            let both = ["mix/noise", "mix/image"].map(|name| tensors[name].flatten_all().expect("one a token"));
            (Tensor::stack(&both, 1).expect("two channels"), vec![t, 1.0 - t])
        }
    }
}

#[test]
fn every_spectrum_is_the_references() {
    let tensors = candle_core::safetensors::load(fixture("expected/sega.safetensors"), &Device::Cpu).expect("golden");
    let cases: Vec<serde_json::Value> = read_json(&fixture("expected/sega.json")).expect("golden");
    let mut found_cases = 0;
    for case in &cases {
        let name = case["case"].as_str().expect("a name");
        if !tensors.contains_key(&format!("{name}/radial")) {
            continue;
        }
        let [rows, columns] = ["rows", "columns"].map(|key| case[key].as_u64().expect("a number") as usize);
        let (tokens, reading) = tokens_of(name, &tensors);
        let tokens = tokens.reshape((1, rows * columns, reading.len())).expect("tokens");
        let grid = TokenGrid { height_patches: rows, width_patches: columns };
        let found = spectrum(&tokens, grid, &reading).expect("a spectrum");
        let tolerance = if name.starts_with("mix") { MIXED } else { TOLERANCE };
        for (found, field) in [(&found.height, "profile_h"), (&found.width, "profile_w"), (&found.rings, "radial")] {
            let what = format!("{name} {field}");
            close_to(found, &f64s(&tensors[&format!("{name}/{field}")]), tolerance, &what);
        }
        found_cases += 1;
    }
    assert_eq!((cases.len(), found_cases), (26, 22));
}

/// The map of packed tokens: its numbers, which are wider than those of latents, are given as two channels that add up.
#[test]
fn tokens_through_a_weight_are_the_references_map() {
    let tensors = candle_core::safetensors::load(fixture("expected/sega.safetensors"), &Device::Cpu).expect("golden");
    let of = |field: &str| &tensors[&format!("token_map/{field}")];
    let grid = TokenGrid { height_patches: 30, width_patches: 22 };
    let found = spectrum(&of("tokens").unsqueeze(0).expect("one"), grid, &f64s(of("weight"))).expect("a spectrum");
    let split = |value: f64| [value as f32, (value - f64::from(value as f32)) as f32];
    let parts: Vec<f32> = f64s(of("map")).into_iter().flat_map(split).collect();
    let map = Tensor::from_vec(parts, (1, 660, 2), &Device::Cpu).expect("two channels");
    let expected = spectrum(&map, grid, &[1.0, 1.0]).expect("a spectrum");
    close(&found.height, &expected.height, "height");
    close(&found.width, &expected.width, "width");
    close(&found.rings, &expected.rings, "rings");
}

#[test]
fn tokens_are_read_through_their_weights_and_their_mean_plays_no_part() {
    let grid = TokenGrid { height_patches: 3, width_patches: 2 };
    let tokens: Vec<f32> = (0..18).map(|i| ((i * 7) % 11) as f32).collect();
    let tokens = Tensor::from_vec(tokens, (1, 6, 3), &Device::Cpu).expect("tokens");
    let read: Vec<f32> = tokens
        .squeeze(0)
        .and_then(|t| t.to_vec2::<f32>())
        .expect("rows")
        .iter()
        .map(|token| 0.5 * token[0] - 2.0 * token[1] + 0.25 * token[2] + 100.0)
        .collect();
    let read = Tensor::from_vec(read, (1, 6, 1), &Device::Cpu).expect("one number a token");
    let [whole, before]: [Spectrum; 2] = [
        spectrum(&tokens, grid, &[0.5, -2.0, 0.25]).expect("a spectrum"),
        spectrum(&read, grid, &[1.0]).expect("a spectrum"),
    ];
    close(&whole.height, &before.height, "height");
    close(&whole.width, &before.width, "width");
    close(&whole.rings, &before.rings, "rings");
    assert!(whole.rings.iter().all(|power| *power > 0.0), "{whole:?}");
}

#[test]
fn an_axis_of_one_token_has_one_bin() {
    let one = Tensor::ones((1, 1, 4), DType::F32, &Device::Cpu).expect("a token");
    let grid = TokenGrid { height_patches: 1, width_patches: 1 };
    let found = spectrum(&one, grid, &[1.0; 4]).expect("a spectrum");
    assert_eq!(found, Spectrum { height: vec![0.0], width: vec![0.0], rings: vec![0.0] });
}

#[test]
fn latents_of_another_size_are_refused() {
    let tokens = Tensor::zeros((1, 6, 4), DType::F32, &Device::Cpu).expect("tokens");
    let grid = TokenGrid { height_patches: 3, width_patches: 2 };
    assert!(spectrum(&tokens, TokenGrid { width_patches: 3, ..grid }, &[1.0; 4]).is_err());
    assert!(spectrum(&tokens, grid, &[1.0; 3]).is_err());
}

/// The model gives the mean row of its token embedder's weight.
#[test]
fn a_model_says_how_its_tokens_are_read() {
    let model = crate::support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let on = On::new(Device::Cpu, DType::F32);
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let size = ImageSize::new(64, 64).expect("a size");
    let choices = Plan::new(&model, &Task::new(size, 1, 16), &machine).expect("fits").choices;
    let transformer = model.velocity(&on, choices.weights, choices.forward).expect("loads");
    let found = transformer.token_reading(&Device::Cpu).expect("a row");
    let weight = (1..=3).find_map(|part| {
        let file = fixture(&format!("tiny-flux/transformer/diffusion_pytorch_model-0000{part}-of-00003.safetensors"));
        candle_core::safetensors::load(file, &Device::Cpu).expect("a shard").remove("x_embedder.weight")
    });
    let expected = f64s(&weight.expect("in one of them").to_dtype(DType::F64).and_then(|w| w.mean(0)).expect("a mean"));
    assert_eq!(found.len(), expected.len());
    for (channel, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < 1e-6, "channel {channel}: {found} for {expected}");
    }
}

const PROMPT: &str = "A serene mountain landscape at sunset";

fn sega_run() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("expected/sega-run.safetensors"), &Device::Cpu).expect("the fixture")
}

#[test]
fn a_run_of_sega_is_the_references() {
    let place = Place::new();
    let model = fixture("tiny-flux").display().to_string();
    let flags = "--method sega --base-resolution 256 --height 384 --width 256 --steps 4 --seed 42 --guidance 4.5 --device cpu \
                 --dtype f32 -o x.png --save-latents x.safetensors";
    let args: Vec<&str> =
        flags.split(' ').filter(|word| !word.is_empty()).chain(["--model", &model, "--prompt", PROMPT]).collect();
    place.dype(&args).succeeds();
    let latents = load_latents(&place.path("x.safetensors"), 64).expect("latents");
    let error = relative_error(&values(&latents), &values(&sega_run()["sega/latents_final"]));
    assert!(error < LATENTS_TOLERANCE, "latents: {error:e}");
}

/// What a method makes of latents that were saved, without a run.
#[test]
fn latents_are_inspected() {
    let place = Place::new();
    let model = fixture("tiny-flux").display().to_string();
    let golden = sega_run();
    save_latents(&place.path("x.safetensors"), &golden["sega_step/latents"], false).expect("saved");
    let inspect =
        |more: &[&str]| place.dype(&[&["inspect", "--model", &model, "--latents", "x.safetensors"], more].concat());
    let sega = ["--method", "sega", "--base-resolution", "256", "--height", "384", "--width", "256"];
    let run = inspect(&[&sega[..], &["--json", "--plot", "p.png"]].concat());
    let json: serde_json::Value =
        serde_json::from_str(run.succeeds().stdout.lines().last().expect("JSON")).expect("JSON");
    let [height, width] = [0, 1].map(|axis| &json["steps"][0]["axes"][axis]);
    let numbers = |value: &serde_json::Value| -> Vec<f64> { serde_json::from_value(value.clone()).expect("numbers") };
    for (axis, name) in [(height, "h"), (width, "w")] {
        let expected = f64s(&golden[&format!("sega_step/amplitude_{name}")]);
        let worst = numbers(&axis["amplitude"]).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "amplitude_{name} off by {worst:e}");
        assert!((axis["spread"].as_f64().expect("a number") - 0.3915597747617665).abs() < 1e-6, "{axis}");
        assert_eq!(numbers(&axis["correction"]).len(), 7);
    }
    assert_eq!([&height["profile"], &width["profile"]].map(|bins| numbers(bins).len()), [12, 8]);
    assert!(image::open(place.path("p.png")).is_ok());
    let table = inspect(&sega).succeeds().stdout.clone();
    assert!(table.contains("by the spectrum of these latents") && table.contains("spread 0.3916"), "{table}");
    inspect(&["--method", "yarn"]).fails(2, &["--latents", "does not look at latents", "--method sega"]);
    inspect(&sega[..4]).fails(2, &["does not say its size", "--height and --width"]);
    inspect(&[&sega[..4], &["--height", "64", "--width", "64"]].concat()).fails(2, &["holds 384 tokens"]);
}

/// Bias, temperatures and mu of TIDE in a whole run; the bias alone, with YaRN's own amplitudes, is 5% away from none.
#[test]
fn a_run_with_anchored_text_is_the_references() {
    let place = Place::new();
    let model = fixture("tiny-flux").display().to_string();
    let flags = "--text-anchor --mu log --base-resolution 256 --height 512 --width 256 --steps 4 --seed 42 --guidance 4.5 --device cpu \
                 --dtype f32";
    let flags: Vec<&str> = flags.split_whitespace().chain(["--model", &model, "--prompt", PROMPT]).collect();
    place.dype(&[&flags[..], &["-o", "x.png", "--save-latents", "x.safetensors"]].concat()).succeeds();
    let golden =
        candle_core::safetensors::load(fixture("expected/tide-run.safetensors"), &Device::Cpu).expect("the fixture");
    let latents = load_latents(&place.path("x.safetensors"), 64).expect("latents");
    let error = relative_error(&values(&latents), &values(&golden["tide/latents_final"]));
    assert!(error < LATENTS_TOLERANCE, "latents: {error:e}");
    let info = place.dype(&["info", "x.png"]);
    assert!(info.succeeds().stdout.contains("text_anchor true"), "{}", info.stdout);
    place.dype(&["replay", "x.png", "-o", "y.png"]).succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")));
    let run = place.dype(&[&flags[..], &["--method", "ntk", "--dry-run"]].concat());
    run.succeeds().tells(&["--text-anchor has no effect"]);
}

/// Noise is nearly even at every frequency; latents with structure are not.
#[test]
fn a_velocity_by_sega_from_structured_latents_is_the_references() {
    let golden = sega_run();
    let model = crate::support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let pipeline = Pipeline::open(&model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let size = ImageSize::new(384, 256).expect("a size");
    let task = Task::new(size, 1, 512);
    let choices = Plan::new(&model, &task, &machine).expect("fits").choices;
    let text = pipeline.encode(&[PROMPT], 512).expect("encodes").remove(0);
    let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let grid = model.facts().latents.tokens(size);
    let latents = &golden["sega_step/latents"];
    let reading = transformer.token_reading(&Device::Cpu).expect("a row");
    let spectrum = spectrum(latents, grid, &reading).expect("a spectrum");
    let (scaler, base_patches) = (Method::SEGA.scaler(None), model.facts().patches(256));
    let at = Moment { spectrum: Some(&spectrum), ..Moment::at(0.5) };
    let positions = model.positions(grid, &text);
    let axes = positions.picture_axes(base_patches).expect("two axes");
    for (axis, name) in axes.iter().zip(["amplitude_h", "amplitude_w"]) {
        let found = scaler.frequencies(axis, &at).amplitude;
        // The reading is of f32 weights.
        let worst = found
            .iter()
            .zip(f64s(&golden[&format!("sega_step/{name}")]))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1e-6, "{name} off by {worst:e}");
    }
    let rope = RopeTables::new(&positions, base_patches, &*scaler, &at, &Device::Cpu).expect("tables");
    let at = VelocityAt {
        t: 0.5,
        guidance: Some(4.5),
        text: &text,
        rope: &rope,
        text_bias: None,
        logit_scale: 1.0,
        first_block: None,
    };
    let velocity = transformer.velocity(latents, &at).expect("a velocity");
    let error = relative_error(&values(&velocity), &values(&golden["sega_step/velocity"]));
    assert!(error < LATENTS_TOLERANCE, "velocity: {error:e}");
}

/// The first velocity of YaRN with DyPE at 512 x 256 px, by a model that is taken to be trained at 256 px, with weights in either
/// place, logits times a factor and a bias on the text's keys.
fn first_velocity(weights: WeightsMode, logit_scale: f64, text_bias: Option<TextBias>) -> Vec<f32> {
    let model = crate::support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let pipeline = Pipeline::open(&model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let text = pipeline.encode(&[PROMPT], 512).expect("encodes").remove(0);
    let wanted = Wanted { height: Some(512), width: Some(256), seed: Some(42), ..Wanted::default() };
    let recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
    let latents = pipeline.noise(&recipe).expect("noise");
    let positions = model.positions(model.facts().latents.tokens(recipe.size()), &text);
    let (scaler, patches) = (Method::YARN.scaler(Some(DypeSettings::default())), model.facts().patches(256));
    let rope = RopeTables::new(&positions, patches, &*scaler, &Moment::at(1.0), &Device::Cpu).expect("tables");
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: Some(weights) };
    let choices = Plan::new(&model, &Task::new(recipe.size(), 1, 512), &machine).expect("fits").choices;
    let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let (text, rope) = (&text, &rope);
    let at = VelocityAt { t: 1.0, guidance: Some(4.5), text, rope, text_bias, logit_scale, first_block: None };
    values(&transformer.velocity(&latents, &at).expect("a velocity"))
}

/// Also streamed, and without the factor: that is 1 to the bit.
#[test]
fn a_velocity_by_proportional_attention_is_the_references() {
    let golden = candle_core::safetensors::load(fixture("expected/proportional.safetensors"), &Device::Cpu);
    let expected = values(&golden.expect("the fixture")["velocity"]);
    let velocity = |weights, logit_scale| first_velocity(weights, logit_scale, None);
    let resident = velocity(WeightsMode::Resident, 1.0540925533894598);
    let error = relative_error(&resident, &expected);
    assert!(error < LATENTS_TOLERANCE, "{error:e}");
    assert_eq!(velocity(WeightsMode::Stream, 1.0540925533894598), resident);
    let unscaled = relative_error(&velocity(WeightsMode::Resident, 1.0), &expected);
    assert!(unscaled > 10.0 * LATENTS_TOLERANCE, "it shows: {unscaled:e}");
}

/// The bias alone, with YaRN's own amplitudes.
#[test]
fn a_velocity_with_anchored_text_alone_is_the_references() {
    let golden = candle_core::safetensors::load(fixture("expected/tide-run.safetensors"), &Device::Cpu);
    let expected = values(&golden.expect("the fixture")["tide/bias_only"]);
    let velocity = |bias: f64| first_velocity(WeightsMode::Resident, 1.0, Some(TextBias(bias)));
    let error = relative_error(&velocity(2f64.ln()), &expected);
    assert!(error < LATENTS_TOLERANCE, "{error:e}");
    let unbiased = relative_error(&velocity(0.0), &expected);
    assert!(unbiased > 10.0 * LATENTS_TOLERANCE, "it shows: {unbiased:e}");
}

/// A picture of 64 x 96 px by a model that is taken to be trained at 32 px, as a file of this name.
fn larger(place: &Place, name: &str, flags: &str) -> crate::support::program::Run {
    let usual = ["--base-resolution", "32", "--width", "96", "--steps", "2", "-o", name];
    place.small(&usual.into_iter().chain(flags.split_whitespace()).collect::<Vec<_>>())
}

#[test]
fn attention_is_proportional_where_there_are_more_tokens_than_in_training() {
    let place = Place::new();
    let made = |name: &str, flags: &str| larger(&place, name, flags);
    made("base.png", "--method base").succeeds();
    let run = made("sharp.png", "--method base --proportional-attention");
    assert!(!run.succeeds().stderr.contains("comes on top"));
    assert!(rgb8(&place.path("sharp.png")) != rgb8(&place.path("base.png")), "it acts");
    assert!(place.dype(&["info", "sharp.png"]).succeeds().stdout.contains("proportional_attention true"));
    place.dype(&["replay", "sharp.png", "-o", "again.png"]).succeeds();
    assert!(rgb8(&place.path("again.png")) == rgb8(&place.path("sharp.png")));
    let settings = |name: &str| {
        let said = place.dype(&["info", name, "--json"]);
        let json: serde_json::Value = serde_json::from_str(said.succeeds().stdout.trim()).expect("JSON");
        json["settings"].clone()
    };
    assert!(settings("base.png").get("proportional_attention").is_none(), "what is off is not said");
    made("fits.png", "--method base --base-resolution 96").succeeds();
    made("same.png", "--method base --base-resolution 96 --proportional-attention").succeeds();
    assert!(rgb8(&place.path("same.png")) == rgb8(&place.path("fits.png")), "no more tokens than in training");
    for method in ["yarn", "sega"] {
        let run = made("twice.png", &format!("--method {method} --proportional-attention"));
        run.succeeds().tells(&["comes on top of the amplitude", method, "base, ntk and pi"]);
    }
}

#[test]
fn rules_of_scaling_and_amplitude_make_other_pictures_and_are_replayed() {
    let place = Place::new();
    let made = |name: &str, flags: &str| larger(&place, name, flags).succeeds().stderr.clone();
    let all = [
        "",
        "--scaling longest",
        "--scaling mixed",
        "--amplitude fading",
        "--amplitude damped",
        "--scaling longest --amplitude fading --dype-thresholds power",
        "--method ntk",
        "--method ntk --scaling longest --no-dype",
        "--method ntk --scaling mixed",
        "--method pi",
        "--method pi --no-dype --scaling longest",
        "--amplitude fading --fading-start 0.9",
    ];
    let mut seen = Vec::new();
    for (index, flags) in all.iter().enumerate() {
        let name = format!("{index}.png");
        made(&name, flags);
        let pixels = rgb8(&place.path(&name));
        assert!(!seen.contains(&pixels), "{flags} makes a picture of its own");
        seen.push(pixels);
    }
    for index in [2, 5, 7, 9, 10, 11] {
        place.dype(&["replay", &format!("{index}.png"), "-o", "again.png", "--overwrite"]).succeeds();
        assert!(rgb8(&place.path("again.png")) == seen[index], "{}", all[index]);
    }
    // The usual words are the usual picture, and what has no effect is told.
    for (flags, index) in [
        ("--scaling axis --amplitude yarn", 0),
        ("--amplitude fading --fading-start 1", 3),
        ("--amplitude fading --fading-start 0", 0),
    ] {
        made("usual.png", &format!("{flags} --overwrite"));
        assert!(rgb8(&place.path("usual.png")) == seen[index], "{flags}");
    }
    for (flags, note) in [
        ("--method base --scaling longest", "--scaling has no effect"),
        ("--method sega --scaling longest", "--scaling has no effect"),
        ("--method ntk --amplitude fading", "--amplitude has no effect here"),
        ("--fading-start 0.5", "--fading-start has no effect here: it is about --amplitude fading"),
        ("--method pi --amplitude fading", "--amplitude has no effect here"),
        ("--method pi --dype-thresholds power", "--dype-thresholds has no effect here"),
        ("--text-anchor --amplitude fading", "--amplitude has no effect with --text-anchor"),
    ] {
        let told = made("idle.png", flags);
        assert!(told.contains(note), "{flags}: {told}");
    }
    place.small(&["--scaling", "longer"]).fails(2, &["--scaling", "longest"]);
    place.small(&["--amplitude", "fading", "--fading-start", "1.5"]).fails(2, &["--fading-start", "from 0 to 1"]);
    place.small(&["--amplitude", "sega"]).fails(2, &["--amplitude", "fading"]);
}

#[test]
fn knobs_are_inspected() {
    let place = Place::new();
    let inspect = |more: &[&str]| {
        place
            .dype(&[&["inspect", "--height", "4096", "--width", "2048", "--steps", "4"], more].concat())
            .succeeds()
            .stdout
            .clone()
    };
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(inspect(&[more, &["--json"]].concat()).lines().last().expect("JSON")).expect("JSON")
    };
    let usual = json(&[]);
    assert!(["scaling", "amplitude_rule", "logit_scale"].iter().all(|key| usual.get(key).is_none()), "{usual}");
    let longest = json(&["--scaling", "longest", "--amplitude", "fading", "--proportional-attention"]);
    assert_eq!([&longest["scaling"], &longest["amplitude_rule"]], ["longest", "fading"]);
    let axes = &longest["steps"][0]["axes"];
    assert_eq!(axes[0]["inv_freq"], axes[1]["inv_freq"]);
    let amplitude = |json: &serde_json::Value, step: usize| json["steps"][step]["axes"][1]["amplitude"][0].as_f64();
    assert_eq!(amplitude(&longest, 0), Some(0.1 * 4f64.ln() + 1.0));
    assert!(amplitude(&longest, 3) < amplitude(&longest, 2));
    let factor = longest["logit_scale"].as_f64().expect("a number");
    assert_eq!(factor, ((256.0 * 128.0 + 512.0f64).ln() / 4608f64.ln()).sqrt());
    let table = inspect(&["--scaling", "longest", "--amplitude", "fading", "--proportional-attention"]);
    assert!(table.starts_with("yarn, amplitude rule fading, scaling longest, DyPE kappa"), "{table}");
    assert!(table.contains(&format!("its logits are multiplied by {factor:.4}")), "{table}");
    let late = json(&["--amplitude", "fading", "--fading-start", "0.6"]);
    assert_eq!((late["fading_start"].as_f64(), longest.get("fading_start")), (Some(0.6), None));
    let fade = |t: f64| 0.1 * 2f64.ln() * (t / 0.6).min(1.0).powi(2) + 1.0;
    for step in late["steps"].as_array().expect("steps") {
        let found = step["axes"][1]["amplitude"][0].as_f64().expect("a number");
        assert!((found - fade(step["t"].as_f64().expect("a number"))).abs() < 1e-12, "{step}");
    }
    let interpolated = json(&["--method", "pi", "--no-dype", "--scaling", "longest"]);
    let axes = &interpolated["steps"][3]["axes"];
    assert_eq!(axes[1]["inv_freq"][0].as_f64(), Some(0.25));
    assert_eq!(axes[0]["inv_freq"], axes[1]["inv_freq"]);
    assert_eq!(json(&["--method", "pi"])["steps"][0]["axes"][1]["inv_freq"][0].as_f64(), Some(0.25), "2^-kappa(1)");
    let idle = json(&["--method", "base", "--scaling", "longest"]);
    assert!(idle.get("scaling").is_none());
}
