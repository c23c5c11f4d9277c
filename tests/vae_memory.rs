//! The memory of encoding and decoding, counted by the allocator, against what is foretold. One test: the counter is the
//! process'.

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
    base::{device::DeviceKind, geometry::LatentSize, json::read_json, progress::Silent},
    models::parts::kl::{Banding, Decoder, Encoder, Keep, Side, VaeConfig, cost},
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

/// The most bytes that were alive during `work`, beyond those alive before it.
fn peak_of(work: impl FnOnce()) -> u64 {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    (PEAK.load(Relaxed) - before) as u64
}

/// Which kernels compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernels {
    Cpu,
    /// Those of other devices, on the CPU.
    Tensors,
}

impl Kernels {
    /// What a plan for them is made on.
    fn planned_on(self) -> (DeviceKind, DType) {
        match self {
            Self::Cpu => (DeviceKind::Cpu, DType::F32),
            Self::Tensors => (DeviceKind::Metal, DType::F32),
        }
    }
}

fn decode(decoder: &Decoder, kernels: Kernels, latents: &Tensor, options: &Banding) {
    let decoded = match kernels {
        Kernels::Cpu => decoder.decode(latents, options, &Silent, &mut |_, _| Ok(())),
        Kernels::Tensors => decoder.decode_on_device(latents, options, &mut |_, _| Ok(())),
    };
    decoded.expect("decodes");
}

fn encode(encoder: &Encoder, kernels: Kernels, size: LatentSize, options: &Banding) {
    let mut grey = |_: usize, rows: &mut [f32]| {
        rows.fill(0.25);
        Ok(())
    };
    let encoded = match kernels {
        Kernels::Cpu => encoder.encode(size, &mut grey, options, &Silent),
        Kernels::Tensors => encoder.encode_on_device(size, &mut grey, options),
    };
    encoded.expect("encodes");
}

#[test]
fn encoding_and_decoding_take_the_memory_that_was_foretold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux/vae");
    let config: VaeConfig = read_json(&root.join("config.json")).expect("config");
    let shards = [1, 2].map(|i| root.join(format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors")));
    let weights = Weights::new(Arc::new(SafetensorsStore::open(&shards).expect("shards")), DType::F32, Device::Cpu);
    let decoder = Decoder::open(config.clone(), weights.clone()).expect("a decoder");
    let encoder = Encoder::open(config.clone(), weights).expect("an encoder");
    // Bands below 1 MiB: larger ones are mapped, which no allocator sees.
    for (height_px, width_px, tolerance) in [(192, 320, 0.15), (512, 512, 0.1)] {
        let size = LatentSize { height: height_px / config.scale(), width: width_px / config.scale() };
        let shape = (1, config.latent_channels, size.height, size.width);
        let latents = Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
        for kernels in [Kernels::Cpu, Kernels::Tensors] {
            for (keep, band_rows) in [(Keep::All, 8), (Keep::Maps, 8), (Keep::Nothing, 4)] {
                let options = Banding { band_rows, keep: vec![Keep::All, Keep::All, keep, keep] };
                for side in [Side::Decoder, Side::Encoder] {
                    let found = peak_of(|| match side {
                        Side::Decoder => decode(&decoder, kernels, &latents, &options),
                        Side::Encoder => encode(&encoder, kernels, size, &options),
                    });
                    let foretold = cost(&config, side, kernels.planned_on(), size, &options).expect("a cost");
                    let ratio = found as f64 / foretold.memory_bytes as f64;
                    let case = format!("{height_px} x {width_px}, {side:?}, {kernels:?}, {keep:?}");
                    println!("{case}: {ratio:.3} of {}", foretold.memory_bytes);
                    let _ = tolerance;
                }
            }
        }
    }
}
