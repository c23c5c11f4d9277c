//! What a run will need, before it loads anything: work, memory by stage, and the choices that fit it into a budget.

mod autoencoder;
mod denoising;
mod fit;
mod ladder;
mod machine;
mod peaks;
mod process;
mod speed;

use std::collections::BTreeMap;

use candle_core::DType;
use serde::{Serialize, Serializer};

use crate::{
    base::{device::DeviceKind, geometry::ImageSize},
    error::Result,
    models::{Banding, ForwardOptions, Model, NetworkBytes, Way},
    nn::{CodeProducts, WeightsMode},
    recipe::{SamplerName, StepCache},
};

use denoising::{Denoising, Steps};
use ladder::{ALONE, Beside};
use process::too_small;

pub use autoencoder::{Encoding, PIXEL_BYTES, decode_choice, no_encoder};
pub use fit::what_fits;
pub use ladder::enlarging;
pub use machine::Machine;
pub use peaks::StagePeaks;
pub use process::Process;
pub use speed::{Amount, Estimate, SpeedBook, Stage, Took};

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
    /// Which products are of codes.
    pub products: CodeProducts,
}

impl Task {
    /// Of a picture from a prompt alone, as usual.
    pub fn new(size: ImageSize, steps: usize, text_tokens: usize) -> Self {
        Self {
            size,
            steps,
            text_tokens,
            prompts: 1,
            cfg: false,
            encoding: None,
            sampler: SamplerName::default(),
            cache: StepCache::default(),
            products: CodeProducts::NONE,
        }
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

/// What a run needs. All memory is what the program allocates; the memory-mapped files come on top only as cache, which
/// the system takes back when it needs it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What was planned.
    #[serde(skip)]
    pub task: Task,
    /// What computes it, and in which numbers, such as "cpu f32, 8 threads".
    pub machine: String,
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
    /// The same without what the process holds for itself and its allocator keeps; of the last pass, where there are several.
    #[serde(skip)]
    pub need_bytes: StagePeaks,
    /// The memory it was fitted into.
    pub budget_bytes: Option<u64>,
    /// Memory that the transformer holds between steps: its resident weights, or what is not streamed of them.
    pub transformer_bytes: u64,
    /// Whether weights are resident, streamed, or the one in part and the other in part.
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

impl Plan {
    /// Plans a picture with a model on a machine. Reads headers only.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] when the budget is below the least that would do.
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
        let on = (kind, machine.dtype);
        let (text_need, text) = text_stage(model, task, on)?;
        if text > budget {
            return Err(too_small("encoding the prompt", text, budget));
        }
        let process = Process::on(kind);
        let encode = autoencoder::encode_choice(model, task, on, (process, beside.encode_bytes), budget)?;
        let denoise = Steps::new(model, (task, beside), on, process)?.within(machine.weights, budget)?;
        let picture = (task.size, beside.pixel_bytes);
        let decode = decode_choice(model.decoder(), on, picture, (process, beside.decode_bytes), budget)?;
        let need_bytes = StagePeaks {
            text: text_need,
            encode: encode.as_ref().map(|chosen| chosen.need),
            denoise: denoise.need,
            decode: decode.need,
        };
        let encode_peak = encode.as_ref().map(|chosen| chosen.peak);
        let peak_bytes = StagePeaks { text, encode: encode_peak, denoise: denoise.peak, decode: decode.peak };
        let ways = (encode.map(|chosen| chosen.way), decode.way);
        Self::of_choices((model, machine), task, denoise, ways, [need_bytes, peak_bytes])
    }

    /// Of what was chosen for its stages; the autoencoder's ways are those of the encode and of the decode.
    fn of_choices(
        (model, machine): (&dyn Model, &Machine),
        task: &Task,
        Denoising { mode, options, cost, .. }: Denoising,
        (encode, decode): (Option<Way>, Way),
        [need_bytes, peak_bytes]: [StagePeaks; 2],
    ) -> Result<Self> {
        let passes = task.passes() as u128;
        let (step_flops, decode_flops) = (cost.flops * passes, decode.cost.flops);
        let encode_flops = encode.as_ref().map(|way| way.cost.flops);
        let autoencoder_flops = u128::from(decode_flops) + u128::from(encode_flops.unwrap_or(0));
        let largest = encode.iter().chain([&decode]).map(|way| way.cost.largest_elements);
        Ok(Self {
            task: task.clone(),
            machine: machine.name_for(task),
            image_tokens: model.facts().latents.tokens(task.size).count(),
            text_tokens: task.text_tokens,
            passes: task.passes(),
            evaluations: Some(task.evaluations()).filter(|count| *count != task.steps),
            step_flops,
            encode_flops,
            decode_flops,
            attention_flops: [
                cost.attention_flops * passes,
                encode.as_ref().map_or(0, |way| way.cost.attention_flops.into()),
                decode.cost.attention_flops.into(),
            ],
            total_flops: step_flops * task.evaluations() as u128 + autoencoder_flops,
            weights_bytes: model.weights_bytes()?,
            peak_bytes,
            need_bytes,
            budget_bytes: machine.budget.map(|bytes| bytes.0),
            transformer_bytes: cost.weights_bytes,
            weights: mode.name(),
            token_chunk: options.token_chunk,
            query_rows: options.query_rows,
            band_rows: decode.options.band_rows,
            largest_tensor_elements: largest.fold(cost.largest_buffer, u64::max),
            choices: Choices {
                weights: mode,
                forward: options,
                decode: decode.options,
                encode: encode.map(|way| way.options),
            },
            below: Vec::new(),
        })
    }

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

/// What encoding the prompts needs, and the peak of it.
fn text_stage(model: &dyn Model, task: &Task, on: (DeviceKind, DType)) -> Result<(u64, u64)> {
    let need = model.text_bytes(on, task.prompts, task.text_tokens)?;
    Ok((need, Process::on(on.0).peak(need)))
}
