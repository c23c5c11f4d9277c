//! The memory of the autoencoder, counted by the allocator, against what its walk over shapes foretells.

#[path = "support/counting.rs"]
mod counting;
mod support;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use counting::{alone, peak_of};
use dype::testing::{
    base::{geometry::LatentSize, progress::Silent},
    models::parts::kl::{Banding, Decoder, Encoder, Keep, VaeConfig},
    weights::{SafetensorsStore, Weights},
};
use support::fixture;

/// What keeps most, what keeps least, and what lies between; in bands whose buffers, below 1 MiB, come from the allocator.
fn ways() -> [Banding; 3] {
    [Keep::All, Keep::Maps, Keep::Nothing].map(|keep| Banding { band_rows: 16, keep: vec![keep; 4] })
}

/// Peaks of two threads that have all they keep between decodes already, whatever machine this is.
fn on_two_threads(test: impl FnOnce() + Send) {
    let _alone = alone();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
    pool.install(test);
}

/// A small picture, and a tall one: a wide one's bands would be mapped past the allocator.
const SIZES: [LatentSize; 2] = [LatentSize { height: 24, width: 24 }, LatentSize { height: 96, width: 16 }];

fn tiny() -> (VaeConfig, Weights) {
    let folder = fixture("tiny-flux/vae");
    let shards = [1, 2].map(|i| folder.join(format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors")));
    let store = SafetensorsStore::open(&shards).expect("the fixture opens");
    let config = VaeConfig::read(&folder.join("config.json")).expect("the fixture's config");
    (config, Weights::new(Arc::new(store), DType::F32, Device::Cpu))
}

/// 15% below 512 px, 10% from there on.
#[track_caller]
fn assert_foretold(what: &str, planned: u64, taken: u64, side_px: usize) {
    let (ratio, tolerance) = (taken as f64 / planned as f64, if side_px < 512 { 0.15 } else { 0.1 });
    assert!((ratio - 1.0).abs() < tolerance, "{what}: planned {planned}, taken {taken}, {ratio:.3}");
}

#[test]
fn decoding_takes_the_memory_that_was_foretold() {
    on_two_threads(decoding);
}

fn decoding() {
    let (config, weights) = tiny();
    let decoder = Decoder::open(config, weights).expect("a decoder");
    for size in SIZES {
        let latents = Tensor::zeros((1, 16, size.height, size.width), DType::F32, &Device::Cpu).expect("latents");
        for options in ways() {
            let planned = decoder.cost(size, &options).expect("a plan").memory_bytes;
            let decode = || decoder.decode(&latents, &options, &Silent, &mut |_, _| Ok(())).expect("decodes");
            decode();
            let taken = peak_of(decode);
            assert_foretold(&format!("decode {size:?}, {options:?}"), planned, taken, 8 * size.height);
        }
    }
}

#[test]
fn encoding_takes_the_memory_that_was_foretold() {
    on_two_threads(encoding);
}

fn encoding() {
    let (config, weights) = tiny();
    let encoder = Encoder::open(config, weights).expect("an encoder");
    for size in SIZES {
        for options in ways() {
            let planned = encoder.cost(size, &options).expect("a plan").memory_bytes;
            let encode = || {
                let picture = &mut |_, rows: &mut [f32]| {
                    rows.fill(0.5);
                    Ok(())
                };
                drop(encoder.encode(size, picture, &options, &Silent).expect("encodes"));
            };
            encode();
            let taken = peak_of(encode);
            assert_foretold(&format!("encode {size:?}, {options:?}"), planned, taken, 8 * size.height);
        }
    }
}
