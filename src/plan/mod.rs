//! What a run will need, before it loads anything: work, memory by stage, and the choices that fit it into a budget.

mod autoencoder;
mod fit;
mod ladder;
mod speed;

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use serde::{Serialize, Serializer};

use crate::{
    base::{device::DeviceKind, geometry::ImageSize, memory::Bytes},
    error::{Error, Result},
    models::{Banding, FirstBlock, ForwardCost, ForwardOptions, Model, NetworkBytes, Way},
    nn::{Compute, WeightsMode},
    recipe::{SamplerName, StepCache},
};

use ladder::{ALONE, Beside};

pub use autoencoder::{Encoding, decode_choice, no_encoder};
pub use fit::what_fits;
pub use ladder::enlarging;
pub use speed::{Amount, Estimate, SpeedBook, Stage, Took};

/// What the process itself takes before any weight is read: configs, tokenizers, the program's own data.
const PROCESS_BYTES: u64 = 30_000_000;
/// What each thread that computes keeps for itself: its part of the allocator, its panels of products. Measured with 2, 8, 16 and
/// 32 threads: 7 to 4 MB.
const THREAD_BYTES: u64 = 6_000_000;
/// The most that the allocator keeps for later of what was freed; what is larger goes back to the system at once.
/// Measured as what a run takes beyond the need of its stages: 12 MB at 64 px, up to 40 MB at 512 px, 20 MB at 1024 px.
const ALLOCATOR_KEEPS_BYTES: u64 = 35_000_000;
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
    /// How the encoder walks one, where a picture is encoded.
    pub encode: Option<Banding>,
}

/// What is to be planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The picture.
    pub size: ImageSize,
    /// Denoising steps that are done.
    pub steps: usize,
    /// Tokens of text.
    pub text_tokens: usize,
    /// Prompts that are encoded together.
    pub prompts: usize,
    /// Whether classifier-free guidance is on: each step is two forward passes, and has two prompts.
    pub cfg: bool,
    /// The picture of this size that is encoded first, if one is.
    pub encoding: Option<Encoding>,
    /// What follows the velocities.
    pub sampler: SamplerName,
    /// What may skip steps. Work is planned as if it skipped none.
    pub cache: StepCache,
}

impl Task {
    /// Of a picture from a prompt alone, as usual.
    pub fn new(size: ImageSize, steps: usize, text_tokens: usize) -> Self {
        let (sampler, cache) = (SamplerName::default(), StepCache::default());
        Self { size, steps, text_tokens, prompts: 1, cfg: false, encoding: None, sampler, cache }
    }

    /// Evaluations of the velocity in all steps.
    pub fn evaluations(&self) -> usize {
        self.sampler.evaluations(self.steps)
    }

    /// Forward passes of an evaluation.
    pub fn passes(&self) -> usize {
        1 + usize::from(self.cfg)
    }
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

    /// The same machine where limits of the process leave this much, if it has any, once the model's files are mapped; and whether
    /// it is those limits that leave no more.
    pub fn within(&self, process_bytes: Option<u64>) -> (Self, bool) {
        let left = process_bytes.map(|bytes| Bytes((bytes as f64 * FREE_SHARE) as u64));
        let budget = [self.budget, left].into_iter().flatten().min();
        // The budget may come from the same limits, a moment ago: then a little more or less was in use.
        let is_near = |left: Bytes| budget.is_some_and(|budget| left.0 <= budget.0.saturating_add(budget.0 / 4));
        (Self { budget, ..self.clone() }, left.is_some_and(is_near))
    }

    /// The device as `--device` takes it, without its number.
    pub fn device_name(&self) -> &'static str {
        match self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }

    /// Device and number type, such as "cuda bf16" or "cpu f32, 8 threads": the name speeds are kept under.
    pub fn name(&self) -> String {
        let name = format!("{} {}", self.device_name(), self.dtype.as_str());
        if self.device.is_cpu() { format!("{name}, {} threads", rayon::current_num_threads()) } else { name }
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
    /// Tokens of text.
    pub text_tokens: usize,
    /// Forward passes of one evaluation, where they are several: with classifier-free guidance.
    #[serde(skip_serializing_if = "is_one")]
    pub passes: usize,
    /// Evaluations of all steps, where they are not one a step: with samplers of second order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<usize>,
    /// Floating point operations of one evaluation of the velocity; a step of most samplers is one.
    #[serde(serialize_with = "as_number")]
    pub step_flops: u128,
    /// Floating point operations of encoding a picture, where one is encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode_flops: Option<u64>,
    /// Floating point operations of the decode.
    pub decode_flops: u64,
    /// Those of an evaluation, of the encode and of the decode that are attention's.
    #[serde(skip)]
    pub attention_flops: [u128; 3],
    /// Floating point operations of all steps and of the autoencoder.
    #[serde(serialize_with = "as_number")]
    pub total_flops: u128,
    /// Bytes of the weights, as the files hold them.
    #[serde(serialize_with = "by_part")]
    pub weights_bytes: Vec<NetworkBytes>,
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
    /// The passes before the last, where there are several; the rest is about that one, but for peaks and all work.
    #[serde(skip)]
    pub below: Vec<Self>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_one(count: &usize) -> bool {
    *count == 1
}

/// A count as a number of JSON: exact where that has 64 bits for it, else the nearest.
fn as_number<S: Serializer>(count: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    match u64::try_from(*count) {
        Ok(count) => serializer.serialize_u64(count),
        Err(_) => serializer.serialize_f64(*count as f64),
    }
}

/// An object of bytes by part.
fn by_part<S: Serializer>(networks: &[NetworkBytes], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: BTreeMap<_, _> = networks.iter().map(|network| (network.part, network.bytes)).collect();
    bytes.serialize(serializer)
}

/// Peak memory of each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StagePeaks {
    /// Prompts to embeddings.
    pub text: u64,
    /// A picture to latents, where one is encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode: Option<u64>,
    /// Noise to latents.
    pub denoise: u64,
    /// Latents to pixels.
    pub decode: u64,
}

impl StagePeaks {
    /// The peak of the run.
    pub fn most(&self) -> u64 {
        self.text.max(self.encode.unwrap_or(0)).max(self.denoise).max(self.decode)
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
        Self::of_pass((model, kind), task, &ALONE, machine)
    }

    /// A pass with what is held beside it.
    fn of_pass(
        (model, kind): (&dyn Model, DeviceKind),
        task: &Task,
        beside: &Beside,
        machine: &Machine,
    ) -> Result<Self> {
        let budget = machine.budget.map_or(u64::MAX, |bytes| bytes.0);
        let grid = model.facts().latents.tokens(task.size);
        let (text_need, text) = text_stage(model, task, (kind, machine.dtype))?;
        if text > budget {
            return Err(too_small("encoding the prompt", text, budget));
        }
        let kept = Kept::of(kind, text_need);
        let room = budget.saturating_sub(beside.held_bytes);
        let encode = autoencoder::encode_choice(model, task, (kind, machine.dtype), kept, room)?;
        let encode = encode.map(|(way, peak)| (way, peak + beside.held_bytes));
        let Denoising { mode, options, cost, need, peak } =
            denoise_choice(model, (task, beside), machine, (kind, kept), budget)?;
        let kept = Kept::of(kind, text_need + need);
        let picture = (task.size, beside.pixel_bytes);
        let (decode, decode_peak) =
            autoencoder::decode_choice_of(model.decoder(), (kind, machine.dtype), picture, kept, room)?;
        let decode_peak = decode_peak + beside.held_bytes;
        let (step_flops, decode_flops) = (cost.flops * task.passes() as u128, decode.cost.flops);
        let (encode, encode_peak) = encode.unzip();
        let encode_flops = encode.as_ref().map(|way| way.cost.flops);
        let autoencoder_flops = u128::from(decode_flops) + u128::from(encode_flops.unwrap_or(0));
        Ok(Self {
            task: task.clone(),
            image_tokens: grid.count(),
            text_tokens: task.text_tokens,
            passes: task.passes(),
            evaluations: Some(task.evaluations()).filter(|count| *count != task.steps),
            step_flops,
            encode_flops,
            decode_flops,
            attention_flops: [
                cost.attention_flops * task.passes() as u128,
                encode.as_ref().map_or(0, |way| way.cost.attention_flops.into()),
                decode.cost.attention_flops.into(),
            ],
            total_flops: step_flops * task.evaluations() as u128 + autoencoder_flops,
            weights_bytes: model.weights_bytes()?,
            peak_bytes: StagePeaks { text, encode: encode_peak, denoise: peak, decode: decode_peak },
            budget_bytes: machine.budget.map(|bytes| bytes.0),
            transformer_bytes: cost.weights_bytes,
            weights: match mode {
                WeightsMode::Resident => "resident",
                WeightsMode::Stream => "stream",
            },
            token_chunk: options.token_chunk,
            query_rows: options.query_rows,
            band_rows: decode.options.band_rows,
            largest_tensor_elements: cost.largest_buffer.max(largest_elements(&[Some(&decode), encode.as_ref()])),
            choices: Choices {
                weights: mode,
                forward: options,
                decode: decode.options,
                encode: encode.map(|way| way.options),
            },
            below: Vec::new(),
        })
    }
}

impl StagePeaks {
    /// The least that each stage of a task takes with weights in this mode, whatever it costs in time: a budget below it is refused,
    /// one a little above it serves.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    pub fn least(model: &dyn Model, task: &Task, on: (DeviceKind, DType), mode: WeightsMode) -> Result<Self> {
        let (kind, latents) = (on.0, &model.facts().latents);
        let grid = latents.tokens(task.size);
        let tokens = [grid.count(), task.text_tokens];
        let (text_need, text) = text_stage(model, task, on)?;
        let cost = model.step_cost(on, mode, tokens, ForwardOptions::LEAST)?;
        let need = beside_bytes(model, task, on, tokens)?.saturating_add(cost.peak_bytes());
        let denoise = process_bytes(kind) + Kept::of(kind, text_need).with(need);
        let geometry = model.decoder().geometry();
        let ways = model.decoder().ways(on, geometry.latents(grid))?;
        let size = geometry.image(grid);
        let picture = 3 * (size.height_px * size.width_px) as u64;
        let least = picture + ways.least().map_or(0, |way| way.cost.memory_bytes);
        let decode = process_bytes(kind) + Kept::of(kind, text_need + need).with(least);
        Ok(Self { text, encode: None, denoise, decode })
    }
}

impl Plan {
    /// The work of so many evaluations.
    pub fn denoising(&self, evaluations: usize) -> Amount {
        let evaluations = evaluations as u128;
        self.amount(Stage::Denoise, self.step_flops * evaluations, self.attention_flops[0] * evaluations)
    }

    /// The work of the decode.
    pub fn decoding(&self) -> Amount {
        self.amount(Stage::Decode, self.decode_flops.into(), self.attention_flops[2])
    }

    /// The work of everything: the steps, the decode, and the encode where there is one, which is work like the decode's.
    pub fn all_amounts(&self) -> Vec<Amount> {
        let below = self.below.iter().flat_map(Self::all_amounts);
        let own = [self.denoising(self.task.evaluations()), self.decoding()];
        below.chain(own).chain(self.encode_amount()).collect()
    }

    /// The work of the encode, where there is one.
    pub fn encode_amount(&self) -> Option<Amount> {
        let of_encode = self.attention_flops[1];
        self.encode_flops.map(|flops| self.amount(Stage::Decode, flops.into(), of_encode))
    }

    fn amount(&self, stage: Stage, flops: u128, attention_flops: u128) -> Amount {
        Amount { stage, tokens: self.image_tokens, flops, attention_flops }
    }

    /// Whether the transformer can stay in memory while a stage with this peak (see [`Plan::peak_bytes`]) works.
    pub fn holds_transformer_beside(&self, peak_bytes: u64) -> bool {
        self.budget_bytes.is_none_or(|budget| self.transformer_bytes.saturating_add(peak_bytes) <= budget)
    }
}

fn largest_elements(ways: &[Option<&Way>]) -> u64 {
    ways.iter().flatten().map(|way| way.cost.largest_elements).max().unwrap_or(0)
}

/// What the process takes beside its stages, where this kind of device computes.
fn process_bytes(kind: DeviceKind) -> u64 {
    let threads = if kind.is_cpu() { rayon::current_num_threads() as u64 } else { 0 };
    PROCESS_BYTES + THREAD_BYTES * threads
}

/// What the allocator of a stage holds beyond what the stage needs.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// What earlier stages freed; `None` where freed memory goes back at once.
    freed: Option<u64>,
}

impl Kept {
    /// On this kind of device, after stages that needed this much.
    pub fn of(kind: DeviceKind, freed: u64) -> Self {
        Self { freed: kind.is_cpu().then_some(freed) }
    }

    /// What a stage holds that needs this much: what was freed before it, and half as much again of its own, which comes
    /// and goes in many sizes; never more than the allocator keeps.
    fn with(self, need: u64) -> u64 {
        let kept = self.freed.map_or(0, |freed| (freed + need / 2).min(ALLOCATOR_KEEPS_BYTES));
        need.saturating_add(kept)
    }

    /// The most that a stage may need whose `with` has to stay below these bytes.
    fn most(self, bytes: u64) -> u64 {
        let Some(freed) = self.freed else { return bytes };
        bytes.saturating_sub(ALLOCATOR_KEEPS_BYTES).max(bytes.saturating_sub(freed) / 3 * 2)
    }
}

/// How the transformer denoises.
struct Denoising {
    mode: WeightsMode,
    options: ForwardOptions,
    cost: ForwardCost,
    /// What the stage needs at the most.
    need: u64,
    /// Everything that is held at the most.
    peak: u64,
}

/// Denoising: resident weights where they fit, streamed ones where not, and pieces that fit into the rest.
fn denoise_choice(
    model: &dyn Model,
    (task, along): (&Task, &Beside),
    machine: &Machine,
    (kind, kept): (DeviceKind, Kept),
    budget: u64,
) -> Result<Denoising> {
    let (latents, on) = (&model.facts().latents, (kind, machine.dtype));
    let tokens = [latents.tokens(task.size).count(), task.text_tokens];
    let cost = |mode, pieces| model.step_cost(on, mode, tokens, pieces);
    let beside = beside_bytes(model, task, on, tokens)? + along.held_bytes;
    // A velocity is led when what the pass worked with is gone.
    let needs = |cost: &ForwardCost| {
        beside.saturating_add(cost.peak_bytes().max(cost.weights_bytes + cost.input_bytes + along.led_bytes))
    };
    let peak = |need: u64| kept.with(need).saturating_add(process_bytes(kind));
    let fits = || -> Result<bool> {
        let cost = cost(WeightsMode::Resident, ForwardOptions::default())?;
        Ok(peak(needs(&cost)) <= budget)
    };
    let mode = match machine.weights {
        Some(mode) => mode,
        None if fits()? => WeightsMode::Resident,
        None => WeightsMode::Stream,
    };
    let room = kept.most(budget.saturating_sub(process_bytes(kind))).saturating_sub(beside);
    match model.step_within(on, mode, tokens, room) {
        Ok((options, cost)) => {
            let need = needs(&cost);
            Ok(Denoising { mode, options, cost, need, peak: peak(need) })
        }
        Err(error) => {
            let least = peak(needs(&cost(mode, ForwardOptions::LEAST)?));
            Err(if least > budget { too_small("a denoising step", least, budget) } else { error })
        }
    }
}

/// What encoding the prompts needs, and the peak of it.
fn text_stage(model: &dyn Model, task: &Task, on: (DeviceKind, DType)) -> Result<(u64, u64)> {
    let need = model.text_bytes(on, task.prompts, task.text_tokens)?;
    Ok((need, process_bytes(on.0) + Kept::of(on.0, 0).with(need)))
}

/// What a step holds beside a forward pass: the next latents and their sum, the prompts that wait for their pictures, and what is
/// carried from step to step. With classifier-free guidance the velocity with the prompt waits for the other.
fn beside_bytes(model: &dyn Model, task: &Task, on: (DeviceKind, DType), tokens: [usize; 2]) -> Result<u64> {
    let waiting = task.prompts.saturating_sub(1) as u64 * model.conditioning_bytes(task.text_tokens);
    let latents_bytes = (4 * tokens[0] * model.facts().latents.token_channels()) as u64;
    let guided = if task.cfg { latents_bytes + table_bytes(model, tokens) } else { 0 };
    let carried = latents_bytes * task.sampler.tensors() as u64 + cache_bytes(model, task, on, latents_bytes)?;
    Ok(2 * latents_bytes + waiting + guided + carried)
}

/// Bytes of what a step cache keeps for each prompt, and beside it within a step.
///
/// # Errors
/// [`Error::Request`] for one that the model's blocks do not offer.
fn cache_bytes(model: &dyn Model, task: &Task, (kind, dtype): (DeviceKind, DType), latents_bytes: u64) -> Result<u64> {
    let prompts = task.passes() as u64;
    let threshold = match task.cache {
        StepCache::Off => return Ok(0),
        // Latents and velocity of the last computed step.
        StepCache::Easy(_) => return Ok(2 * prompts * latents_bytes),
        StepCache::FirstBlock(threshold) => threshold,
    };
    let Some(channels) = model.first_block_channels() else {
        let what = format!("--cache first-block:{threshold}: this kind of model cannot leave blocks out");
        return Err(Error::request(what, "--cache 0.2 (EasyCache) asks nothing of a model"));
    };
    let tokens = model.facts().latents.tokens(task.size).count();
    let [kept, within] = FirstBlock::bytes(tokens, channels, Compute::on(kind, dtype).dtype);
    Ok(prompts * kept + within)
}

/// Bytes of the position tables of so many tokens: a method that stays the same keeps them for each prompt of classifier-free
/// guidance.
fn table_bytes(model: &dyn Model, tokens: [usize; 2]) -> u64 {
    let pairs: usize = model.facts().axes.iter().map(|axis| axis.dim / 2).sum();
    (4 * 2 * pairs * tokens.iter().sum::<usize>()) as u64
}

fn too_small(what: &str, least: u64, budget: u64) -> Error {
    let what = format!("{what} takes at least {} and may take {}", Bytes(least), Bytes(budget));
    let hint = format!(
        "allow --memory {} or more where the machine and its container have it, or ask for a smaller picture",
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
