//! What a forward pass costs: a dry pass of it, for any sizes of its pieces.

use candle_core::DType;

use super::{FluxConfig, transformer::Transformer};
use crate::{
    base::device::DeviceKind,
    error::Result,
    models::{
        ForwardCost, ForwardOptions, StepShape,
        parts::{CLIP_TOKENS, ClipEncoder, T5Encoder, streams::Inputs},
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
        let (place, config, model) = (parameters.place(), self.config, &model);
        let widths = [config.in_channels, config.joint_attention_dim, config.attention_head_dim];
        let pooled = place.zeros(&[1, config.pooled_projection_dim], DType::F32)?;
        let velocity = move |inputs: &Inputs| model.velocity(inputs, &pooled, 1.0, Some(1.0));
        Inputs::cost_of_pass((&ledger, loaded), &place, self.step, widths, velocity)
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
