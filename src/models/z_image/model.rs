//! What everybody else asks of an open Z-Image: its parts as [`Model`] and [`Velocity`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    Transformer, ZImage, ZImageConfig, comfy,
    config::padded,
    cost::transformer_layers,
    family::PARTS,
    text::{self, Prompt, TextEncoder},
    transformer::Inputs,
    transformer_tensors,
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
            settle,
            streams::Asked,
            text_names,
        },
    },
    nn::{Array, PositionIds, WeightsMode},
    weights::{TensorSource, lora::Network},
};

impl ZImage {
    fn encoder_on(&self, dtype: DType, device: &Device) -> QwenEncoder {
        let config = &self.text_encoder.config;
        QwenEncoder::open(config.0.clone(), text::reads(config), self.text_encoder.weights(dtype, device))
    }
}

/// The transformer as LoRA files change it.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(super) fn network(transformer: &ModelPart<ZImageConfig>) -> Result<Network> {
    let layers = transformer_layers(&transformer.config)?;
    Ok(Network::transformer(&transformer.source, layers, comfy::aliases(&transformer.config)))
}

impl Model for ZImage {
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
        let text_encoder =
            text_names::qwen_network("text_encoder", &qwen.source, &qwen.config.0, &text::reads(&qwen.config))?;
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
        let tokenizer = ChatTokenizer::qwen(&self.tokenizer, text::TEMPLATE, rows)?;
        Ok(Box::new(TextEncoder { tokenizer, encoder: self.encoder_on(on.dtype, &on.device) }))
    }

    fn positions(&self, grid: TokenGrid, text: &Conditioning) -> PositionIds {
        self.transformer.config.position_ids(grid, text.text_tokens())
    }

    fn settle(&self, on: &On, observer: &dyn Observer) {
        let config = &self.transformer.config;
        let heads = (config.n_heads, config.head_dim());
        settle(on, heads, &self.vae.part.config, observer);
    }

    fn velocity(&self, on: &On, weights: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>> {
        let here = self.transformer_weights(on.dtype, &on.device);
        let transformer = Transformer::load(&self.transformer.config, &here, weights, on.compute())?;
        Ok(Box::new(transformer.with_options(pieces)))
    }

    fn saves_unpacked(&self) -> bool {
        true
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
            NetworkBytes::of("text_encoder", "Qwen3", &*text.source, &text::text_tensors(&text.config)?),
            NetworkBytes::of("vae", "VAE", &*vae.source, &kl::tensors(&vae.config, Side::Decoder)?),
        ])
    }

    fn text_bytes(&self, (kind, dtype): (DeviceKind, DType), prompts: usize, text_tokens: usize) -> Result<u64> {
        // Headers are read, wherever the numbers will go.
        let encoder = self.encoder_on(dtype, &Device::Cpu);
        Ok(encoder.cost(kind, prompts, text_tokens)?.peak_bytes())
    }

    /// Hidden states, and what the transformer's first layers make of them and keep.
    fn conditioning_bytes(&self, text_tokens: usize) -> u64 {
        let config = &self.transformer.config;
        (4 * (text_tokens * config.cap_feat_dim + padded(text_tokens) * config.dim)) as u64
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

impl Velocity for Transformer {
    fn set_pieces(&mut self, pieces: ForwardOptions) {
        self.set_options(pieces);
    }

    fn token_reading(&self, device: &Device) -> Result<Vec<f64>> {
        self.mean_embedding(device)
    }

    fn velocity(&self, latents: &Tensor, at: &VelocityAt<'_>) -> Result<Tensor> {
        let prompt: &Prompt = at.text.get()?;
        let picture = padded(latents.dim(1)?);
        let text_rows = at.rope.rows(picture, at.rope.tokens().saturating_sub(picture))?;
        let real = |tensor: &Tensor| Array::from(tensor.clone());
        let inputs = Inputs {
            img: real(latents),
            text: prompt.refined(self, &text_rows)?,
            text_tokens: prompt.hidden_states.dim(1)?,
            cos: real(&at.rope.cos),
            sin: real(&at.rope.sin),
            asked: Asked::at(at),
        };
        Ok(self.velocity(&inputs, at.t)?.real()?.clone())
    }
}
