//! What everybody else asks of an open FLUX.1: its parts as [`Model`], [`TextEncoders`] and [`Velocity`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    Flux1, FluxConfig, Transformer, WeightsMode, bfl,
    family::PARTS,
    text::{self, PromptEmbeddings},
    text_cost, transformer_layers, transformer_tensors,
};
use crate::{
    base::{device::DeviceKind, geometry::TokenGrid, progress::Observer},
    error::Result,
    models::{
        Conditioning, Contents, Decode, Encode, Facts, ForwardCost, ForwardOptions, Identity, Model, NetworkBytes, On,
        StepShape, TextEncoders, Velocity, VelocityAt, of_networks,
        parts::{
            ClipEncoder, ModelPart, T5Encoder, Tokenizers, clip_tensors,
            kl::{self, Side},
            settle,
            streams::Inputs,
            t5_tensors, text_names,
        },
    },
    nn::{Array, PositionIds},
    weights::{TensorSource, lora::Network},
};

impl Flux1 {
    /// [`Model::with_sources`] as what it is.
    ///
    /// # Errors
    /// As there.
    pub fn over(&self, sources: Vec<Arc<dyn TensorSource>>) -> Result<Self> {
        let [transformer, clip, t5] = of_networks(sources)?;
        let mut model = self.clone();
        model.transformer.source = transformer;
        model.text_encoder.source = clip;
        model.text_encoder_2.source = t5;
        Ok(model)
    }
}

/// The transformer as LoRA files change it.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub(super) fn network(transformer: &ModelPart<FluxConfig>) -> Result<Network> {
    let layers = transformer_layers(&transformer.config)?;
    Ok(Network::transformer(&transformer.source, layers, bfl::aliases(&transformer.config)))
}

impl Model for Flux1 {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn contents(&self) -> Result<Contents> {
        self.found.contents(&PARTS)
    }

    fn remarks(&self) -> Vec<String> {
        let passed_over =
            [self.transformer.passed_over(), self.text_encoder.passed_over(), self.text_encoder_2.passed_over()];
        self.remark.iter().cloned().chain(passed_over.into_iter().flatten()).collect()
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn networks(&self) -> Result<Vec<Network>> {
        let clip = text_names::clip_network("text_encoder", &self.text_encoder)?;
        let t5 = text_names::t5_network("text_encoder_2", &self.text_encoder_2)?;
        Ok(vec![network(&self.transformer)?, clip, t5])
    }

    fn with_sources(&self, sources: Vec<Arc<dyn TensorSource>>) -> Result<Box<dyn Model>> {
        Ok(Box::new(self.over(sources)?))
    }

    fn text(&self, on: &On) -> Result<Box<dyn TextEncoders + '_>> {
        let (clip, t5) = (self.text_encoder.config.clone(), self.text_encoder_2.config.clone());
        let tokenizers = Tokenizers::open(&self.tokenizer, clip.vocab_size, &self.tokenizer_2, t5.vocab_size)?;
        Ok(Box::new(text::TextEncoders {
            tokenizers,
            clip: ClipEncoder::open(clip, self.text_encoder_weights(on.dtype, &on.device)),
            t5: T5Encoder::open(t5, self.text_encoder_2_weights(on.dtype, &on.device)),
        }))
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
        let config = &self.transformer.config;
        let here = self.transformer_weights(on.dtype, &on.device);
        Ok(Box::new(Transformer::load(config, &here, weights, on.compute())?.with_options(pieces)))
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
        let (clip, t5) = (&self.text_encoder, &self.text_encoder_2);
        let (transformer, vae) = (&self.transformer, &self.vae.part);
        Ok(vec![
            NetworkBytes::of(
                "transformer",
                "transformer",
                &*transformer.source,
                &transformer_tensors(&transformer.config)?,
            ),
            NetworkBytes::of("text_encoder_2", "T5", &*t5.source, &t5_tensors(&t5.config)?),
            NetworkBytes::of("text_encoder", "CLIP", &*clip.source, &clip_tensors(&clip.config)?),
            NetworkBytes::of("vae", "VAE", &*vae.source, &kl::tensors(&vae.config, Side::Decoder)?),
        ])
    }

    fn text_bytes(&self, (kind, dtype): (DeviceKind, DType), prompts: usize, text_tokens: usize) -> Result<u64> {
        // Headers are read, wherever the numbers will go.
        let here = &Device::Cpu;
        let clip = ClipEncoder::open(self.text_encoder.config.clone(), self.text_encoder_weights(dtype, here));
        let t5 = T5Encoder::open(self.text_encoder_2.config.clone(), self.text_encoder_2_weights(dtype, here));
        Ok(text_cost(&clip, &t5, kind, prompts, text_tokens)?.peak_bytes())
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

impl TextEncoders for text::TextEncoders {
    fn encode(&self, prompts: &[&str], text_tokens: usize, observer: &dyn Observer) -> Result<Vec<Conditioning>> {
        let embeddings = self.encode(prompts, text_tokens, observer)?;
        Ok(embeddings.into_iter().map(|embeddings| Conditioning::new(embeddings, text_tokens)).collect())
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
        let PromptEmbeddings { prompt_embeds, pooled } = at.text.get()?;
        let inputs = Inputs::at(latents, prompt_embeds, at);
        Ok(self.velocity(&inputs, &Array::from(pooled.clone()), at.t, at.guidance)?.real()?.clone())
    }
}
