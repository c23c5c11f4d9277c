//! What a run will need, before it loads anything: work, memory by stage, and the choices that fit it into a budget.

mod fit;
mod speed;

use candle_core::{DType, Device};
use serde::Serialize;

use crate::{
    base::device::DeviceKind,
    base::geometry::ImageSize,
    base::memory::Bytes,
    error::{Error, Result},
    models::flux1::{self, Compute, Flux1, ForwardOptions, WeightsMode, forward_memory_bytes, held_dtype, step_flops},
    models::parts::T5Config,
    models::parts::kl::{Banding, Way},
    models::{Decode, Model, manifest},
    weights::TensorSource,
};

pub use fit::what_fits;
pub use speed::{Speed, SpeedBook};

/// What the process itself takes before any weight is read: threads, configs, tokenizers. Measured with two threads: 52 MB.
const PROCESS_BYTES: u64 = 52_000_000;
/// The most that the allocator keeps for later of what a stage freed; what is larger goes back to the system at once.
/// Measured as what a stage takes beyond its own need: 14 to 25 MB.
const ALLOCATOR_KEEPS_BYTES: u64 = 20_000_000;
/// Share of free memory a run takes when it is not told how much.
const FREE_SHARE: f64 = 0.9;

/// How a run is fitted into its memory. None of it changes the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// How the transformer's weights reach the device.
    pub weights: WeightsMode,
    /// Sizes of the pieces of a forward pass.
    pub forward: ForwardOptions,
    /// How the decoder walks the picture.
    pub decode: Banding,
}

/// What is to be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The picture.
    pub size: ImageSize,
    /// Denoising steps.
    pub steps: usize,
    /// T5 tokens.
    pub text_tokens: usize,
    /// Prompts that are encoded together.
    pub prompts: usize,
}

/// Where it is to be computed, and within how much memory.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The device.
    pub device: Device,
    /// The number type the transformer computes in.
    pub dtype: DType,
    /// The most memory of the device a run may take; `None` where nobody knows what is free.
    pub budget: Option<Bytes>,
    /// Resident or streamed weights, where the user decided.
    pub weights: Option<WeightsMode>,
}

impl Machine {
    /// What `--memory` says, else nearly all that is free on the device now.
    pub fn budget(device: &Device, limit: Option<Bytes>) -> Option<Bytes> {
        limit.or_else(|| free_bytes(device).map(|free| Bytes((free as f64 * FREE_SHARE) as u64)))
    }

    /// The device as `--device` takes it, without its number.
    pub fn device_name(&self) -> &'static str {
        match self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }

    /// Device and number type, such as "cpu f32": the name speeds are kept under.
    pub fn name(&self) -> String {
        format!("{} {}", self.device_name(), self.dtype.as_str())
    }
}

/// What a run needs. All memory is what the program allocates; the memory-mapped files come on top only as cache, which
/// the system takes back when it needs it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What was planned.
    #[serde(skip)]
    pub task: Task,
    /// Image tokens, N.
    pub image_tokens: usize,
    /// T5 tokens.
    pub text_tokens: usize,
    /// Floating point operations of one step.
    pub step_flops: u64,
    /// Floating point operations of the decode.
    pub decode_flops: u64,
    /// Floating point operations of all steps and the decode.
    pub total_flops: u64,
    /// Bytes of the weights, as the files hold them.
    pub weights_bytes: WeightsBytes,
    /// Peak memory of each stage.
    pub peak_bytes: StagePeaks,
    /// The memory it was fitted into.
    pub budget_bytes: Option<u64>,
    /// Memory that the transformer holds between steps: its resident weights, or what is not streamed of them.
    pub transformer_bytes: u64,
    /// Whether weights are resident or streamed.
    pub weights: &'static str,
    /// Tokens that pass through a block at once.
    pub token_chunk: usize,
    /// Queries of one piece of attention.
    pub query_rows: usize,
    /// Rows of a band of the decoder.
    pub band_rows: usize,
    /// Elements of the largest tensor; always below 2^32.
    pub largest_tensor_elements: u64,
    /// The choices themselves.
    #[serde(skip)]
    pub choices: Choices,
}

/// Bytes of each part's weights, as its files hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WeightsBytes {
    /// CLIP.
    pub text_encoder: u64,
    /// T5.
    pub text_encoder_2: u64,
    /// The transformer.
    pub transformer: u64,
    /// The autoencoder.
    pub vae: u64,
}

/// Peak memory of each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StagePeaks {
    /// Prompts to embeddings.
    pub text: u64,
    /// Noise to latents.
    pub denoise: u64,
    /// Latents to pixels.
    pub decode: u64,
}

impl StagePeaks {
    /// The peak of the run.
    pub fn most(&self) -> u64 {
        self.text.max(self.denoise).max(self.decode)
    }
}

impl Plan {
    /// Plans a picture with a model on a machine. Reads headers only.
    ///
    /// # Errors
    /// [`Error::Memory`] when the budget is below the least that would do.
    pub fn new(model: &dyn Model, task: &Task, machine: &Machine) -> Result<Self> {
        Self::on(model, task, machine, machine.device.is_cpu())
    }

    /// The same for the machine with another kind of device: all of it is arithmetic, so that a GPU's plan can be made,
    /// and tested, without one.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn on(model: &dyn Model, task: &Task, machine: &Machine, is_cpu: bool) -> Result<Self> {
        let Some(files) = model.flux1() else { return Err(Error::model("no plan for this kind of model", "")) };
        let budget = machine.budget.map_or(u64::MAX, |bytes| bytes.0);
        let grid = model.facts().latents.tokens(task.size);
        let text = text_bytes(files, task, machine)?;
        if text > budget {
            return Err(too_small("encoding the prompt", text, budget));
        }
        let kept = if is_cpu { kept_bytes(&[text]) } else { 0 };
        let (weights, forward, denoise) = denoise_choice(files, task, machine, (is_cpu, kept), budget)?;
        let transformer_bytes = match weights {
            WeightsMode::Resident => resident_bytes(files, machine, is_cpu),
            WeightsMode::Stream => streamed_bytes(files, machine, is_cpu),
        };
        // Of a card, only that it is none of ours that computes.
        let kind = if is_cpu { DeviceKind::Cpu } else { DeviceKind::Cuda { capability: (8, 0) } };
        let kept = if is_cpu { kept_bytes(&[text, denoise - kept]) } else { 0 };
        let (decode, decode_peak) = decode_choice(model.decoder(), (kind, machine.dtype), task.size, kept, budget)?;
        let config = &files.transformer.config;
        let step_flops = step_flops(config, grid.count(), task.text_tokens);
        let decode_flops = decode.cost.flops;
        Ok(Self {
            task: task.clone(),
            image_tokens: grid.count(),
            text_tokens: task.text_tokens,
            step_flops,
            decode_flops,
            total_flops: step_flops.saturating_mul(task.steps as u64).saturating_add(decode_flops),
            weights_bytes: stored_bytes(files)?,
            peak_bytes: StagePeaks { text, denoise, decode: decode_peak },
            budget_bytes: machine.budget.map(|bytes| bytes.0),
            transformer_bytes,
            weights: match weights {
                WeightsMode::Resident => "resident",
                WeightsMode::Stream => "stream",
            },
            token_chunk: forward.token_chunk,
            query_rows: forward.query_rows,
            band_rows: decode.options.band_rows,
            largest_tensor_elements: largest_elements(files, task, &forward).max(decode.cost.largest_elements),
            choices: Choices { weights, forward, decode: decode.options },
        })
    }
}

impl Plan {
    /// Whether the transformer can stay in memory while a stage with this peak (see [`Plan::peak_bytes`]) works.
    pub fn holds_transformer_beside(&self, peak_bytes: u64) -> bool {
        self.budget_bytes.is_none_or(|budget| self.transformer_bytes.saturating_add(peak_bytes) <= budget)
    }
}

/// What a run reads of each part: every tensor once, whatever other names or tensors its file holds.
fn stored_bytes(files: &Flux1) -> Result<WeightsBytes> {
    let sum = |source: &dyn TensorSource, tensors: Vec<manifest::Expected>| {
        tensors.iter().filter_map(|(name, _)| source.bytes(name)).sum()
    };
    let (clip, t5) = (&files.text_encoder, &files.text_encoder_2);
    Ok(WeightsBytes {
        text_encoder: sum(&*clip.source, manifest::clip(&clip.config()?)),
        text_encoder_2: sum(&*t5.source, manifest::t5(&t5.config()?)),
        transformer: sum(&*files.transformer.source, manifest::transformer(&files.transformer.config)),
        vae: sum(&*files.vae.part.source, manifest::decoder(&files.vae.part.config)),
    })
}

/// Text: two blocks of T5 (the one at work and the next), and the activations of every prompt.
fn text_bytes(files: &Flux1, task: &Task, machine: &Machine) -> Result<u64> {
    let config: T5Config = files.text_encoder_2.config()?;
    let weights = files.text_encoder_2_weights(machine.dtype, &machine.device);
    let block = weights.pp("encoder.block").pp(0).elements() * machine.dtype.size_in_bytes() as u64;
    let tokens = task.text_tokens as u64;
    let scores = 3 * config.num_heads as u64 * tokens * tokens * 4;
    let activations = tokens * (4 * config.d_model + 3 * config.d_ff) as u64 * 4;
    Ok(PROCESS_BYTES + 2 * block + scores + activations + embeddings_bytes(config.d_model, task))
}

/// What the allocator still holds of stages that are over, by their peaks.
fn kept_bytes(stages: &[u64]) -> u64 {
    let freed = stages.iter().map(|peak| peak.saturating_sub(PROCESS_BYTES)).sum::<u64>();
    freed.min(ALLOCATOR_KEEPS_BYTES)
}

/// What T5 gives for all prompts that are encoded together.
fn embeddings_bytes(width: usize, task: &Task) -> u64 {
    (task.prompts * task.text_tokens * width * 4) as u64
}

/// Denoising: resident weights where they fit, streamed ones where not, and pieces that fit into the rest.
fn denoise_choice(
    files: &Flux1,
    task: &Task,
    machine: &Machine,
    (is_cpu, kept): (bool, u64),
    budget: u64,
) -> Result<(WeightsMode, ForwardOptions, u64)> {
    let config = &files.transformer.config;
    let compute = Compute::on_kind(is_cpu, machine.dtype);
    let (image_tokens, text_tokens) = (flux1::LATENTS.tokens(task.size).count(), task.text_tokens);
    let resident = PROCESS_BYTES + kept + resident_bytes(files, machine, is_cpu);
    let streamed = PROCESS_BYTES + kept + streamed_bytes(files, machine, is_cpu);
    let need = |options: &ForwardOptions| {
        forward_memory_bytes(config, image_tokens, text_tokens, compute, options)
            // The latents, their velocity and the next latents, and the prompts that wait for their pictures.
            + 3 * (image_tokens * flux1::LATENTS.token_channels() * 4) as u64
            + embeddings_bytes(config.joint_attention_dim, task)
    };
    let default = ForwardOptions::default();
    let fits = resident.saturating_add(need(&default)) <= budget;
    let mode = machine.weights.unwrap_or(if fits { WeightsMode::Resident } else { WeightsMode::Stream });
    let held = match mode {
        WeightsMode::Resident => resident,
        WeightsMode::Stream => streamed,
    };
    let activations = budget.saturating_sub(held);
    let options = ForwardOptions::for_budget(config, image_tokens, text_tokens, compute, activations)
        .map_err(|_| too_small("a denoising step", held + need(&least_forward()), budget))?;
    Ok((mode, options, held + need(&options)))
}

/// The smallest pieces [`ForwardOptions::for_budget`] goes down to.
fn least_forward() -> ForwardOptions {
    ForwardOptions { token_chunk: 128, query_rows: 128, heads: 1 }
}

fn resident_bytes(files: &Flux1, machine: &Machine, is_cpu: bool) -> u64 {
    let weights = files.transformer_weights(machine.dtype, &machine.device);
    weights.elements() * held_dtype(&weights, is_cpu, machine.dtype).size_in_bytes() as u64
}

/// Everything outside the blocks, and two of the largest blocks.
fn streamed_bytes(files: &Flux1, machine: &Machine, is_cpu: bool) -> u64 {
    let weights = files.transformer_weights(machine.dtype, &machine.device);
    let (double, single) = (weights.pp("transformer_blocks"), weights.pp("single_transformer_blocks"));
    let outside = weights.elements() - double.elements() - single.elements();
    let block = double.pp(0).elements().max(single.pp(0).elements());
    (outside + 2 * block) * held_dtype(&weights, is_cpu, machine.dtype).size_in_bytes() as u64
}

/// Decoding: the way with the least work that fits into `budget` bytes, and its peak with the picture's own bytes
/// and the `kept` ones that earlier stages left with the allocator.
///
/// # Errors
/// [`Error::Memory`] when none fits.
pub fn decode_choice(
    decoder: &dyn Decode,
    on: (DeviceKind, DType),
    size: ImageSize,
    kept: u64,
    budget: u64,
) -> Result<(Way, u64)> {
    let geometry = decoder.geometry();
    let grid = geometry.tokens(size);
    let size = geometry.image(grid);
    let picture = PROCESS_BYTES + kept + 3 * (size.height_px * size.width_px) as u64;
    let ways = decoder.ways(on, geometry.latents(grid))?;
    let peak = |way: &Way| picture + way.cost.memory_bytes;
    let best = ways.best(budget.saturating_sub(picture));
    let least = || too_small("decoding", ways.least().map_or(picture, peak), budget);
    best.map(|way| (way.clone(), peak(way))).ok_or_else(least)
}

/// Numbers in the transformer's largest tensor.
fn largest_elements(files: &Flux1, task: &Task, forward: &ForwardOptions) -> u64 {
    let hidden = files.transformer.config.hidden_size() as u64;
    let tokens = (flux1::LATENTS.tokens(task.size).count() + task.text_tokens) as u64;
    // The widest projection: a single block's feed-forward half, four times the stream's width.
    let widest = forward.token_chunk as u64 * 4 * hidden;
    (tokens * hidden).max(widest).max(forward.scores_elements(&files.transformer.config, tokens))
}

fn too_small(what: &str, least: u64, budget: u64) -> Error {
    let what = format!("{what} takes at least {} and may take {}", Bytes(least), Bytes(budget));
    let hint = format!(
        "allow --memory {} or more, or ask for a smaller picture",
        Bytes(least.div_ceil(100_000_000) * 100_000_000).flag()
    );
    Error::Memory { what, hint }
}

#[cfg(feature = "cuda")]
fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        Device::Cuda(_) => {
            candle_core::cuda_backend::cudarc::driver::result::mem_get_info().ok().map(|(free, _)| free as u64)
        }
        Device::Cpu | Device::Metal(_) => crate::base::memory::available_bytes(),
    }
}

#[cfg(not(feature = "cuda"))]
fn free_bytes(_device: &Device) -> Option<u64> {
    crate::base::memory::available_bytes()
}
