//! What a forward pass costs: a dry pass of it, for any sizes of its pieces.

use candle_core::DType;

use super::{FluxConfig, transformer::Transformer};
use crate::{
    base::device::DeviceKind,
    error::Result,
    models::{
        FirstBlock, ForwardCost, ForwardOptions, StepShape,
        parts::{
            CLIP_TOKENS, ClipEncoder, T5Encoder,
            streams::{Asked, Inputs},
        },
    },
    nn::{Compute, Ledger, Parameters, WeightsMode},
    weights::{Expected, Weights, lora::Layer},
};

/// A forward pass that is asked about, whatever its pieces.
#[derive(Clone)]
pub struct Forward<'a> {
    /// The transformer's dimensions.
    pub config: &'a FluxConfig,
    /// The kind of device.
    pub kind: DeviceKind,
    /// What the streams compute in.
    pub compute: Compute,
    /// The weights, or none in the number type they would be held in.
    pub weights: Weights,
    /// Where the weights of the blocks live.
    pub mode: WeightsMode,
    /// Its tokens and caches.
    pub step: StepShape,
}

impl Forward<'_> {
    /// What it takes in these pieces, by a dry pass.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense.
    pub fn cost(&self, options: ForwardOptions) -> Result<ForwardCost> {
        let ledger = Ledger::new(self.kind);
        let parameters = Parameters::dry(&self.weights, &ledger).held_as_stored();
        let model = Transformer::load_from(self.config, &parameters, self.mode, self.compute)?.with_options(options);
        let loaded = ledger.now_bytes();
        let (place, config, [image_tokens, text_tokens]) = (parameters.place(), self.config, self.step.tokens);
        let zeros = |shape: &[usize]| place.zeros(shape, DType::F32);
        let img = zeros(&[1, image_tokens, config.in_channels])?;
        let prompt_embeds = zeros(&[1, text_tokens, config.joint_attention_dim])?;
        let pooled = zeros(&[1, config.pooled_projection_dim])?;
        let input_bytes = ledger.now_bytes() - loaded;
        let angles = [text_tokens + image_tokens, config.attention_head_dim / 2];
        let mut inputs =
            Inputs { img, prompt_embeds, cos: zeros(&angles)?, sin: zeros(&angles)?, asked: Asked::default() };
        let kept_bytes = FirstBlock::dry(self.step.first_blocks, &ledger, |cache| {
            inputs.asked.first_block = cache;
            model.velocity(&inputs, &pooled, 1.0, Some(1.0)).map(drop)
        })?;
        drop((inputs, pooled));
        Ok(ForwardCost::of(&ledger, input_bytes).keeping(kept_bytes))
    }

    /// The largest pieces whose forward pass stays within `budget_bytes`, weights and inputs included, and whose elements
    /// the device can count; and what it takes in them.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] with the least that would do, when even the smallest pieces do not fit.
    pub fn within(&self, budget_bytes: u64) -> Result<(ForwardOptions, ForwardCost)> {
        let first = ForwardOptions::first(self.kind, self.compute.dtype);
        first.within(budget_bytes, |options| self.cost(options))
    }
}

/// A dry pass of both text encoders over so many prompts of so many T5 tokens, on a device of this kind: CLIP's embeddings
/// stay while T5 works.
///
/// # Errors
/// [`crate::Error::Model`] when a configuration makes no sense.
pub fn text_cost(
    clip: &ClipEncoder,
    t5: &T5Encoder,
    kind: DeviceKind,
    prompts: usize,
    text_tokens: usize,
) -> Result<Ledger> {
    let ledger = Ledger::new(kind);
    // No two alike: every row of the table that could be read is.
    let ids = |tokens: usize, vocabulary: usize| -> Vec<Vec<u32>> {
        let id = |i: usize| u32::try_from(i % vocabulary.max(1)).unwrap_or(0);
        (0..prompts).map(|prompt| (0..tokens).map(|token| id(prompt * tokens + token)).collect()).collect()
    };
    let clip_tokens = CLIP_TOKENS.min(clip.config().max_position_embeddings);
    let _pooled = clip.dry(&ids(clip_tokens, clip.config().vocab_size), &ledger)?;
    t5.dry(&ids(text_tokens, t5.config().vocab_size), &ledger)?;
    Ok(ledger)
}

/// Names and shapes of all tensors the transformer's loader asks for, in its order.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn transformer_tensors(config: &FluxConfig) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config)?.asked())
}

/// The linear layers of the transformer, in the order its loader asks for them.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn transformer_layers(config: &FluxConfig) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config)?.layers())
}

fn loaded_dry(config: &FluxConfig) -> Result<Parameters> {
    let load =
        |parameters: &Parameters| Transformer::load_from(config, parameters, WeightsMode::Resident, Compute::EXACT_F32);
    Parameters::of_load(load)
}
