//! A family that is in no list of the program goes through all of it: found, planned, encoded, denoised, interrupted and
//! taken up again, decoded, and written with what made it; on nothing but what a family says of itself.

mod family;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    rc::Rc,
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::progress::{Event, Observer, Silent, Stage},
    models::{Model, ModelRequest, Registry, parts::kl},
    output::{load_latents, read_provenance},
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{Item, Listener, Made, Options, Runner},
};
use serde_json::json;
use support::values;

const STEPS: usize = 4;

/// Numbers that are the same on every machine: small, and none alike.
fn save(folder: &Path, file: &str, tensors: &[(String, Vec<usize>)]) {
    let tensor = |(seed, (name, shape)): (usize, &(String, Vec<usize>))| {
        let (count, inputs) = (shape.iter().product(), shape[1..].iter().product::<usize>());
        // As wide as keeps the numbers of a network about 1.
        let width = (3.0 / inputs as f32).sqrt();
        let number = |at: usize| ((seed * 7919 + at * at * 31 + at) as f32).sin() * width;
        let numbers: Vec<f32> = (0..count).map(number).collect();
        (name.clone(), Tensor::from_vec(numbers, shape.as_slice(), &Device::Cpu).expect("a tensor"))
    };
    let tensors: HashMap<_, _> = tensors.iter().enumerate().map(tensor).collect();
    candle_core::safetensors::save(&tensors, folder.join(file)).expect("saved");
}

fn write_model(folder: &Path) {
    let vae = json!({
        "_class_name": "AutoencoderKL", "block_out_channels": [8, 8], "layers_per_block": 1, "latent_channels": 3,
        "norm_num_groups": 4, "scaling_factor": 1.7, "shift_factor": -0.2, "mid_block_add_attention": true,
        "use_quant_conv": true, "use_post_quant_conv": true,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    });
    let config: kl::VaeConfig = serde_json::from_value(vae.clone()).expect("a configuration");
    let decoder = kl::tensors(&config, kl::Side::Decoder).expect("a decoder");
    let letters = vec![("weight".to_owned(), vec![256, 32])];
    let parts = [
        (
            "toy_transformer",
            "diffusion_pytorch_model.safetensors",
            json!({}),
            family::tensors().expect("a transformer"),
        ),
        ("letters", "model.safetensors", json!({}), letters),
        ("vae", "diffusion_pytorch_model.safetensors", vae, decoder),
    ];
    std::fs::write(folder.join("model_index.json"), r#"{"_class_name": "ToyPipeline"}"#).expect("written");
    for (name, file, config, tensors) in parts {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
        save(&folder, file, &tensors);
    }
}

fn open(folder: &Path) -> Box<dyn Model> {
    let registry = Registry::with(&[&family::TOY]);
    let request = ModelRequest::new(folder);
    assert_eq!(registry.facts(&request).expect("its facts").latents.channels, 3);
    registry.open(&request).expect("a toy")
}

fn machine() -> Machine {
    Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None }
}

fn small() -> Wanted {
    Wanted { height: Some(39), width: Some(24), ..Wanted::default() }
}

fn item(model: &dyn Model, path: &Path, wanted: Wanted) -> Item {
    let wanted = Wanted {
        prompt: wanted.prompt.or(Some("a lake".into())),
        height: small().height,
        width: small().width,
        steps: Some(STEPS),
        ..wanted
    };
    let recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
    let plan = Rc::new(Plan::new(model, &Item::task(&recipe, 1), &machine()).expect("all the memory there is"));
    Item {
        index: 0,
        recipe,
        path: path.to_path_buf(),
        number: 1,
        latents: Some(path.with_extension("safetensors")),
        plan,
    }
}

#[derive(Default)]
struct Told(Vec<Made>);

impl Listener for Told {
    fn begin(&mut self, _: &Item) {}
    fn made(&mut self, _: &Item, made: Made) {
        self.0.push(made);
    }
    fn failed(&mut self, _: &Item, error: Error) {
        panic!("{error}");
    }
}

fn make(model: &dyn Model, item: Item, observer: &dyn Observer) -> Made {
    let options = Options { resume: true, checkpoint_every: 1, preview: None, overwrite: false };
    let (machine, mut told) = (machine(), Told::default());
    let mut runner = Runner::new(model, &machine, &options, observer).expect("opens");
    Item::check(&item.recipe, model.facts()).expect("a picture of this model");
    runner.run(&[item], &mut told).expect("runs");
    told.0.pop().expect("one picture")
}

/// The latents it left beside its picture.
fn latents(made: &Made) -> Vec<f32> {
    values(&load_latents(&made.path.with_extension("safetensors"), 3).expect("latents"))
}

/// The power goes while the third step is told of.
struct Interrupted;

impl Observer for Interrupted {
    fn on(&self, event: Event) {
        if let Event::Advance { stage: Stage::Denoise, done: 3, .. } = event {
            panic!("interrupted");
        }
    }
}

#[test]
fn a_toy_family_goes_through_the_whole_program() {
    let folder = tempfile::tempdir().expect("a folder");
    // The book of speeds is the program's own; nothing here reads it.
    // SAFETY: the one test of this process, before any thread reads its environment.
    unsafe { std::env::set_var("XDG_CACHE_HOME", folder.path()) };
    let place = |name: &str| folder.path().join(name);
    std::fs::create_dir(place("toy")).expect("a folder");
    write_model(&place("toy"));
    let stranger = Registry::default().open(&ModelRequest::new(place("toy"))).err().expect("no family's");
    assert!(stranger.to_string().contains("ToyPipeline"), "{stranger}");
    let model = open(&place("toy"));

    let whole = make(&*model, item(&*model, &place("whole.png"), Wanted::default()), &Silent);
    assert_eq!(image::image_dimensions(&whole.path).expect("a picture"), (24, 39));
    let said = read_provenance(&whole.path).expect("readable").expect("made by dype");
    let settings = &said["settings"];
    assert_eq!((settings["steps"].as_u64(), settings["prompt"].as_str()), (Some(STEPS as u64), Some("a lake")));
    assert!(said["model"]["model"].as_str().expect("a model").ends_with("toy"), "{said}");
    assert_eq!(settings.get("guidance").filter(|value| !value.is_null()), None, "it takes none");
    assert_eq!((settings.get("cfg"), settings.get("negative_prompt")), (None, None), "off, and not told");

    let again = || item(&*model, &place("again.png"), Wanted::default());
    let broken = catch_unwind(AssertUnwindSafe(|| make(&*model, again(), &Interrupted)));
    assert!(broken.is_err() && !place("again.png").exists());
    let resumed = make(&*model, again(), &Silent);
    assert_eq!(resumed.resumed_from, Some(2));
    assert!(latents(&resumed) == latents(&whole), "taken up again, it is the same picture");
    assert!(make(&*model, again(), &Silent).existed, "and it is known");

    let guided = Wanted { cfg: Some(2.5), negative_prompt: Some("fog".into()), ..Wanted::default() };
    let led = || item(&*model, &place("led.png"), guided.clone());
    assert!(catch_unwind(AssertUnwindSafe(|| make(&*model, led(), &Interrupted))).is_err());
    let resumed = make(&*model, led(), &Silent);
    let at_once = make(&*model, item(&*model, &place("at_once.png"), guided.clone()), &Silent);
    assert!(latents(&resumed) == latents(&at_once) && latents(&resumed) != latents(&whole));
    let said = read_provenance(&resumed.path).expect("readable").expect("made by dype");
    assert_eq!((&said["settings"]["cfg"], &said["settings"]["negative_prompt"]), (&json!(2.5), &json!("fog")));
    support::guided::assert_is_arithmetic(&*model, &Wanted { steps: Some(STEPS), ..small() });

    // EasyCache asks nothing of a model; blocks can be left out where a family says so.
    let cached = |text: &str| Wanted { step_cache: text.parse().ok(), ..Wanted::default() };
    assert!(make(&*model, item(&*model, &place("easy.png"), cached("0.9")), &Silent).skipped.is_some());
    let recipe = Recipe::new(&cached("first-block"), &model.facts().recipe).expect("in range");
    let error = Plan::new(&*model, &Item::task(&recipe, 1), &machine()).expect_err("a toy leaves no block out");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--cache first-block:0.05") && error.hint().is_some(), "{error}");

    let hill = Wanted { prompt: Some("a hill".into()), ..Wanted::default() };
    for (name, other) in [("hill", hill), ("plain", Wanted { dype: Some(false), ..Wanted::default() })] {
        let made = make(&*model, item(&*model, &place(&format!("{name}.png")), other), &Silent);
        assert!(latents(&made) != latents(&whole), "{name}: prompt and method act on it");
    }
}

/// Plans are dry passes of the toy's own code: a larger picture takes more, and less memory is refused.
#[test]
fn a_toy_is_planned_by_its_own_code() {
    let folder = tempfile::tempdir().expect("a folder");
    write_model(folder.path());
    let model = open(folder.path());
    let task = |side| {
        let wanted =
            Wanted { prompt: Some(String::from("x")), height: Some(side), width: Some(side), ..Wanted::default() };
        Item::task(&Recipe::new(&wanted, &model.facts().recipe).expect("in range"), 1)
    };
    let plan = |side, machine: &Machine| Plan::new(&*model, &task(side), machine);
    let [small, large] = [64, 256].map(|side| plan(side, &machine()).expect("fits"));
    assert!(large.step_flops > 16 * small.step_flops && large.peak_bytes.denoise > small.peak_bytes.denoise);
    // Classifier-free guidance takes two forward passes a step, and room for what waits.
    let led = |scale| {
        let wanted = Wanted { cfg: Some(scale), height: Some(64), width: Some(64), ..Wanted::default() };
        Item::task(&Recipe::new(&wanted, &model.facts().recipe).expect("in range"), 1)
    };
    let [off, on] = [1.0, 2.0].map(|scale| Plan::new(&*model, &led(scale), &machine()).expect("fits"));
    assert_eq!((off.step_flops, on.step_flops, on.passes), (small.step_flops, 2 * small.step_flops, 2));
    assert_eq!(on.denoising(4).flops, 2 * off.denoising(4).flops, "what the time is estimated by");
    assert!(on.peak_bytes.denoise > off.peak_bytes.denoise);
    let tight = Machine { budget: Some("1MB".parse().expect("bytes")), ..machine() };
    assert!(matches!(plan(256, &tight), Err(Error::Memory { .. })));
}
