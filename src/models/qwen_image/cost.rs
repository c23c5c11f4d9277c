//! What a forward pass costs: a dry pass of it, for any sizes of its pieces.

use candle_core::DType;

use super::{QwenImageConfig, transformer::Transformer};
use crate::{
    base::device::DeviceKind,
    error::Result,
    models::{ForwardCost, ForwardOptions, StepShape, parts::streams::Inputs},
    nn::{Compute, Ledger, Parameters, WeightsMode},
    weights::{Expected, Weights, lora::Layer},
};

/// A forward pass that is asked about, whatever its pieces.
pub(super) struct Forward<'a> {
    pub(super) config: &'a QwenImageConfig,
    pub(super) kind: DeviceKind,
    pub(super) dtype: DType,
    /// The weights, or none in the number type they would be held in.
    pub(super) weights: Weights,
    pub(super) mode: WeightsMode,
    /// Its tokens and caches.
    pub(super) step: StepShape,
}

impl Forward<'_> {
    /// What it takes in these pieces, by a dry pass.
    pub(super) fn cost(&self, options: ForwardOptions) -> Result<ForwardCost> {
        let ledger = Ledger::new(self.kind);
        let parameters = Parameters::dry(&self.weights, &ledger).held_as_stored();
        let compute = self.step.compute((self.kind, self.dtype));
        let model = Transformer::load_from(self.config, &parameters, self.mode, compute)?.with_options(options);
        let loaded = ledger.now_bytes();
        let config = self.config;
        let widths = [config.in_channels, config.joint_attention_dim, config.attention_head_dim];
        let velocity = |inputs: &Inputs| model.velocity(inputs, 1.0);
        Inputs::cost_of_pass((&ledger, loaded), &parameters.place(), self.step, widths, velocity)
    }
}

/// Names and shapes of all tensors the transformer's loader asks for, in its order.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn transformer_tensors(config: &QwenImageConfig) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config)?.asked())
}

/// The linear layers of the transformer, in the order its loader asks for them.
pub(super) fn transformer_layers(config: &QwenImageConfig) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config)?.layers())
}

fn loaded_dry(config: &QwenImageConfig) -> Result<Parameters> {
    let load =
        |parameters: &Parameters| Transformer::load_from(config, parameters, WeightsMode::Resident, Compute::EXACT_F32);
    Parameters::of_load(load)
}
