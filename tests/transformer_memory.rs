//! The memory of a forward pass, counted by the allocator, against what is foretold. One test: the counter is the process'.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use candle_core::{DType, Device, Tensor};
use dype::{
    base::geometry::TokenGrid,
    base::json::read_json,
    methods::{AxisFrequencies, Base, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis},
    models::flux1::{Compute, FluxConfig, ForwardOptions, Transformer, WeightsMode, forward_memory_bytes},
    nn::RopeTables,
    weights::{SafetensorsStore, Weights},
};

/// The system's allocator, with a count of the bytes alive and of the most there ever were.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Still;

impl PositionScaler for Still {
    fn spec(&self) -> &'static MethodSpec {
        &Base::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Nothing
    }

    fn frequencies(&self, axis: &RotaryAxis, _at: &Moment) -> AxisFrequencies {
        AxisFrequencies { inv_freq: vec![0.1; axis.dim / 2], amplitude: vec![1.0; axis.dim / 2] }
    }
}

/// The most bytes that were alive during `work`, beyond those alive before it.
fn peak_of(work: impl FnOnce()) -> u64 {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    (PEAK.load(Relaxed) - before) as u64
}

#[test]
fn a_forward_pass_takes_the_memory_that_was_foretold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux/transformer");
    let config: FluxConfig = read_json(&root.join("config.json")).expect("config");
    let shard = |i| root.join(format!("diffusion_pytorch_model-0000{i}-of-00003.safetensors"));
    let store = Arc::new(SafetensorsStore::open(&[shard(1), shard(2), shard(3)]).expect("shards"));
    let grid = TokenGrid { height_patches: 48, width_patches: 56 };
    let (image, text) = (grid.count(), 512);
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    let (img, txt) = (zeros((1, image, 64)), zeros((1, text, config.joint_attention_dim)));
    let pooled = Tensor::zeros((1, config.pooled_projection_dim), DType::F32, &Device::Cpu).expect("zeros");

    // f16 takes the path of other devices; bf16 is f32 here, with products that may round.
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let compute = Compute::on(&Device::Cpu, dtype);
        let weights = Weights::new(store.clone(), dtype, Device::Cpu);
        let mut model = Transformer::load(&config, &weights, WeightsMode::Resident, dtype).expect("tiny-flux");
        // The first pass fills the room that the matrix products keep for themselves, per thread.
        let rope = RopeTables::new(
            &config.position_ids(grid, text),
            config.base_patches(),
            &Still,
            &Moment::at(1.0),
            &Device::Cpu,
        )
        .expect("tables");
        model.forward(&img, &txt, &pooled, 1.0, Some(1.0), &rope).expect("forward");
        drop(rope);
        for (token_chunk, query_rows, heads) in [(4096, 256, 1), (512, 128, 4), (128, 64, 1)] {
            let options = ForwardOptions { token_chunk, query_rows, heads };
            model = model.with_options(options);
            let found = peak_of(|| {
                let rope = RopeTables::new(
                    &config.position_ids(grid, text),
                    config.base_patches(),
                    &Still,
                    &Moment::at(1.0),
                    &Device::Cpu,
                )
                .expect("tables");
                model.forward(&img, &txt, &pooled, 1.0, Some(1.0), &rope).expect("forward");
            });
            let foretold = forward_memory_bytes(&config, image, text, compute, &options);
            let ratio = found as f64 / foretold as f64;
            assert!((0.85..1.15).contains(&ratio), "{dtype:?} {options:?}: found {found}, foretold {foretold}");
        }
    }
}

#[test]
fn pieces_are_chosen_by_the_budget() {
    let config = FluxConfig::flux1_dev();
    let need = |options: &ForwardOptions| forward_memory_bytes(&config, 65_536, 512, Compute::EXACT_F32, options);
    let choose = |budget| ForwardOptions::for_budget(&config, 65_536, 512, Compute::EXACT_F32, budget);
    assert_eq!(choose(u64::MAX).expect("all the room"), ForwardOptions::default());
    let tight = need(&ForwardOptions::default()) - 1;
    let options = choose(tight).expect("smaller pieces");
    assert!(options.token_chunk < ForwardOptions::default().token_chunk && need(&options) <= tight);
    let error = choose(2 << 30).expect_err("the stream, keys and values alone take 2.4 GB");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("may take 2048 MiB"), "{error}");
    assert!(error.hint().is_some());
}
