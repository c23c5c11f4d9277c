//! A ladder that is interrupted anywhere and gone on with is the ladder that was not.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use candle_core::{DType, Device};
use dype::testing::{
    Error,
    base::progress::{Event, Observer, Silent, Stage},
    models::Model,
    output::LatentsFile,
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{Item, Listener, Made, Options, Runner},
};

use crate::{
    families::MODELS,
    support::{open_model, values},
};

fn machine() -> Machine {
    Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None }
}

fn item(model: &dyn Model, path: &Path) -> Item {
    let wanted = Wanted {
        prompt: Some("a lake".into()),
        ladder: "32,48,64".parse().ok(),
        steps: Some(5),
        base_resolution: Some(32),
        max_sequence_length: Some(32),
        ..Wanted::default()
    };
    let recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
    let plan = Plan::of_passes(model, &Item::tasks(&recipe, 1, model.facts(), None), &machine()).expect("fits");
    let latents = Some(path.with_extension("safetensors"));
    Item { index: 0, recipe, path: path.to_path_buf(), number: 1, latents, plan: Rc::new(plan) }
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

fn make(model: &dyn Model, path: &Path, observer: &dyn Observer) -> (Vec<f32>, Option<usize>) {
    let options = Options { resume: true, checkpoint_every: 1, preview: None, overwrite: false };
    let (machine, mut told) = (machine(), Told::default());
    let mut runner = Runner::new(model, &machine, &options, observer).expect("opens");
    let item = item(model, path);
    Item::check(&item.recipe, model.facts()).expect("a picture of this model");
    runner.run(&[item], &mut told).expect("runs");
    let made = told.0.pop().expect("one picture");
    (values(&LatentsFile::read(&path.with_extension("safetensors")).expect("latents").latents), made.resumed_from)
}

/// The power goes at the event number `at` that this counts.
struct Interrupted {
    counts: fn(&Event) -> bool,
    seen: AtomicUsize,
    at: usize,
}

impl Observer for Interrupted {
    fn on(&self, event: Event) {
        if (self.counts)(&event) && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            panic!("interrupted");
        }
    }
}

fn is_step(event: &Event) -> bool {
    matches!(event, Event::Advance { stage: Stage::Denoise, .. })
}

fn is_between(event: &Event) -> bool {
    matches!(event, Event::Begin { stage: Stage::Decode | Stage::Encode, .. })
}

/// What is counted, which of them is the last, and the steps that are done before it.
type Interruption = (fn(&Event) -> bool, usize, usize);

/// Interrupted at each of these and gone on with, it is the picture that nothing interrupted.
fn assert_gone_on_with(model: &str, interruptions: impl IntoIterator<Item = Interruption>) {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = open_model(model);
    let (whole, before) = make(&*opened, &folder.path().join("whole.png"), &Silent);
    assert!(before.is_none() && whole.iter().all(|number| number.is_finite()), "{model}");
    for (counts, at, done) in interruptions {
        let path = folder.path().join(format!("{at}.png"));
        let interrupted = Interrupted { counts, seen: AtomicUsize::new(0), at };
        let broken = catch_unwind(AssertUnwindSafe(|| make(&*opened, &path, &interrupted)));
        assert!(broken.is_err() && !path.exists(), "{model}, {at}");
        let (latents, from) = make(&*opened, &path, &Silent);
        assert_eq!(from, Some(done), "{model}");
        assert!(latents == whole, "{model} gone on with after step {done}");
        for file in [path.clone(), path.with_extension("safetensors")] {
            std::fs::remove_file(file).expect("removed");
        }
    }
    assert!(!folder.path().join(".dype").exists(), "no checkpoint stays");
}

/// 5, 3 and 2 steps: the checkpoint is that of the step before. Between stages it is that of the last step.
#[test]
fn gone_on_with_from_anywhere_it_is_the_same_picture() {
    let steps = (2..=10).map(|at| (is_step as fn(&Event) -> bool, at, at - 1));
    let between =
        [(1, 5), (2, 5), (3, 8), (4, 8), (5, 10)].map(|(at, done)| (is_between as fn(&Event) -> bool, at, done));
    assert_gone_on_with("tiny-flux", steps.chain(between));
}

#[test]
fn every_family_goes_on_with_its_ladder() {
    let places: [Interruption; 5] =
        [(is_step, 3, 2), (is_between, 2, 5), (is_step, 7, 6), (is_between, 3, 8), (is_step, 10, 9)];
    for model in MODELS {
        assert_gone_on_with(model, places);
    }
}
