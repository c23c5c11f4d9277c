//! What everybody else asks of an open FLUX.2 \[klein\]: its parts as [`Model`], [`TextEncoders`] and [`Velocity`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    Flux2, Flux2Config, Flux2VaeConfig, TextEncoder, Transformer, bfl,
    cost::transformer_layers,
    encoder_tensors,
    family::PARTS,
    text::{self, PromptEmbeds},
    transformer_tensors, vae_tensors,
};
use crate::{
    base::{device::DeviceKind, geometry::TokenGrid, progress::Observer},
    error::Result,
    models::{
        Conditioning, Contents, Decode, Encode, Facts, ForwardCost, ForwardOptions, Identity, Model, NetworkBytes, On,
        StepShape, TextEncoders, Velocity, VelocityAt, of_networks,
        parts::{ChatTokenizer, ModelPart, QwenEncoder, kl::Side, settle, streams::Inputs, text_names},
    },
    nn::{PositionIds, WeightsMode},
    weights::{TensorSource, lora::Network},
};

impl Flux2 {
    /// The text encoder, with tensors as `dtype` on `device`.
    fn qwen(&self, dtype: DType, device: &Device) -> QwenEncoder {
        let part = &self.text_encoder;
        QwenEncoder::open(part.config.0.clone(), text::reads(), part.weights(dtype, device))
    }

    /// Tokenizer and text encoder, opened and checked; no weight is loaded yet.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the tokenizer is broken.
    pub fn text_encoder_on(&self, on: &On) -> Result<TextEncoder> {
        let vocabulary = self.text_encoder.config.0.vocab_size;
        let tokenizer = ChatTokenizer::qwen(&self.tokenizer, text::TEMPLATE, vocabulary)?;
        Ok(TextEncoder { tokenizer, qwen: self.qwen(on.dtype, &on.device) })
    }
}

/// The transformer as LoRA files change it.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(super) fn network(transformer: &ModelPart<Flux2Config>) -> Result<Network> {
    let layers = transformer_layers(&transformer.config)?;
    Ok(Network::transformer(&transformer.source, layers, bfl::aliases(&transformer.config)))
}

impl Model for Flux2 {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn contents(&self) -> Result<Contents> {
        self.found.contents(&PARTS)
    }

    fn remarks(&self) -> Vec<String> {
        let passed_over = [self.transformer.passed_over(), self.text_encoder.passed_over()];
        self.remark.iter().cloned().chain(passed_over.into_iter().flatten()).collect()
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn networks(&self) -> Result<Vec<Network>> {
        let qwen = &self.text_encoder;
        let text_encoder = text_names::qwen_network("text_encoder", &qwen.source, &qwen.config.0, &text::reads())?;
        Ok(vec![network(&self.transformer)?, text_encoder])
    }

    fn with_sources(&self, sources: Vec<Arc<dyn TensorSource>>) -> Result<Box<dyn Model>> {
        let [transformer, text_encoder] = of_networks(sources)?;
        let transformer = ModelPart { source: transformer, ..self.transformer.clone() };
        let text_encoder = ModelPart { source: text_encoder, ..self.text_encoder.clone() };
        Ok(Box::new(Self { transformer, text_encoder, ..self.clone() }))
    }

    fn text(&self, on: &On) -> Result<Box<dyn TextEncoders + '_>> {
        Ok(Box::new(self.text_encoder_on(on)?))
    }

    fn positions(&self, grid: TokenGrid, text: &Conditioning) -> PositionIds {
        self.transformer.config.position_ids(grid, text.text_tokens())
    }

    fn settle(&self, on: &On, observer: &dyn Observer) {
        let config = &self.transformer.config;
        let heads = (config.num_attention_heads, config.attention_head_dim);
        settle(on, heads, &self.vae.inner.part.config, observer);
    }

    fn velocity(&self, on: &On, weights: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>> {
        let here = self.transformer_weights(on.dtype, &on.device);
        let transformer = Transformer::load(&self.transformer.config, &here, weights, on.compute())?;
        Ok(Box::new(transformer.with_options(pieces)))
    }

    fn leaves_blocks_out(&self) -> bool {
        true
    }

    fn decoder(&self) -> &dyn Decode {
        &self.vae
    }

    fn encoder(&self) -> Option<&dyn Encode> {
        self.vae.inner.has_encoder().then_some(&self.vae)
    }

    fn weights_bytes(&self) -> Result<Vec<NetworkBytes>> {
        let (transformer, qwen, vae) = (&self.transformer, &self.text_encoder, &self.vae.inner.part);
        let vae_config = Flux2VaeConfig::from(vae.config.clone());
        Ok(vec![
            NetworkBytes::of(
                "transformer",
                "transformer",
                &*transformer.source,
                &transformer_tensors(&transformer.config)?,
            ),
            NetworkBytes::of("text_encoder", "Qwen3", &*qwen.source, &encoder_tensors(&qwen.config)?),
            NetworkBytes::of("vae", "VAE", &*vae.source, &vae_tensors(&vae_config, Side::Decoder)?),
        ])
    }

    fn text_bytes(&self, (kind, dtype): (DeviceKind, DType), prompts: usize, text_tokens: usize) -> Result<u64> {
        // Headers are read, wherever the numbers will go.
        Ok(self.qwen(dtype, &Device::Cpu).cost(kind, prompts, text_tokens)?.peak_bytes())
    }

    fn conditioning_bytes(&self, text_tokens: usize) -> u64 {
        (4 * text_tokens * self.transformer.config.joint_attention_dim) as u64
    }

    fn step_cost(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        step: StepShape,
        pieces: ForwardOptions,
    ) -> Result<ForwardCost> {
        self.forward(on, weights, step).cost(pieces)
    }
}

impl TextEncoders for TextEncoder {
    fn encode(&self, prompts: &[&str], text_tokens: usize, observer: &dyn Observer) -> Result<Vec<Conditioning>> {
        let embeds = self.encode(prompts, text_tokens, observer)?;
        Ok(embeds.into_iter().map(|embeds| Conditioning::new(PromptEmbeds(embeds), text_tokens)).collect())
    }
}

impl Velocity for Transformer {
    fn set_pieces(&mut self, pieces: ForwardOptions) {
        self.set_options(pieces);
    }

    fn token_reading(&self, device: &Device) -> Result<Vec<f64>> {
        self.mean_embedding(device)
    }

    fn velocity(&self, latents: &Tensor, at: &VelocityAt<'_>) -> Result<Tensor> {
        let PromptEmbeds(prompt_embeds) = at.text.get()?;
        let inputs = Inputs::at(latents, prompt_embeds, at);
        Ok(self.velocity(&inputs, at.t)?.real()?.clone())
    }
}
