//! The forward pass: noisy latents, prompt and time in, velocity out.

use candle_core::{Device, Tensor};

use super::{Block, FluxConfig, ForwardOptions, RopeTables, blocks::Pass, layers::TimeTextEmbed, stream};
use crate::{
    error::Result,
    models::parts::{
        config::Config,
        modulation::Modulation,
        streams::{self, Inputs},
    },
    nn::{Array, Blocks, Compute, Linear, Parameters, WeightsMode},
    weights::Weights,
};

/// The FLUX.1 transformer, a velocity field over packed latents. Source: diffusers, FluxTransformer2DModel.
pub struct Transformer {
    config: FluxConfig,
    compute: Compute,
    options: ForwardOptions,
    x_embedder: Linear,
    context_embedder: Linear,
    time_text_embed: TimeTextEmbed,
    blocks: Blocks<Block>,
    norm_out: Modulation<2>,
    proj_out: Linear,
}

impl Transformer {
    /// Loads a model. `weights` says in which number type the weights are held and where; `compute` what the streams
    /// compute in. The CPU holds what is narrower in its file as it is there and widens it panel by panel; bf16 means f32 streams with the inputs of large
    /// products rounded to bf16 where the processor gains from it ([`Compute::on`]).
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense, or a tensor is missing or has another shape.
    pub fn load(config: &FluxConfig, weights: &Weights, mode: WeightsMode, compute: Compute) -> Result<Self> {
        Self::load_from(config, &Parameters::real(weights).held_as_stored(), mode, compute)
    }

    /// As [`Transformer::load`], from weights or in a dry pass.
    pub(super) fn load_from(
        config: &FluxConfig,
        parameters: &Parameters,
        mode: WeightsMode,
        compute: Compute,
    ) -> Result<Self> {
        config.check()?;
        let ends = compute.exact();
        let (channels, hidden) = (config.in_channels, config.hidden_size());
        Ok(Self {
            config: config.clone(),
            compute,
            options: ForwardOptions::default(),
            x_embedder: parameters.linear("x_embedder", channels, hidden, ends)?,
            context_embedder: parameters.linear("context_embedder", config.joint_attention_dim, hidden, ends)?,
            time_text_embed: TimeTextEmbed::load(parameters, config)?,
            blocks: stream::blocks(config, parameters, mode, compute)?,
            norm_out: Modulation::load(parameters, "norm_out.linear", hidden, true, ends)?,
            proj_out: parameters.linear("proj_out", hidden, channels, ends)?,
        })
    }

    /// The same model with other sizes of the pieces it computes in; they change memory and speed, not the result.
    #[must_use]
    pub fn with_options(self, options: ForwardOptions) -> Self {
        Self { options, ..self }
    }

    /// [`Transformer::with_options`] in place.
    pub(crate) fn set_options(&mut self, options: ForwardOptions) {
        self.options = options;
    }

    /// The model's dimensions.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// The velocity [1, N, 64] (f32) at t for packed latents img [1, N, 64], the prompt as T5 sees it [1, T, joint] and
    /// as CLIP sees it [1, P], and a guidance scale where the model takes one; `rope` holds T + N tokens.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the model takes a guidance scale and there is none; [`crate::Error::Tensor`] when shapes do not
    /// fit or the device fails.
    pub fn forward(
        &self,
        img: &Tensor,
        prompt_embeds: &Tensor,
        pooled: &Tensor,
        t: f64,
        guidance: Option<f64>,
        rope: &RopeTables,
    ) -> Result<Tensor> {
        let inputs = Inputs::new(img, prompt_embeds, rope);
        Ok(self.velocity(&inputs, &Array::from(pooled.clone()), t, guidance)?.real()?.clone())
    }

    /// [`Transformer::forward`] of arrays, real or dry.
    pub(super) fn velocity(&self, inputs: &Inputs, pooled: &Array, t: f64, guidance: Option<f64>) -> Result<Array> {
        let txt = streams::tokens(&inputs.prompt_embeds, self.config.joint_attention_dim, self.compute.dtype)?; // [T, joint]
        let img = streams::tokens(&inputs.img, self.config.in_channels, self.compute.dtype)?; // [N, 64]
        let vec = self.time_text_embed.forward(t, guidance, pooled)?.silu()?.to_dtype(self.compute.dtype)?; // [1, C]
        let tokens = [txt.dim(0), img.dim(0)];
        let pass: Pass = inputs.pass(vec, tokens, self.config.heads(), self.compute, self.options)?;
        let sides = [(&self.context_embedder, &txt), (&self.x_embedder, &img)];
        let x = streams::embed(sides, self.config.hidden_size(), self.options)?; // [T + N, C]
        drop((txt, img));
        inputs.run(&self.blocks, (&x, &pass), |_, block| block.forward(&x, &pass))?;
        let [scale, shift] = self.norm_out.forward(&pass.vec)?;
        streams::project(&x, &pass, [&shift, &scale], &self.proj_out, self.config.in_channels) // [1, N, 64]
    }

    /// The mean of the token embedder's weight over its outputs \[64\].
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn mean_embedding(&self, device: &Device) -> Result<Vec<f64>> {
        streams::mean_embedding(&self.x_embedder, self.config.in_channels, self.compute.dtype, device)
    }
}
