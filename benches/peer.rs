//! Our side of `benches/compare.py` and `benches/gpu.py`: one piece of work in a process of its own, as JSON lines.
//!
//! Measured:
//! `peer step DIR --px 1024,4096 [--dtype f32|bf16] [--weights resident|stream] [--memory BYTES] [--runs N]`
//! `peer step --blocks DOUBLE,SINGLE --px 4096 [...]` (ours alone, on random weights of FLUX.1's widths)
//! `peer step-of DIR --px 1024 [--dtype f32|bf16] [--weights resident|stream] [--memory BYTES] [--runs N] [--out FILE]` (a whole
//! repository, whatever its family; FILE receives the latents after one step)
//! `peer decode DIR --px 1024 [--dtype f32|bf16] [--memory BYTES] [--runs N]`
//! `peer tables --px 4096 [--runs N]`
//!
//! Written to a safetensors file, to be held against PyTorch's:
//! `peer attention --out FILE [--dtype f32|bf16]` (q, k, v, out)
//! `peer noise --out FILE [--rng SOURCE] [--seed N] [--count N]`
//! `peer pixels DIR --out FILE --px 512 [--dtype f32|bf16]` (latents, and the pixels they decode to)
//!
//! All take `--device cpu|cuda`. DIR holds `transformer/` or `vae/`, as `reference.py make-step` and `make-vae` write them, or is
//! a repository, as its `make-z-image` and `make-klein` write one.

#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

#[path = "random_weights.rs"]
mod random_weights;

use std::{collections::HashMap, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{
        device::DeviceKind,
        geometry::{ImageSize, TokenGrid},
        memory,
        progress::Silent,
    },
    methods::{DypeSettings, Method, Moment},
    models::flux1::{Compute, FluxConfig, Forward, ForwardOptions, LATENTS, Transformer, WeightsMode},
    models::parts::kl::{self, Decoder, VaeConfig},
    models::{ModelRequest, On, Registry, VelocityAt},
    nn::{self, RopeTables},
    sampling,
    weights::{Weights, open_folder},
};

#[global_allocator]
static ALLOCATOR: dype::Allocator = dype::Allocator;

const TEXT_TOKENS: usize = 512;
/// As `reference.py` has it: longer than any family reads.
const PROMPT: &str = "A serene mountain landscape at sunset, ";
const REPEATED: usize = 100;

struct Arguments(Vec<String>);

impl Arguments {
    fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> anyhow::Result<usize> {
        self.value(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} {text}")))
    }

    fn sizes(&self) -> anyhow::Result<Vec<ImageSize>> {
        let square = |px: &str| {
            let side = px.parse().with_context(|| format!("--px {px}"))?;
            Ok(ImageSize::new(side, side)?)
        };
        self.value("--px").unwrap_or("1024").split(',').map(square).collect()
    }

    fn size(&self) -> anyhow::Result<ImageSize> {
        self.sizes()?.first().copied().context("--px SIDE")
    }

    fn device(&self) -> anyhow::Result<Device> {
        Ok(if self.value("--device") == Some("cuda") { Device::new_cuda(0)? } else { Device::Cpu })
    }

    fn dtype(&self) -> DType {
        if self.value("--dtype") == Some("bf16") { DType::BF16 } else { DType::F32 }
    }

    fn mode(&self) -> WeightsMode {
        if self.value("--weights") == Some("stream") { WeightsMode::Stream } else { WeightsMode::Resident }
    }

    fn memory(&self) -> anyhow::Result<u64> {
        Ok(self.number("--memory", usize::MAX)? as u64)
    }

    fn save(&self, tensors: &[(&str, &Tensor)]) -> anyhow::Result<()> {
        let out = self.value("--out").context("--out FILE")?;
        let tensors: HashMap<_, _> =
            tensors.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())).collect();
        Ok(candle_core::safetensors::save(&tensors, out)?)
    }

    fn folder(&self) -> anyhow::Result<&Path> {
        self.0.get(1).map(Path::new).ok_or_else(|| anyhow!("which folder?"))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments(std::env::args().skip(1).filter(|argument| argument != "--bench").collect());
    match arguments.0.first().map(String::as_str) {
        Some("step") => step(&arguments),
        Some("step-of") => step_of(&arguments),
        Some("decode") => decode(&arguments),
        Some("tables") => tables(&arguments),
        Some("attention") => attention(&arguments),
        Some("noise") => noise(&arguments),
        Some("pixels") => pixels(&arguments),
        // `cargo bench` runs every bench: without a command there is nothing to compare.
        None => Ok(()),
        Some(other) => bail!("unknown command {other}"),
    }
}

/// Seconds of each run, until the device is done.
fn timed(runs: usize, device: &Device, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    let one = |_| {
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..runs).map(one).collect()
}

fn report(size: ImageSize, seconds: &[f64], flops: u128) {
    let flops = flops as f64;
    let (px, peak) = (size.width_px, memory::peak_resident_bytes().unwrap_or(0));
    println!("{}", serde_json::json!({ "px": px, "seconds": seconds, "peak_rss_bytes": peak, "flops": flops }));
}

fn step(arguments: &Arguments) -> anyhow::Result<()> {
    let mode = arguments.mode();
    let (device, dtype) = (arguments.device()?, arguments.dtype());
    let held = if arguments.value("--hold") == Some("f32") { DType::F32 } else { DType::BF16 };
    let (config, weights) = transformer(arguments, held, &device)?;
    let mut model = Transformer::load(&config, &weights, mode, Compute::on(DeviceKind::of(&device), dtype))?;
    for size in arguments.sizes()? {
        let forward = forward(&config, &device, (dtype, &weights), mode, size);
        let first = ForwardOptions::first(forward.kind, forward.compute.dtype);
        let (options, cost) = first.within(arguments.memory()?, |options| forward.cost(options))?;
        model = model.with_options(options);
        let seconds = steps(&model, &config, LATENTS.tokens(size), arguments.number("--runs", 1)?, &device)?;
        report(size, &seconds, cost.flops);
    }
    Ok(())
}

/// A forward pass at a size, to be asked what it takes.
fn forward<'a>(
    config: &'a FluxConfig,
    device: &Device,
    (dtype, weights): (DType, &Weights),
    mode: WeightsMode,
    size: ImageSize,
) -> Forward<'a> {
    let kind = DeviceKind::of(device);
    let (compute, image_tokens) = (Compute::on(kind, dtype), LATENTS.tokens(size).count());
    Forward { config, kind, compute, weights: weights.clone(), mode, step: [image_tokens, TEXT_TOKENS].into() }
}

fn steps(
    model: &Transformer,
    config: &FluxConfig,
    grid: TokenGrid,
    runs: usize,
    device: &Device,
) -> anyhow::Result<Vec<f64>> {
    let random = |shape: (usize, usize, usize)| Tensor::randn(0f32, 1.0, shape, device);
    let img = random((1, grid.count(), LATENTS.token_channels()))?;
    let prompt_embeds = random((1, TEXT_TOKENS, config.joint_attention_dim))?;
    let pooled = random((1, 1, config.pooled_projection_dim))?.squeeze(0)?;
    timed(runs, device, || {
        let rope = rope(config, grid, device)?;
        model.forward(&img, &prompt_embeds, &pooled, 0.9, Some(4.5), &rope)?;
        Ok(())
    })
}

/// The first and only step of a picture, of a whole repository of any family.
fn step_of(arguments: &Arguments) -> anyhow::Result<()> {
    let (mode, size) = (arguments.mode(), arguments.size()?);
    let on = On::new(arguments.device()?, arguments.dtype());
    let model = Registry::default().open(&ModelRequest::new(arguments.folder()?))?;
    let facts = model.facts();
    let text = model.text(&on)?.encode(&[PROMPT.repeat(REPEATED).as_str()], facts.recipe.text_tokens, &Silent)?;
    let text = text.first().context("one prompt")?;
    let grid = facts.latents.tokens(size);
    let shape = [grid.count(), text.text_tokens()].into();
    let kind = (DeviceKind::of(&on.device), on.dtype);
    let (pieces, cost) = model.step_within(kind, mode, shape, arguments.memory()?)?;
    let transformer = model.velocity(&on, mode, pieces)?;
    let noise_shape = facts.latents.latents_shape(grid);
    let noise = sampling::noise(dype::testing::recipe::Rng::TorchCpu, 0, &noise_shape);
    let noise = sampling::pack(&Tensor::from_vec(noise, &noise_shape, &on.device)?, &facts.latents)?; // [1, N, C]
    let base_patches = facts.patches(facts.recipe.base_resolution);
    let scaler = Method::YARN.scaler(Some(DypeSettings::default()));
    let mut after = noise.clone();
    let seconds = timed(arguments.number("--runs", 1)?, &on.device, || {
        let rope =
            &RopeTables::new(&model.positions(grid, text), base_patches, &*scaler, &Moment::at(1.0), &on.device)?;
        let (guidance, text_bias, logit_scale, first_block) = (None, None, 1.0, None);
        let at = VelocityAt { t: 1.0, guidance, text, rope, text_bias, logit_scale, first_block };
        after = (&noise - transformer.velocity(&noise, &at)?)?;
        Ok(())
    })?;
    report(size, &seconds, cost.flops);
    if arguments.value("--out").is_none() {
        return Ok(());
    }
    let after = if model.saves_unpacked() { sampling::unpack(&after, grid, &facts.latents)? } else { after };
    arguments.save(&[("latents", &after.to_device(&Device::Cpu)?)])
}

/// The folder's transformer, or one of so many random blocks.
fn transformer(arguments: &Arguments, held: DType, device: &Device) -> anyhow::Result<(FluxConfig, Weights)> {
    if let Some(blocks) = arguments.value("--blocks") {
        let (double, single) = blocks.split_once(',').ok_or_else(|| anyhow!("--blocks {blocks}: write it like 1,2"))?;
        return Ok((
            random_weights::config(double.parse()?, single.parse()?),
            random_weights::weights("transformer", held),
        ));
    }
    let folder = arguments.folder()?.join("transformer");
    let config = FluxConfig::read(&folder.join("config.json"))?;
    Ok((config, Weights::new(Arc::new(open_folder(&folder)?), held, device.clone())))
}

/// DY-YaRN's tables of one step.
fn rope(config: &FluxConfig, grid: TokenGrid, device: &Device) -> dype::testing::Result<RopeTables> {
    let scaler = Method::YARN.scaler(Some(DypeSettings::default()));
    RopeTables::new(
        &config.position_ids(grid, TEXT_TOKENS),
        config.base_patches(),
        scaler.as_ref(),
        &Moment::at(0.9),
        device,
    )
}

fn tables(arguments: &Arguments) -> anyhow::Result<()> {
    let (config, size, device) = (FluxConfig::flux1_dev(), arguments.size()?, arguments.device()?);
    let seconds = timed(arguments.number("--runs", 5)?, &device, || {
        Ok(rope(&config, LATENTS.tokens(size), &device).map(|_| ())?)
    })?;
    let forward = forward(&config, &device, (DType::F32, &Weights::absent(DType::BF16)), WeightsMode::Stream, size);
    report(size, &seconds, forward.cost(ForwardOptions::default())?.flops);
    Ok(())
}

/// A folder's decoder with the best way of walking a picture within the memory allowed.
fn decoder(arguments: &Arguments, device: &Device) -> anyhow::Result<(Decoder, kl::Banding)> {
    let folder = arguments.folder()?.join("vae");
    let config = VaeConfig::read(&folder.join("config.json"))?;
    let weights = Weights::new(Arc::new(open_folder(&folder)?), arguments.dtype(), device.clone());
    let (on, size) = ((DeviceKind::of(device), arguments.dtype()), LATENTS.latents(LATENTS.tokens(arguments.size()?)));
    let ways = kl::Ways::new(&config, kl::Side::Decoder, on, size)?;
    Ok((Decoder::open(config, weights)?, ways.best_within(arguments.memory()?)?.options.clone()))
}

fn decode(arguments: &Arguments) -> anyhow::Result<()> {
    let (device, size) = (arguments.device()?, arguments.size()?);
    let (decoder, options) = decoder(arguments, &device)?;
    let latents = Tensor::randn(0f32, 1.0, &LATENTS.latents_shape(LATENTS.tokens(size)), &device)?;
    let seconds = timed(arguments.number("--runs", 1)?, &device, || {
        let mut sum = 0f32;
        decoder.decode(&latents, &options, &Silent, &mut |_, rows| {
            sum += rows.iter().sum::<f32>();
            Ok(())
        })?;
        std::hint::black_box(sum);
        Ok(())
    })?;
    report(size, &seconds, decoder.cost(LATENTS.latents(LATENTS.tokens(size)), &kl::Banding::default())?.flops.into());
    Ok(())
}

fn pixels(arguments: &Arguments) -> anyhow::Result<()> {
    let (device, size) = (arguments.device()?, arguments.size()?);
    let (decoder, options) = decoder(arguments, &device)?;
    let shape = LATENTS.latents_shape(LATENTS.tokens(size));
    let noise = sampling::noise(dype::testing::recipe::Rng::TorchCpu, 1, &shape);
    let latents = Tensor::from_vec(noise, &shape, &device)?;
    let mut pixels = Vec::new();
    decoder.decode(&latents, &options, &Silent, &mut |_, rows| {
        pixels.extend_from_slice(rows);
        Ok(())
    })?;
    let pixels = Tensor::from_vec(pixels, (size.height_px, size.width_px, 3), &Device::Cpu)?;
    arguments.save(&[("latents", &latents.to_device(&Device::Cpu)?), ("pixels", &pixels)])
}

/// FLUX.1's heads, a chunk of queries against all keys of a small picture; the last pieces are no whole tiles.
fn attention(arguments: &Arguments) -> anyhow::Result<()> {
    const HEADS: usize = 24;
    const CHANNELS: usize = 128;
    const QUERIES: usize = 1000;
    const KEYS: usize = 2000;
    let (device, dtype) = (arguments.device()?, arguments.dtype());
    let random = |seed, rows: usize| -> anyhow::Result<Tensor> {
        let noise = sampling::noise(dype::testing::recipe::Rng::TorchCpu, seed, &[HEADS, rows, CHANNELS]);
        Ok(Tensor::from_vec(noise, (HEADS, rows, CHANNELS), &device)?.to_dtype(dtype)?) // [H, N, D]
    };
    let (q, k, v) = (random(1, QUERIES)?, random(2, KEYS)?, random(3, KEYS)?);
    let how = nn::Attention::plain(nn::AttentionTiles { query_rows: 256, heads: 8 });
    let out = nn::attention(&q.clone().into(), &k.clone().into(), &v.clone().into(), &how)?; // [C, H·D]
    arguments.save(&[("q", &q), ("k", &k), ("v", &v), ("out", out.real()?)])
}

fn noise(arguments: &Arguments) -> anyhow::Result<()> {
    let rng: dype::testing::recipe::Rng = arguments.value("--rng").unwrap_or("torch-cuda").parse()?;
    let (seed, count) = (arguments.number("--seed", 42)? as u64, arguments.number("--count", 1 << 20)?);
    let noise = sampling::noise(rng.on(&arguments.device()?)?, seed, &[count]);
    arguments.save(&[("noise", &Tensor::from_vec(noise, count, &Device::Cpu)?)])
}
