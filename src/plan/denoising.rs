//! The transformer's part of a plan: how its weights reach the device, and the pieces of a forward pass.

use candle_core::DType;

use super::{
    Task,
    ladder::Beside,
    process::{Process, too_small},
};
use crate::{
    base::device::DeviceKind,
    error::{Error, Result},
    models::{ForwardCost, ForwardOptions, Model, StepShape},
    nn::WeightsMode,
    recipe::StepCache,
};

/// More blocks than any transformer has: all of them.
const ALL_BLOCKS: usize = 256;

/// How the transformer denoises.
pub(super) struct Denoising {
    pub(super) mode: WeightsMode,
    pub(super) options: ForwardOptions,
    pub(super) cost: ForwardCost,
    /// What the stage needs at the most.
    pub(super) need: u64,
    /// Everything that is held at the most.
    pub(super) peak: u64,
}

/// The steps of a task on a kind of device, however they are done.
pub(super) struct Steps<'a> {
    model: &'a dyn Model,
    on: (DeviceKind, DType),
    /// What each works on.
    shape: StepShape,
    /// Bytes that are held beside a forward pass.
    beside: u64,
    /// Bytes that are held while a velocity is led.
    led: u64,
    process: Process,
}

impl<'a> Steps<'a> {
    /// Those of a pass, in this process.
    ///
    /// # Errors
    /// [`Error::Request`] for a step cache that the model does not offer.
    pub(super) fn new(
        model: &'a dyn Model,
        (task, along): (&Task, &Beside),
        on: (DeviceKind, DType),
        process: Process,
    ) -> Result<Self> {
        let tokens = [model.facts().latents.tokens(task.size).count(), task.text_tokens];
        let shape = StepShape { tokens, first_blocks: first_blocks(model, task)?, products: task.products };
        let beside = beside_bytes(model, task, tokens) + along.denoise_bytes;
        Ok(Self { model, on, shape, beside, led: along.led_bytes, process })
    }

    /// Resident weights where they fit and nothing else is asked for, streamed ones where not, and pieces that fit into the rest; on a
    /// CUDA device as many blocks stay as that leaves room for, since each that travels takes its time in each step.
    ///
    /// # Errors
    /// [`Error::Memory`] when the budget is below the least that would do.
    pub(super) fn within(&self, weights: Option<WeightsMode>, budget: u64) -> Result<Denoising> {
        let mode = match weights {
            Some(mode) => mode,
            None if self.dry(WeightsMode::Resident, ForwardOptions::default())?.peak <= budget => WeightsMode::Resident,
            None => WeightsMode::Stream,
        };
        let room = self.process.room(budget).saturating_sub(self.beside);
        match self.model.step_within(self.on, mode, self.shape, room) {
            Ok((options, cost)) if weights.is_none() && mode == WeightsMode::Stream => {
                self.with_staying(self.denoising(mode, options, cost), budget)
            }
            Ok((options, cost)) => Ok(self.denoising(mode, options, cost)),
            Err(error) => {
                let least = self.least(mode)?.peak;
                Err(if least > budget { too_small("a denoising step", least, budget) } else { error })
            }
        }
    }

    /// The same with the most blocks that may stay, where more than one may.
    fn with_staying(&self, streamed: Denoising, budget: u64) -> Result<Denoising> {
        if !self.on.0.is_cuda() {
            return Ok(streamed);
        }
        let most = self.process.of_choice(budget);
        let (options, mut best) = (streamed.options, streamed);
        let (mut fits, mut too_many) = (0, ALL_BLOCKS);
        while too_many - fits > 1 {
            let stay = fits.midpoint(too_many);
            let tried = self.dry(WeightsMode::Part { stay }, options)?;
            if tried.peak <= most {
                (fits, best) = (stay, tried);
            } else {
                too_many = stay;
            }
        }
        Ok(best)
    }

    /// In this mode, what takes least.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    pub(super) fn least(&self, mode: WeightsMode) -> Result<Denoising> {
        self.dry(mode, ForwardOptions::LEAST)
    }

    fn dry(&self, mode: WeightsMode, options: ForwardOptions) -> Result<Denoising> {
        let cost = self.model.step_cost(self.on, mode, self.shape, options)?;
        Ok(self.denoising(mode, options, cost))
    }

    fn denoising(&self, mode: WeightsMode, options: ForwardOptions, cost: ForwardCost) -> Denoising {
        // A velocity is led when what the pass worked with is gone.
        let most = cost.peak_bytes().max(cost.weights_bytes + cost.input_bytes + cost.kept_bytes + self.led);
        let need = self.beside.saturating_add(most);
        Denoising { mode, options, cost, need, peak: self.process.peak(need) }
    }
}

/// What a step holds beside a forward pass: the next latents and their sum, the prompts that wait for their pictures, and what is
/// carried from step to step. With classifier-free guidance the velocity with the prompt waits for the other.
fn beside_bytes(model: &dyn Model, task: &Task, tokens: [usize; 2]) -> u64 {
    let waiting = task.prompts.saturating_sub(1) as u64 * model.conditioning_bytes(task.text_tokens);
    let latents_bytes = (4 * tokens[0] * model.facts().latents.token_channels()) as u64;
    let guided = if task.cfg { latents_bytes + table_bytes(model, tokens) } else { 0 };
    let of_cache = match task.cache {
        // Latents and velocity of the last computed step, for each prompt.
        StepCache::Easy(_) => 2 * task.passes(),
        StepCache::Off | StepCache::FirstBlock(_) => 0,
    };
    2 * latents_bytes + waiting + guided + latents_bytes * (task.sampler.tensors() + of_cache) as u64
}

/// First-block caches that a task holds: one for each prompt.
///
/// # Errors
/// [`Error::Request`] for one that the model's blocks do not offer.
fn first_blocks(model: &dyn Model, task: &Task) -> Result<usize> {
    match task.cache {
        StepCache::Off | StepCache::Easy(_) => Ok(0),
        StepCache::FirstBlock(_) if model.leaves_blocks_out() => Ok(task.passes()),
        StepCache::FirstBlock(threshold) => {
            let what = format!("--cache first-block:{threshold}: this kind of model cannot leave blocks out");
            Err(Error::request(what, "--cache 0.2 (EasyCache) asks nothing of a model"))
        }
    }
}

/// Bytes of the position tables of so many tokens: a method that stays the same keeps them for each prompt of classifier-free
/// guidance.
fn table_bytes(model: &dyn Model, tokens: [usize; 2]) -> u64 {
    let pairs: usize = model.facts().axes.iter().map(|axis| axis.dim / 2).sum();
    (4 * 2 * pairs * tokens.iter().sum::<usize>()) as u64
}
