//! What a run will need, before it loads anything: work, memory by stage, and the choices that fit it into a budget.

mod fit;
mod speed;

use candle_core::{DType, Device};
use serde::Serialize;

use crate::{
    base::{device::DeviceKind, geometry::ImageSize, memory::Bytes},
    error::{Error, Result},
    models::flux1::{
        self, Compute, Flux1, Forward, ForwardCost, ForwardOptions, WeightsMode, held_dtype, text_cost,
        transformer_tensors,
    },
    models::parts::kl::{Banding, Way},
    models::parts::{ClipEncoder, T5Encoder, clip_tensors, t5_tensors},
    models::{Decode, Model, manifest},
    nn::Ledger,
    weights::{Expected, TensorSource},
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
    /// Elements of the largest tensor; below 2^32 where the device counts in 32 bits.
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
        Self::on(model, task, machine, DeviceKind::of(&machine.device))
    }

    /// The same for the machine with another kind of device: all of it is dry passes, so that a GPU's plan can be made,
    /// and tested, without one.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn on(model: &dyn Model, task: &Task, machine: &Machine, kind: DeviceKind) -> Result<Self> {
        let Some(files) = model.flux1() else { return Err(Error::model("no plan for this kind of model", "")) };
        let budget = machine.budget.map_or(u64::MAX, |bytes| bytes.0);
        let grid = model.facts().latents.tokens(task.size);
        let text = PROCESS_BYTES + text_ledger(files, task, machine, kind)?.peak_bytes();
        if text > budget {
            return Err(too_small("encoding the prompt", text, budget));
        }
        let kept = if kind.is_cpu() { kept_bytes(&[text]) } else { 0 };
        let Denoising { mode, options, cost, peak } = denoise_choice(files, task, machine, (kind, kept), budget)?;
        let decode_kept = if kind.is_cpu() { kept_bytes(&[text, peak - kept]) } else { 0 };
        let (decode, decode_peak) =
            decode_choice(model.decoder(), (kind, machine.dtype), task.size, decode_kept, budget)?;
        let (step_flops, decode_flops) = (cost.flops, decode.cost.flops);
        Ok(Self {
            task: task.clone(),
            image_tokens: grid.count(),
            text_tokens: task.text_tokens,
            step_flops,
            decode_flops,
            total_flops: step_flops.saturating_mul(task.steps as u64).saturating_add(decode_flops),
            weights_bytes: stored_bytes(files)?,
            peak_bytes: StagePeaks { text, denoise: peak, decode: decode_peak },
            budget_bytes: machine.budget.map(|bytes| bytes.0),
            transformer_bytes: cost.weights_bytes,
            weights: match mode {
                WeightsMode::Resident => "resident",
                WeightsMode::Stream => "stream",
            },
            token_chunk: options.token_chunk,
            query_rows: options.query_rows,
            band_rows: decode.options.band_rows,
            largest_tensor_elements: cost.largest_buffer.max(decode.cost.largest_elements),
            choices: Choices { weights: mode, forward: options, decode: decode.options },
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
    let sum = |source: &dyn TensorSource, tensors: Vec<Expected>| {
        tensors.iter().filter_map(|(name, _)| source.bytes(name)).sum()
    };
    let (clip, t5) = (&files.text_encoder, &files.text_encoder_2);
    Ok(WeightsBytes {
        text_encoder: sum(&*clip.source, clip_tensors(&clip.config()?)?),
        text_encoder_2: sum(&*t5.source, t5_tensors(&t5.config()?)?),
        transformer: sum(&*files.transformer.source, transformer_tensors(&files.transformer.config)?),
        vae: sum(&*files.vae.part.source, manifest::decoder(&files.vae.part.config)),
    })
}

/// Both text encoders, over all prompts.
fn text_ledger(files: &Flux1, task: &Task, machine: &Machine, kind: DeviceKind) -> Result<Ledger> {
    // Headers are read, wherever the numbers will go.
    let (dtype, here) = (machine.dtype, &Device::Cpu);
    let clip = ClipEncoder::open(files.text_encoder.config()?, files.text_encoder_weights(dtype, here));
    let t5 = T5Encoder::open(files.text_encoder_2.config()?, files.text_encoder_2_weights(dtype, here));
    text_cost(&clip, &t5, kind, task.prompts, task.text_tokens)
}

/// What the allocator still holds of stages that are over, by their peaks.
fn kept_bytes(stages: &[u64]) -> u64 {
    let freed = stages.iter().map(|peak| peak.saturating_sub(PROCESS_BYTES)).sum::<u64>();
    freed.min(ALLOCATOR_KEEPS_BYTES)
}

/// How the transformer denoises.
struct Denoising {
    mode: WeightsMode,
    options: ForwardOptions,
    cost: ForwardCost,
    /// Everything that is held at the most.
    peak: u64,
}

/// Denoising: resident weights where they fit, streamed ones where not, and pieces that fit into the rest.
fn denoise_choice(
    files: &Flux1,
    task: &Task,
    machine: &Machine,
    (kind, kept): (DeviceKind, u64),
    budget: u64,
) -> Result<Denoising> {
    let config = &files.transformer.config;
    let (image_tokens, text_tokens) = (flux1::LATENTS.tokens(task.size).count(), task.text_tokens);
    let weights = files.transformer_weights(machine.dtype, &Device::Cpu);
    let forward = |mode| Forward {
        config,
        kind,
        compute: Compute::on(kind, machine.dtype),
        held: held_dtype(&weights, kind, machine.dtype),
        mode,
        image_tokens,
        text_tokens,
    };
    // The next latents and their sum, and the prompts that wait for their pictures.
    let waiting = task.prompts.saturating_sub(1) * text_tokens * config.joint_attention_dim;
    let beside = PROCESS_BYTES + kept + (4 * (2 * image_tokens * flux1::LATENTS.token_channels() + waiting)) as u64;
    let fits = || -> Result<bool> {
        let cost = forward(WeightsMode::Resident).cost(ForwardOptions::default())?;
        Ok(beside.saturating_add(cost.peak_bytes()) <= budget)
    };
    let mode = match machine.weights {
        Some(mode) => mode,
        None if fits()? => WeightsMode::Resident,
        None => WeightsMode::Stream,
    };
    match forward(mode).within(budget.saturating_sub(beside)) {
        Ok((options, cost)) => Ok(Denoising { mode, options, cost, peak: beside + cost.peak_bytes() }),
        Err(error) => {
            let least = beside + forward(mode).cost(ForwardOptions::LEAST)?.peak_bytes();
            Err(if least > budget { too_small("a denoising step", least, budget) } else { error })
        }
    }
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
