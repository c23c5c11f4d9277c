//! Decodes random latents with a decoder of FLUX.1's size and random weights: seconds, operations, peak memory.
//!
//! `cargo bench --bench vae_decode -- [SIDE_PX ...] [--keep all|maps|nothing] [--tiny] [--band ROWS]`
//!
//! A large plain matrix product after each decode says what the machine gives at that moment.

use std::{sync::Arc, time::Instant};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Result,
    base::geometry::{ImageSize, LatentSize},
    base::progress::Silent,
    models::flux1::{LATENTS, autoencoder},
    models::parts::kl::{Banding, Decoder, Keep, VaeConfig},
    weights::{TensorSource, Weights},
};

#[global_allocator]
static ALLOCATOR: dype::Allocator = dype::Allocator;

/// Weights that keep a signal's size from layer to layer.
struct Random {
    shapes: std::collections::HashMap<String, Vec<usize>>,
}

impl TensorSource for Random {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shapes.get(name).cloned()
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = &self.shapes[name];
        let fan_in: usize = shape[1..].iter().product();
        let norm = shape.len() == 1 && name.contains("norm") && name.ends_with("weight");
        let size = if shape.len() == 1 { 0.1 } else { (1.0 / fan_in as f32).sqrt() };
        let mut state = name.bytes().fold(1u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(b)));
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                size * ((state >> 8) as f32 / 8_388_608.0 - 1.0) + f32::from(u8::from(norm))
            })
            .collect();
        Ok(Tensor::from_vec(values, shape.as_slice(), device)?.to_dtype(dtype)?)
    }

    fn describe(&self) -> String {
        "random weights".into()
    }
}

/// Names and shapes of the real autoencoder, from the fixtures; a tiny one with `channels`.
fn weights(tiny: bool) -> (VaeConfig, Weights) {
    let text = include_str!("../tests/fixtures/flux1_dev_tensors.json");
    let all: serde_json::Value = serde_json::from_str(text).expect("the fixture is JSON");
    let shapes: std::collections::HashMap<String, Vec<usize>> =
        serde_json::from_value(all["vae"].clone()).expect("names and shapes");
    let config = autoencoder();
    if !tiny {
        return (config, Weights::new(Arc::new(Random { shapes }), DType::F32, Device::Cpu));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-flux/vae/");
    let files = [1, 2].map(|i| format!("{folder}diffusion_pytorch_model-0000{i}-of-00002.safetensors").into());
    let store = dype::testing::weights::TensorFiles::open(&files).expect("the fixture opens");
    let config = VaeConfig { block_out_channels: vec![32, 32, 64, 64], ..config };
    (config, Weights::new(Arc::new(store), DType::F32, Device::Cpu))
}

/// GFLOP/s of a large matrix product on all threads, and GFLOP per second of processor time.
fn machine() -> (f64, f64) {
    let n = 2048usize;
    let (a, b, mut c) = (vec![0.5f32; n * n], vec![0.25f32; n * n], vec![0f32; n * n]);
    let mut best = f64::MAX;
    let before = usage().0;
    for _ in 0..5 {
        let start = Instant::now();
        // SAFETY: three n x n matrices, row by row.
        unsafe {
            let s = n as isize;
            let threads = gemm::Parallelism::Rayon(0);
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            gemm::gemm(n, n, n, c, 1, s, false, a, 1, s, b, 1, s, 0.0, 1.0, false, false, false, threads);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let flops = 2.0 * (n as f64).powi(3) / 1e9;
    (flops / best, 5.0 * flops / (usage().0 - before))
}

/// User and system seconds of this process so far, and its peak resident bytes.
fn usage() -> (f64, f64) {
    // SAFETY: `getrusage` fills the structure it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as f64 * 1024.0)
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn measure(side_px: usize, keep: Keep, band_rows: usize, tiny: bool) {
    let (config, weights) = weights(tiny);
    let grid = LATENTS.tokens(ImageSize::new(side_px, side_px).expect("a size"));
    let size: LatentSize = LATENTS.latents(grid);
    let options = Banding { band_rows, keep: vec![Keep::All, Keep::All, keep.max(Keep::Maps), keep] };
    let decoder = Decoder::open(config, weights).expect("the decoder opens");
    let cost = decoder.cost(size, &options).expect("a decoder");
    let plain = decoder.cost(size, &Banding::default()).expect("a decoder").flops;
    let count = 16 * size.height * size.width;
    let latents: Vec<f32> = (0..count).map(|i| ((i as f32) * 12.9898).sin() * 1.7).collect();
    let latents = Tensor::from_vec(latents, &LATENTS.latents_shape(grid), &Device::Cpu).expect("latents");
    let ((before, held), mut sum) = (usage(), 0f64);
    let start = Instant::now();
    decoder
        .decode(&latents, &options, &Silent, &mut |_, rows| {
            sum += rows.iter().map(|x| f64::from(x.abs())).sum::<f64>();
            Ok(())
        })
        .expect("decodes");
    let (seconds, (after, peak), (gflops, per_core)) = (start.elapsed().as_secs_f64(), usage(), machine());
    println!(
        "{side_px} px, {keep:?}, band {band_rows}: {seconds:.2} s ({:.2} s of processor), {:.2} TFLOP (once {:.2}), \
         {:.0} GFLOP/s ({:.0} a core); planned {:.0} MB, peak resident {:.0} MB ({:.0} before); matrix product {gflops:.0} GFLOP/s ({per_core:.0} a core); mean {:.4}",
        after - before,
        cost.flops as f64 / 1e12,
        plain as f64 / 1e12,
        cost.flops as f64 / seconds / 1e9,
        cost.flops as f64 / (after - before) / 1e9,
        cost.memory_bytes as f64 / 1e6,
        peak / 1e6,
        held / 1e6,
        sum / (3 * side_px * side_px) as f64,
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let keep = match value("--keep").map(String::as_str) {
        Some("maps") => Keep::Maps,
        Some("nothing") => Keep::Nothing,
        _ => Keep::All,
    };
    let band = value("--band").and_then(|rows| rows.parse().ok()).unwrap_or(Banding::default().band_rows);
    let mut sides: Vec<usize> =
        arguments.iter().take_while(|a| !a.starts_with("--")).filter_map(|a| a.parse().ok()).collect();
    if sides.is_empty() {
        sides.push(512);
    }
    for side in sides {
        measure(side, keep, band, arguments.iter().any(|a| a == "--tiny"));
    }
}
