//! What a forward pass costs: a dry pass of it, for any sizes of its pieces.

use candle_core::DType;

use super::{Flux2Config, transformer::Transformer};
use crate::{
    base::device::DeviceKind,
    error::Result,
    models::{
        FirstBlock, ForwardCost, ForwardOptions, StepShape,
        parts::streams::{Asked, Inputs},
    },
    nn::{Compute, Ledger, Parameters, WeightsMode},
    weights::{Expected, Weights, lora::Layer},
};

/// A forward pass that is asked about, whatever its pieces.
pub(super) struct Forward<'a> {
    /// The transformer's dimensions.
    pub(super) config: &'a Flux2Config,
    /// The kind of device.
    pub(super) kind: DeviceKind,
    /// What the streams compute in.
    pub(super) compute: Compute,
    /// The weights, or none in the number type they would be held in.
    pub(super) weights: Weights,
    /// Where the weights of the blocks live.
    pub(super) mode: WeightsMode,
    /// Its tokens and caches.
    pub(super) step: StepShape,
}

impl Forward<'_> {
    /// What it takes in these pieces, by a dry pass.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense.
    pub(super) fn cost(&self, options: ForwardOptions) -> Result<ForwardCost> {
        let ledger = Ledger::new(self.kind);
        let parameters = Parameters::dry(&self.weights, &ledger).held_as_stored();
        let model = Transformer::load_from(self.config, &parameters, self.mode, self.compute)?.with_options(options);
        let loaded = ledger.now_bytes();
        let (place, config, [image_tokens, text_tokens]) = (parameters.place(), self.config, self.step.tokens);
        let zeros = |shape: &[usize]| place.zeros(shape, DType::F32);
        let img = zeros(&[1, image_tokens, config.in_channels])?;
        let prompt_embeds = zeros(&[1, text_tokens, config.joint_attention_dim])?;
        let input_bytes = ledger.now_bytes() - loaded;
        let angles = [text_tokens + image_tokens, config.attention_head_dim / 2];
        let mut inputs =
            Inputs { img, prompt_embeds, cos: zeros(&angles)?, sin: zeros(&angles)?, asked: Asked::default() };
        let kept_bytes = FirstBlock::dry(self.step.first_blocks, &ledger, |cache| {
            inputs.asked.first_block = cache;
            model.velocity(&inputs, 1.0).map(drop)
        })?;
        drop(inputs);
        Ok(ForwardCost::of(&ledger, input_bytes).keeping(kept_bytes))
    }

    /// The largest pieces whose forward pass stays within `budget_bytes`, weights and inputs included, and whose elements
    /// the device can count; and what it takes in them.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] with the least that would do, when even the smallest pieces do not fit.
    pub(super) fn within(&self, budget_bytes: u64) -> Result<(ForwardOptions, ForwardCost)> {
        let first = ForwardOptions::first(self.kind, self.compute.dtype);
        first.within(budget_bytes, |options| self.cost(options))
    }
}

/// Names and shapes of all tensors the transformer's loader asks for, in its order; fused layers are asked for in parts
/// ([`transformer_names`](super::transformer_names)).
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn transformer_tensors(config: &Flux2Config) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config)?.asked())
}

/// The linear layers of the transformer, in the order its loader asks for them.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(super) fn transformer_layers(config: &Flux2Config) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config)?.layers())
}

fn loaded_dry(config: &Flux2Config) -> Result<Parameters> {
    let load =
        |parameters: &Parameters| Transformer::load_from(config, parameters, WeightsMode::Resident, Compute::EXACT_F32);
    Parameters::of_load(load)
}
