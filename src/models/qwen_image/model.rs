//! What everybody else asks of an open Qwen-Image: its parts as [`Model`] and [`Velocity`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    QwenImage, QwenImageConfig, Transformer,
    cost::{Forward, transformer_layers, transformer_tensors},
    family::{PARTS, READS},
    text::{DROPPED, PromptStates, TEMPLATE, Text},
};
use crate::{
    base::{device::DeviceKind, geometry::TokenGrid, progress::Observer},
    error::Result,
    models::{
        Conditioning, Contents, Decode, Encode, Facts, ForwardCost, ForwardOptions, Identity, Model, NetworkBytes, On,
        StepShape, TextEncoders, Velocity, VelocityAt, of_networks,
        parts::{
            ChatTokenizer, ModelPart, QwenEncoder,
            kl::{self, Side},
            qwen_tensors, settle,
            streams::Inputs,
            text_names,
        },
    },
    nn::{PositionIds, WeightsMode},
    weights::{TensorSource, lora::Network},
};

impl QwenImage {
    fn encoder_on(&self, dtype: DType, device: &Device) -> QwenEncoder {
        let config = self.text_encoder.config.0.clone();
        QwenEncoder::open(config, READS, self.text_encoder.weights(dtype, device))
    }

    /// A step that is asked about.
    fn step(&self, (kind, dtype): (DeviceKind, DType), mode: WeightsMode, step: StepShape) -> Forward<'_> {
        // Headers are read, wherever the numbers will go.
        let weights = self.transformer.weights(dtype, &Device::Cpu);
        Forward { config: &self.transformer.config, kind, dtype, weights, mode, step }
    }
}

/// The transformer as LoRA files change it.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(super) fn network(transformer: &ModelPart<QwenImageConfig>) -> Result<Network> {
    let layers = transformer_layers(&transformer.config)?;
    Ok(Network::transformer(&transformer.source, layers, Vec::new()))
}

impl Model for QwenImage {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn contents(&self) -> Result<Contents> {
        self.found.contents(&PARTS)
    }

    fn remarks(&self) -> Vec<String> {
        [self.transformer.passed_over(), self.text_encoder.passed_over()].into_iter().flatten().collect()
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn networks(&self) -> Result<Vec<Network>> {
        let qwen = &self.text_encoder;
        let text_encoder = text_names::qwen_network("text_encoder", &qwen.source, &qwen.config.0, &READS)?;
        Ok(vec![network(&self.transformer)?, text_encoder])
    }

    fn with_sources(&self, sources: Vec<Arc<dyn TensorSource>>) -> Result<Box<dyn Model>> {
        let [transformer, text_encoder] = of_networks(sources)?;
        let transformer = ModelPart { source: transformer, ..self.transformer.clone() };
        let text_encoder = ModelPart { source: text_encoder, ..self.text_encoder.clone() };
        Ok(Box::new(Self { transformer, text_encoder, ..self.clone() }))
    }

    fn text(&self, on: &On) -> Result<Box<dyn TextEncoders + '_>> {
        let rows = self.text_encoder.config.0.vocab_size;
        let tokenizer = ChatTokenizer::qwen(&self.tokenizer, TEMPLATE, rows)?;
        Ok(Box::new(Text { tokenizer, encoder: self.encoder_on(on.dtype, &on.device) }))
    }

    fn positions(&self, grid: TokenGrid, text: &Conditioning) -> PositionIds {
        self.transformer.config.position_ids(grid, text.text_tokens())
    }

    fn settle(&self, on: &On, observer: &dyn Observer) {
        let config = &self.transformer.config;
        let heads = (config.num_attention_heads, config.attention_head_dim);
        settle(on, heads, &self.vae.part.config, observer);
    }

    fn velocity(&self, on: &On, weights: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>> {
        let here = self.transformer.weights(on.dtype, &on.device);
        Ok(Box::new(Transformer::load(&self.transformer.config, &here, weights, on.compute())?.with_options(pieces)))
    }

    fn leaves_blocks_out(&self) -> bool {
        true
    }

    fn decoder(&self) -> &dyn Decode {
        &self.vae
    }

    fn encoder(&self) -> Option<&dyn Encode> {
        self.vae.has_encoder().then_some(&self.vae)
    }

    fn weights_bytes(&self) -> Result<Vec<NetworkBytes>> {
        let (transformer, text, vae) = (&self.transformer, &self.text_encoder, &self.vae.part);
        Ok(vec![
            NetworkBytes::of(
                "transformer",
                "transformer",
                &*transformer.source,
                &transformer_tensors(&transformer.config)?,
            ),
            NetworkBytes::of("text_encoder", "Qwen2.5-VL", &*text.source, &qwen_tensors(&text.config.0, &READS)?),
            NetworkBytes::of("vae", "VAE", &*vae.source, &kl::tensors(&vae.config, Side::Decoder)?),
        ])
    }

    fn text_bytes(&self, (kind, dtype): (DeviceKind, DType), prompts: usize, text_tokens: usize) -> Result<u64> {
        let encoder = self.encoder_on(dtype, &Device::Cpu);
        Ok(encoder.cost(kind, prompts, DROPPED + text_tokens)?.peak_bytes())
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
        self.step(on, weights, step).cost(pieces)
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
        let PromptStates(prompt_embeds) = at.text.get()?;
        let inputs = Inputs::at(latents, prompt_embeds, at);
        Ok(self.velocity(&inputs, at.t)?.real()?.clone())
    }
}
