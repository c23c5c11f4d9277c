//! Our side of `benches/compare.py`: one transformer step or one decode, in a process of its own, as one JSON line.
//!
//! `peer step DIR --px 1024 [--dtype f32|bf16] [--weights resident|stream] [--runs N]`
//! `peer step --blocks DOUBLE,SINGLE --px 4096 [...]` (ours alone, on random weights of FLUX.1's widths)
//! `peer decode DIR --px 1024 [--memory BYTES] [--runs N]`
//! `peer tables --px 4096 [--runs N]`
//!
//! DIR holds `transformer/` or `vae/`, as `reference.py make-step` and `make-vae` write them.

#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

#[path = "random_weights.rs"]
mod random_weights;

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Context, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use dype::{
    flux::{FluxConfig, RopeTables, Transformer, WeightsMode, step_flops},
    geometry::{ImageSize, TOKEN_CHANNELS},
    memory,
    position::{DypeSettings, Method, Step},
    progress::Silent,
    vae::{self, Decoder, VaeConfig},
    weights::{Weights, open_folder, read_json},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TEXT_TOKENS: usize = 512;

struct Arguments(Vec<String>);

impl Arguments {
    fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> anyhow::Result<usize> {
        self.value(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} {text}")))
    }

    fn size(&self) -> anyhow::Result<ImageSize> {
        let px = self.number("--px", 1024)?;
        Ok(ImageSize::new(px, px)?)
    }

    fn folder(&self) -> anyhow::Result<&Path> {
        self.0.get(1).map(Path::new).ok_or_else(|| anyhow!("which folder?"))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments(std::env::args().skip(1).filter(|argument| argument != "--bench").collect());
    match arguments.0.first().map(String::as_str) {
        Some("step") => step(&arguments),
        Some("decode") => decode(&arguments),
        Some("tables") => tables(&arguments),
        // `cargo bench` runs every bench: without a command there is nothing to compare.
        None => Ok(()),
        Some(other) => bail!("unknown command {other}"),
    }
}

fn timed(runs: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    let one = |_| {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..runs).map(one).collect()
}

fn report(seconds: &[f64], flops: u64) {
    let peak = memory::peak_resident_bytes().unwrap_or(0);
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_rss_bytes": peak, "flops": flops }));
}

fn step(arguments: &Arguments) -> anyhow::Result<()> {
    let mode = match arguments.value("--weights") {
        Some("stream") => WeightsMode::Stream,
        _ => WeightsMode::Resident,
    };
    let dtype = if arguments.value("--dtype") == Some("bf16") { DType::BF16 } else { DType::F32 };
    let held = if arguments.value("--hold") == Some("f32") { DType::F32 } else { DType::BF16 };
    let (config, weights) = transformer(arguments, held)?;
    let model = Transformer::load(&config, &weights, mode, dtype)?;
    let grid = arguments.size()?.tokens();
    let random = |shape: (usize, usize, usize)| Tensor::randn(0f32, 1.0, shape, &Device::Cpu);
    let img = random((1, grid.count(), TOKEN_CHANNELS))?;
    let prompt_embeds = random((1, TEXT_TOKENS, config.joint_attention_dim))?;
    let pooled = random((1, 1, config.pooled_projection_dim))?.squeeze(0)?;
    let seconds = timed(arguments.number("--runs", 1)?, || {
        let rope = rope(&config, grid)?;
        model.forward(&img, &prompt_embeds, &pooled, 0.9, Some(4.5), &rope)?;
        Ok(())
    })?;
    report(&seconds, step_flops(&config, grid.count(), TEXT_TOKENS));
    Ok(())
}

/// The folder's transformer, or one of so many random blocks.
fn transformer(arguments: &Arguments, held: DType) -> anyhow::Result<(FluxConfig, Weights)> {
    if let Some(blocks) = arguments.value("--blocks") {
        let (double, single) = blocks.split_once(',').ok_or_else(|| anyhow!("--blocks {blocks}: write it like 1,2"))?;
        return Ok((
            random_weights::config(double.parse()?, single.parse()?),
            random_weights::weights("transformer", held),
        ));
    }
    let folder = arguments.folder()?.join("transformer");
    let config = read_json(&folder.join("config.json"))?;
    Ok((config, Weights::new(Arc::new(open_folder(&folder)?), held, Device::Cpu)))
}

/// DY-YaRN's tables of one step.
fn rope(config: &FluxConfig, grid: dype::geometry::TokenGrid) -> dype::Result<RopeTables> {
    let scaler = Method::Yarn.scaler(Some(DypeSettings::default()));
    RopeTables::new(config, grid, TEXT_TOKENS, scaler.as_ref(), &Step::at(0.9), &Device::Cpu)
}

fn tables(arguments: &Arguments) -> anyhow::Result<()> {
    let (config, grid) = (FluxConfig::flux1_dev(), arguments.size()?.tokens());
    let seconds = timed(arguments.number("--runs", 5)?, || Ok(rope(&config, grid).map(|_| ())?))?;
    report(&seconds, step_flops(&config, grid.count(), TEXT_TOKENS));
    Ok(())
}

fn decode(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = arguments.folder()?.join("vae");
    let config: VaeConfig = read_json(&folder.join("config.json"))?;
    let weights = Weights::new(Arc::new(open_folder(&folder)?), DType::F32, Device::Cpu);
    let size = arguments.size()?.tokens().latents();
    let budget = arguments.number("--memory", usize::MAX)? as u64;
    let options = vae::best_options(&config, vae::DecodeKernels::Cpu, size, budget)?;
    let decoder = Decoder::open(config.clone(), weights)?;
    let latents = Tensor::randn(0f32, 1.0, &size.shape(), &Device::Cpu)?;
    let seconds = timed(arguments.number("--runs", 1)?, || {
        let mut sum = 0f32;
        decoder.decode(&latents, &options, &Silent, &mut |_, rows| {
            sum += rows.iter().sum::<f32>();
            Ok(())
        })?;
        std::hint::black_box(sum);
        Ok(())
    })?;
    report(&seconds, vae::decode_flops(&config, size));
    Ok(())
}
