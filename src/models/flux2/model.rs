//! What everybody else asks of an open FLUX.2 \[klein\]: its parts as [`Model`], [`TextEncoders`] and [`Velocity`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    Flux2, Flux2VaeConfig, TextEncoder, Transformer, bfl,
    cost::transformer_layers,
    encoder_tensors,
    family::PARTS,
    text::{self, PromptEmbeds},
    transformer::Inputs,
    transformer_tensors, vae_tensors,
};
use crate::{
    base::{device::DeviceKind, geometry::TokenGrid, progress::Observer},
    error::{Error, Result},
    methods::TextBias,
    models::{
        Conditioning, Contents, Decode, Encode, Facts, ForwardCost, ForwardOptions, Identity, Model, NetworkBytes, On,
        TextEncoders, Velocity, VelocityAt,
        parts::{ChatTokenizer, QwenEncoder, kl::Side},
    },
    nn::{self, PositionIds, WeightsMode},
    weights::{
        Expected, TensorSource,
        lora::{Network, TRANSFORMER_FLAT_PREFIXES, TRANSFORMER_PREFIXES},
    },
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

impl Model for Flux2 {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn contents(&self) -> Result<Contents> {
        self.found.contents(&PARTS)
    }

    fn remarks(&self) -> Vec<String> {
        self.remark.iter().cloned().collect()
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn networks(&self) -> Result<Vec<Network>> {
        let config = &self.transformer.config;
        Ok(vec![Network {
            part: "transformer",
            source: Arc::clone(&self.transformer.source),
            layers: transformer_layers(config)?,
            aliases: bfl::aliases(config),
            prefixes: TRANSFORMER_PREFIXES,
            flat_prefixes: TRANSFORMER_FLAT_PREFIXES,
        }])
    }

    fn with_sources(&self, sources: Vec<Arc<dyn TensorSource>>) -> Result<Box<dyn Model>> {
        let found = sources.len();
        let one = |_| Error::model(format!("{found} sources for one network"), "please report this");
        let [transformer] = sources.try_into().map_err(one)?;
        let mut model = self.clone();
        model.transformer.source = transformer;
        Ok(Box::new(model))
    }

    fn text(&self, on: &On) -> Result<Box<dyn TextEncoders + '_>> {
        Ok(Box::new(self.text_encoder_on(on)?))
    }

    fn positions(&self, grid: TokenGrid, text: &Conditioning) -> PositionIds {
        self.transformer.config.position_ids(grid, text.text_tokens())
    }

    fn settle(&self, on: &On, observer: &dyn Observer) -> Result<()> {
        let config = &self.transformer.config;
        let transformer = (config.num_attention_heads, config.attention_head_dim);
        // The decoder's attention is one head as wide as its coarsest stage.
        let decoder = self.vae.inner.part.config.decoder_channels().last().map(|channels| (1, *channels));
        for (heads, dim) in std::iter::once(transformer).chain(decoder) {
            nn::settle_attention(heads, dim, on.dtype, &on.device, observer)?;
        }
        Ok(())
    }

    fn velocity(&self, on: &On, weights: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>> {
        let here = self.transformer_weights(on.dtype, &on.device);
        let transformer = Transformer::load(&self.transformer.config, &here, weights, on.dtype)?;
        Ok(Box::new(transformer.with_options(pieces)))
    }

    fn decoder(&self) -> &dyn Decode {
        &self.vae
    }

    fn encoder(&self) -> Option<&dyn Encode> {
        self.vae.inner.has_encoder().then_some(&self.vae)
    }

    fn weights_bytes(&self) -> Result<Vec<NetworkBytes>> {
        let network = |part, word, source: &dyn TensorSource, tensors: Vec<Expected>| {
            let bytes = tensors.iter().filter_map(|(name, _)| source.bytes(name)).sum();
            NetworkBytes { part, word, bytes }
        };
        let (transformer, qwen, vae) = (&self.transformer, &self.text_encoder, &self.vae.inner.part);
        let vae_config = Flux2VaeConfig::from(vae.config.clone());
        Ok(vec![
            network("transformer", "transformer", &*transformer.source, transformer_tensors(&transformer.config)?),
            network("text_encoder", "Qwen3", &*qwen.source, encoder_tensors(&qwen.config)?),
            network("vae", "VAE", &*vae.source, vae_tensors(&vae_config, Side::Decoder)?),
        ])
    }

    fn text_bytes(&self, (kind, dtype): (DeviceKind, DType), prompts: usize, text_tokens: usize) -> Result<u64> {
        // Headers are read, wherever the numbers will go.
        Ok(text::cost(&self.qwen(dtype, &Device::Cpu), kind, prompts, text_tokens)?.peak_bytes())
    }

    fn conditioning_bytes(&self, text_tokens: usize) -> u64 {
        (4 * text_tokens * self.transformer.config.joint_attention_dim) as u64
    }

    fn step_cost(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        tokens: [usize; 2],
        pieces: ForwardOptions,
    ) -> Result<ForwardCost> {
        self.forward(on, weights, tokens).cost(pieces)
    }

    fn step_within(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        tokens: [usize; 2],
        budget_bytes: u64,
    ) -> Result<(ForwardOptions, ForwardCost)> {
        self.forward(on, weights, tokens).within(budget_bytes)
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
        let text_bias = at.text_bias.map(|TextBias(bias)| bias as f32);
        let inputs = Inputs { text_bias, ..Inputs::new(latents, prompt_embeds, at.rope) };
        Ok(self.velocity(&inputs, at.t)?.real()?.clone())
    }
}
