//! The memory of a forward pass, counted by the allocator, against what a dry pass foretells.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{AxisFrequencies, Base, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis},
    models::flux1::{Compute, FluxConfig, Forward, ForwardOptions, Transformer, WeightsMode, text_cost},
    models::parts::{ClipConfig, ClipEncoder, T5Config, T5Encoder},
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

/// One at a time: the counter is the process'.
static ALONE: Mutex<()> = Mutex::new(());

fn tiny(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux").join(path)
}

#[test]
fn a_forward_pass_takes_the_memory_that_was_foretold() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = FluxConfig::read(&tiny("transformer/config.json")).expect("config");
    let shard = |i| tiny(&format!("transformer/diffusion_pytorch_model-0000{i}-of-00003.safetensors"));
    let store = Arc::new(SafetensorsStore::open(&[shard(1), shard(2), shard(3)]).expect("shards"));
    let grid = TokenGrid { height_patches: 48, width_patches: 56 };
    let (image, text) = (grid.count(), 512);
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
    let (img, txt) = (zeros((1, image, 64)), zeros((1, text, config.joint_attention_dim)));
    let pooled = Tensor::zeros((1, config.pooled_projection_dim), DType::F32, &Device::Cpu).expect("zeros");

    // f16 takes the path of other devices; bf16 is f32 here, with products that may round.
    for (dtype, mode) in [
        (DType::F32, WeightsMode::Resident),
        (DType::BF16, WeightsMode::Resident),
        (DType::F16, WeightsMode::Resident),
        (DType::F32, WeightsMode::Stream),
    ] {
        let weights = Weights::new(store.clone(), dtype, Device::Cpu);
        let mut model = Transformer::load(&config, &weights, mode, dtype).expect("tiny-flux");
        let forward = Forward {
            config: &config,
            kind: DeviceKind::Cpu,
            compute: Compute::on(DeviceKind::Cpu, dtype),
            held: dtype,
            mode,
            image_tokens: image,
            text_tokens: text,
        };
        let pass = |model: &Transformer| {
            let rope = RopeTables::new(
                &config.position_ids(grid, text),
                config.base_patches(),
                &Still,
                &Moment::at(1.0),
                &Device::Cpu,
            )
            .expect("tables");
            model.forward(&img, &txt, &pooled, 1.0, Some(1.0), &rope).expect("forward");
        };
        for (token_chunk, query_rows, heads) in [(4096, 256, 1), (512, 128, 4), (128, 64, 1)] {
            let options = ForwardOptions { token_chunk, query_rows, heads };
            model = model.with_options(options);
            // The first pass fills the room that the matrix products keep for themselves, per thread.
            pass(&model);
            let found = peak_of(|| pass(&model));
            let foretold = forward.cost(options).expect("a dry pass").working_bytes;
            assert_near(found, foretold, 0.1, &format!("{dtype:?} {mode:?} {options:?}"));
        }
    }
}

#[test]
fn text_encoders_take_the_memory_that_was_foretold() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let store = |part: &str| {
        let file = tiny(part).join("model.safetensors");
        Arc::new(SafetensorsStore::open(&[file]).expect("fixture"))
    };
    let (clip_store, t5_store) = (store("text_encoder"), store("text_encoder_2"));
    let clip_config = ClipConfig::read(&tiny("text_encoder/config.json")).expect("fixture");
    let t5_config = T5Config::read(&tiny("text_encoder_2/config.json")).expect("fixture");
    for dtype in [DType::F32, DType::F16] {
        let weights = |store: &Arc<SafetensorsStore>| Weights::new(store.clone(), dtype, Device::Cpu);
        let clip = ClipEncoder::open(clip_config.clone(), weights(&clip_store));
        let t5 = T5Encoder::open(t5_config.clone(), weights(&t5_store));
        for prompts in [1, 3] {
            let ids = |tokens: usize, rows: usize| -> Vec<Vec<u32>> {
                (0..prompts).map(|p| (0..tokens).map(|i| ((p * tokens + i) % rows) as u32).collect()).collect()
            };
            let (clip_ids, t5_ids) = (ids(77, clip_config.vocab_size), ids(512, t5_config.vocab_size));
            let encode = || {
                let pooled = clip.encode(&clip_ids, |_| ()).expect("CLIP");
                let embeds = t5.encode(&t5_ids, |_| ()).expect("T5");
                drop((pooled, embeds));
            };
            encode();
            let found = peak_of(encode);
            let ledger = text_cost(&clip, &t5, DeviceKind::Cpu, prompts, 512).expect("a dry pass");
            assert_near(found, ledger.peak_bytes(), 0.15, &format!("{dtype:?}, {prompts} prompts"));
        }
    }
}

fn assert_near(found: u64, foretold: u64, tolerance: f64, what: &str) {
    let ratio = found as f64 / foretold as f64;
    assert!((ratio - 1.0).abs() < tolerance, "{what}: found {found}, foretold {foretold}, {ratio:.3}");
}

#[test]
fn pieces_are_chosen_by_the_budget() {
    let config = FluxConfig::flux1_dev();
    let forward = Forward {
        config: &config,
        kind: DeviceKind::Cpu,
        compute: Compute::EXACT_F32,
        held: DType::BF16,
        mode: WeightsMode::Stream,
        image_tokens: 65_536,
        text_tokens: 512,
    };
    let (options, cost) = forward.within(u64::MAX).expect("all the room");
    assert_eq!(options, ForwardOptions::default());
    let tight = cost.peak_bytes() - 1;
    let (options, cost) = forward.within(tight).expect("smaller pieces");
    assert!(options.token_chunk < ForwardOptions::default().token_chunk && cost.peak_bytes() <= tight);
    let error = forward.within(2 << 30).expect_err("the stream, keys and values alone take 2.4 GB");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("may take 2048 MiB"), "{error}");
    assert!(error.hint().is_some());
}
