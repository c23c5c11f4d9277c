//! The memory of whole runs, stage by stage, counted by the allocator, against what was planned: ladders and step caches.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::{
        device::DeviceKind,
        geometry::ImageSize,
        memory::Bytes,
        progress::{Event, Observer, Silent, Stage},
    },
    methods::Moment,
    models::{FirstBlock, ForwardOptions, Model, On, StepShape, VelocityAt},
    nn::{RopeTables, WeightsMode},
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{Item, Listener, Made, Options, Runner},
    sampling::{Decision, Denoiser, EasyCache, EasyRule, StepInfo},
};

use crate::{
    counting::{alone, live, peak_since},
    ladder_memory::on_threads,
    support::open_model,
    transformer_memory::{Still, assert_near, assert_peak},
};

/// All families, as small as they come.
const MODELS: [&str; 4] = ["tiny-flux", "flux2-klein/tiny", "z-image/tiny", "qwen-image/tiny"];

/// The most bytes that were alive in each stage of a run, beyond those before it: what lies between the end of one and that of
/// the next is the next one's.
#[derive(Default)]
struct Peaks {
    before: AtomicU64,
    of: Mutex<Vec<(Stage, u64)>>,
}

impl Observer for Peaks {
    fn on(&self, event: Event) {
        if let Event::End { stage, .. } = event {
            let peak = peak_since() - self.before.load(Relaxed);
            self.of.lock().expect("one thread").push((stage, peak));
        }
    }
}

struct Told;

impl Listener for Told {
    fn begin(&mut self, _: &Item) {}
    fn made(&mut self, _: &Item, _: Made) {}
    fn failed(&mut self, _: &Item, error: Error) {
        panic!("{error}");
    }
}

/// The plan of a run in the least memory that it can be planned for: in large bands, buffers would be mapped past the allocator, and
/// the transformer would stay while others work.
fn tightest(model: &dyn Model, recipe: &Recipe) -> (Plan, Machine) {
    let tasks = Item::tasks(recipe, 1, model.facts(), None);
    let within = |megabytes: u64| {
        let budget = Some(Bytes(megabytes * 1_000_000));
        let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget, weights: Some(WeightsMode::Stream) };
        Plan::of_passes(model, &tasks, &machine).ok().map(|plan| (plan, machine))
    };
    (5..500).find_map(within).expect("fits")
}

/// The most of each stage in so many runs of these settings, in their order, and their plan. On a busy machine threads are not at their
/// most at once in every run.
fn most_of(runs: usize, model: &dyn Model, wanted: &Wanted) -> (Plan, Vec<(Stage, u64)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = Recipe::new(wanted, &model.facts().recipe).expect("in range");
    let (plan, machine) = tightest(model, &recipe);
    let (path, planned) = (folder.path().join("x.png"), Rc::new(plan.clone()));
    let item = Item { index: 0, recipe, path, number: 1, latents: None, plan: planned };
    let options = Options { resume: false, checkpoint_every: 1, preview: None, overwrite: true };
    let peaks_of_run = || {
        let peaks = Peaks::default();
        let mut runner = Runner::new(model, &machine, &options, &peaks).expect("opens");
        peak_since();
        peaks.before.store(live(), Relaxed);
        runner.run(std::slice::from_ref(&item), &mut Told).expect("runs");
        drop(runner);
        peaks.of.into_inner().expect("one thread")
    };
    // A first run leaves what the threads keep.
    peaks_of_run();
    let mut most = peaks_of_run();
    for _ in 1..runs {
        for ((_, most), (_, found)) in most.iter_mut().zip(peaks_of_run()) {
            *most = found.max(*most);
        }
    }
    (plan, most)
}

fn wanted(side: usize) -> Wanted {
    Wanted {
        prompt: Some("a lake".into()),
        height: Some(side),
        width: Some(side),
        base_resolution: Some(96),
        max_sequence_length: Some(64),
        steps: Some(4),
        ..Wanted::default()
    }
}

/// Each stage of each pass, with what it holds of the passes below and for those above.
#[test]
fn a_ladder_takes_the_memory_that_was_foretold() {
    on_threads(2, || {
        let (plan, peaks) =
            most_of(6, &*open_model("tiny-flux"), &Wanted { ladder: "96,160,256".parse().ok(), ..wanted(256) });
        let mut pass = 0;
        let mut found = vec![];
        for (stage, peak) in peaks.into_iter().skip(1) {
            let need = plan.pass(pass).need_bytes;
            let foretold = match stage {
                Stage::Encode => need.encode.expect("one is encoded"),
                Stage::Denoise => need.denoise,
                _ => need.decode,
            };
            assert_near(peak, foretold, 0.1, &format!("{stage:?} of pass {pass}"));
            pass += usize::from(stage == Stage::Decode);
            found.push(stage);
        }
        let (denoise, decode) = (Stage::Denoise, Stage::Decode);
        assert_eq!(found, [denoise, decode, Stage::Encode, denoise, decode, Stage::Encode, denoise, decode]);
    });
}

/// What an EasyCache keeps from step to step is what a plan with one takes beyond a plan without, for each prompt.
#[test]
fn an_easy_cache_takes_the_memory_that_was_foretold() {
    let _alone = alone();
    let model = open_model("tiny-flux");
    let geometry = model.facts().latents;
    let shape = geometry.packed_shape(geometry.tokens(ImageSize { height_px: 256, width_px: 256 }));
    let before = live();
    let rule = EasyRule { threshold: 0.0, start: 1.0, end: 0.0 };
    let mut cache = EasyCache::leading(Halved, rule, Decision::default());
    for index in 0..3 {
        let latents = Tensor::ones(&shape[..], DType::F32, &Device::Cpu).expect("ones");
        let step = StepInfo { index, steps: 3, t: 0.9, t_next: 0.8, evaluation: 0 };
        drop(cache.velocity(&latents, &step).expect("a velocity"));
    }
    let kept = live() - before;
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let need = |cache: &str, cfg| {
        let wanted = Wanted { step_cache: cache.parse().ok(), cfg, ..wanted(256) };
        let recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
        let tasks = Item::tasks(&recipe, 1, model.facts(), None);
        Plan::of_passes(&*model, &tasks, &machine).expect("fits").need_bytes.denoise
    };
    assert_near(kept, need("0.2", None) - need("off", None), 0.1, "one prompt");
    assert_near(2 * kept, need("0.2", Some(4.0)) - need("off", Some(4.0)), 0.1, "two");
}

/// Gives a velocity of its own.
struct Halved;

impl Denoiser for Halved {
    fn velocity(&mut self, latents: &Tensor, _: &StepInfo) -> dype::testing::Result<Tensor> {
        Ok((latents * 0.5)?)
    }
}

/// A step that is computed while the last computed one is still kept, by the blocks of every family.
#[test]
fn a_first_block_cache_takes_the_memory_that_was_foretold() {
    on_threads(2, || {
        for name in MODELS {
            let model = open_model(name);
            let on = On::new(Device::Cpu, DType::F32);
            let geometry = model.facts().latents;
            let grid = geometry.tokens(ImageSize { height_px: 480, width_px: 640 });
            let mut texts = model.text(&on).expect("opens").encode(&["a lake"], 64, &Silent).expect("encodes");
            let text = texts.remove(0);
            let ids = model.positions(grid, &text);
            let rope = RopeTables::new(&ids, 16, &Still, &Moment::at(1.0), &Device::Cpu).expect("tables");
            let latents = Tensor::ones(&geometry.packed_shape(grid)[..], DType::F32, &Device::Cpu).expect("ones");
            let pieces = ForwardOptions { token_chunk: 256, query_rows: 64, heads: 1 };
            let transformer = model.velocity(&on, WeightsMode::Resident, pieces).expect("loads");
            let cache = Rc::new(RefCell::new(FirstBlock::new(0.0)));
            let step = |t: f64| {
                cache.borrow_mut().begin(true);
                let at = VelocityAt {
                    t,
                    guidance: Some(1.0),
                    text: &text,
                    rope: &rope,
                    text_bias: None,
                    logit_scale: 1.0,
                    first_block: Some(&cache),
                };
                drop(transformer.velocity(&latents, &at).expect("a velocity"));
                assert!(!cache.borrow().skipped(), "{name}");
            };
            step(1.0);
            let before = live();
            let shape = StepShape { first_blocks: 1, ..[grid.count(), text.text_tokens()].into() };
            let on = (DeviceKind::Cpu, DType::F32);
            let cost = model.step_cost(on, WeightsMode::Resident, shape, pieces).expect("a dry pass");
            let without = model.step_cost(on, WeightsMode::Resident, shape.tokens.into(), pieces).expect("a dry pass");
            assert_eq!((cost.flops, without.kept_bytes), (without.flops, 0), "{name}");
            // The tables of positions are there already.
            let tables = 4 * (rope.cos.elem_count() + rope.sin.elem_count()) as u64;
            let foretold = cost.working_bytes - cost.kept_bytes - tables;
            assert_peak(foretold, 0.1, name, || step(0.9));
            assert_eq!(live(), before, "{name}: it keeps as much as before");
            assert!(cost.working_bytes > without.working_bytes + cost.kept_bytes, "{name}: {cost:?} {without:?}");
        }
    });
}
