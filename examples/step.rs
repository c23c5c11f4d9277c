//! One transformer step at true FLUX.1 widths with random weights: seconds, rate and peak memory.
//!
//! `cargo run --release --example step -- [side_px] [double] [single] [f32|bf16] [resident|stream] [f32|bf16]`: the weights' number
//! type, where they live, and what the streams compute in.

#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

#[path = "../benches/random_weights.rs"]
mod random_weights;

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use dype::{
    flux::{RopeTables, Transformer, WeightsMode, step_flops},
    geometry::ImageSize,
    position::Step,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TEXT_TOKENS: usize = 512;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (side_px, config) = (number(0, 1024)?, random_weights::config(number(1, 1)?, number(2, 2)?));
    let held = if arguments.get(3).is_some_and(|dtype| dtype == "bf16") { DType::BF16 } else { DType::F32 };
    let streamed = arguments.get(4).is_some_and(|mode| mode == "stream");
    let mode = if streamed { WeightsMode::Stream } else { WeightsMode::Resident };

    let compute = if arguments.get(5).is_some_and(|dtype| dtype == "bf16") { DType::BF16 } else { DType::F32 };

    let device = Device::Cpu;
    let grid = ImageSize::new(side_px, side_px)?.tokens();
    let img = Tensor::randn(0f32, 1.0, (1, grid.count(), 64), &device)?;
    let prompt_embeds = Tensor::randn(0f32, 1.0, (1, TEXT_TOKENS, config.joint_attention_dim), &device)?;
    let pooled = Tensor::randn(0f32, 1.0, (1, config.pooled_projection_dim), &device)?;
    let model = Transformer::load(&config, &random_weights::weights(held), mode, compute)?;
    let loaded_bytes = peak_bytes()?;

    let start = Instant::now();
    let rope = RopeTables::new(&config, grid, TEXT_TOKENS, &random_weights::Native, &Step::at(1.0), &device)?;
    let tables_s = start.elapsed().as_secs_f64();
    let flops = step_flops(&config, grid.count(), TEXT_TOKENS) as f64;
    println!(
        "{side_px} px, {} double, {} single blocks, {held:?} weights, {mode:?}, in {compute:?}",
        config.num_layers, config.num_single_layers
    );
    for _ in 0..2 {
        let (start, start_cpu_s) = (Instant::now(), cpu_seconds());
        let velocity = model.forward(&img, &prompt_embeds, &pooled, 1.0, Some(4.5), &rope)?;
        let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), cpu_seconds() - start_cpu_s);
        anyhow::ensure!(velocity.sum_all()?.to_scalar::<f32>()?.is_finite(), "the velocity is not finite");
        println!(
            "step: {wall_s:.2} s, {:.0} GFLOP/s; {cpu_s:.2} s of processor time, {:.0} GFLOP/s each",
            flops / wall_s / 1e9,
            flops / cpu_s / 1e9
        );
    }
    println!("tables: {:.2} ms", tables_s * 1e3);
    println!("plain product: {:.0} GFLOP/s of processor time", plain_product());
    println!("peak: {:.2} GB resident, {:.2} GB after loading", peak_bytes()? / 1e9, loaded_bytes / 1e9);
    Ok(())
}

/// GFLOP/s of processor time of one large f32 product, the yardstick for the step in the same run.
fn plain_product() -> f64 {
    let (m, n, k) = (2048, 3072, 3072);
    let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.25f32; n * k], vec![0f32; m * n]);
    let start = cpu_seconds();
    let (wide, narrow) = (k as isize, n as isize);
    // SAFETY: the three vectors are as long as the sizes and strides ask.
    unsafe {
        let threads = gemm::Parallelism::Rayon(0);
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            narrow,
            false,
            a.as_ptr(),
            1,
            wide,
            b.as_ptr(),
            wide,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
    std::hint::black_box(&c);
    2.0 * (m * n * k) as f64 / (cpu_seconds() - start) / 1e9
}

/// Seconds of processor time this process has taken, all threads together.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Unix, and `time` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The most memory this process ever had resident.
fn peak_bytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or_else(|| anyhow::anyhow!("no VmHWM"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(kilobytes * 1024.0)
}
