//! What a forward pass costs: a dry pass of it, for any sizes of its pieces.

use candle_core::DType;

use super::{
    LATENTS, ZImageConfig,
    config::padded,
    transformer::{Inputs, Transformer},
};
use crate::{
    base::device::DeviceKind,
    error::Result,
    models::{FirstBlock, ForwardCost, ForwardOptions, StepShape, parts::streams::Asked},
    nn::{Compute, Ledger, Parameters, WeightsMode},
    weights::{Expected, Weights, lora::Layer},
};

/// A forward pass that is asked about, whatever its pieces.
#[derive(Clone)]
pub struct Forward<'a> {
    /// The transformer's dimensions.
    pub config: &'a ZImageConfig,
    /// The kind of device.
    pub kind: DeviceKind,
    /// What the streams compute in.
    pub compute: Compute,
    /// The weights, or none in the number type they would be held in.
    pub weights: Weights,
    /// Where the weights of the layers live.
    pub mode: WeightsMode,
    /// Its tokens and caches.
    pub step: StepShape,
}

impl Forward<'_> {
    /// What it takes in these pieces, by a dry pass: a run's first step, which refines the text too.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense.
    pub fn cost(&self, options: ForwardOptions) -> Result<ForwardCost> {
        let ledger = Ledger::new(self.kind);
        let parameters = Parameters::dry(&self.weights, &ledger).held_as_stored();
        let model = Transformer::load_from(self.config, &parameters, self.mode, self.compute)?.with_options(options);
        let loaded = ledger.now_bytes();
        let (place, [image_tokens, text_tokens]) = (parameters.place(), self.step.tokens);
        let zeros = |shape: &[usize]| place.zeros(shape, DType::F32);
        let img = zeros(&[1, image_tokens, LATENTS.token_channels()])?;
        let hidden_states = zeros(&[text_tokens, self.config.cap_feat_dim])?;
        let input_bytes = ledger.now_bytes() - loaded;
        let (picture, text) = (padded(image_tokens), padded(text_tokens));
        let angles = [picture + text, self.config.head_dim() / 2];
        let (cos, sin) = (zeros(&angles)?, zeros(&angles)?);
        let tables = [cos.narrow(0, picture, text)?, sin.narrow(0, picture, text)?];
        let refined = model.refine(&hidden_states, tables)?;
        let mut inputs = Inputs { img, text: refined, text_tokens, cos, sin, asked: Asked::default() };
        let kept_bytes = FirstBlock::dry(self.step.first_blocks, &ledger, |cache| {
            inputs.asked.first_block = cache;
            model.velocity(&inputs, 1.0).map(drop)
        })?;
        drop((inputs, hidden_states));
        Ok(ForwardCost::of(&ledger, input_bytes).keeping(kept_bytes))
    }
}

/// Names and shapes of all tensors the transformer's loader asks for, in its order.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn transformer_tensors(config: &ZImageConfig) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config)?.asked())
}

/// Its linear layers, in the same order.
///
/// # Errors
/// As [`transformer_tensors`].
pub(super) fn transformer_layers(config: &ZImageConfig) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config)?.layers())
}

fn loaded_dry(config: &ZImageConfig) -> Result<Parameters> {
    let load =
        |parameters: &Parameters| Transformer::load_from(config, parameters, WeightsMode::Resident, Compute::EXACT_F32);
    Parameters::of_load(load)
}
