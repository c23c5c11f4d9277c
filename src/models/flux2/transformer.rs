//! The forward pass: noisy latents, prompt and time in, velocity out.

use candle_core::{Device, Tensor};

use super::{
    Flux2Config,
    blocks::{self, Block, Modulations, Pass},
};
use crate::{
    error::Result,
    models::{
        ForwardOptions,
        parts::{
            SINUSOID_CHANNELS,
            config::Config,
            modulation::{Embedder, Modulation, sinusoidal},
            streams::{self, Inputs},
        },
    },
    nn::{Array, Blocks, Compute, Linear, Parameters, RopeTables, WeightsMode},
    weights::Weights,
};

/// The FLUX.2 transformer, a velocity field over packed latents. Source: diffusers, Flux2Transformer2DModel.
pub struct Transformer {
    config: Flux2Config,
    compute: Compute,
    options: ForwardOptions,
    x_embedder: Linear,
    context_embedder: Linear,
    timestep_embedder: Embedder,
    txt_modulation: Modulation<6>,
    img_modulation: Modulation<6>,
    single_modulation: Modulation<3>,
    blocks: Blocks<Block>,
    norm_out: Modulation<2>,
    proj_out: Linear,
}

impl Transformer {
    /// Loads a model. `mode` says where the weights of the blocks live; `compute` what the streams compute in, on the CPU in f32 with the
    /// inputs of large products rounded to bf16 where that is asked and the processor gains from it ([`Compute::on`]).
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense, or a tensor is missing or has another shape.
    pub fn load(config: &Flux2Config, weights: &Weights, mode: WeightsMode, compute: Compute) -> Result<Self> {
        Self::load_from(config, &Parameters::real(weights).held_as_stored(), mode, compute)
    }

    /// As [`Transformer::load`], from weights or in a dry pass.
    pub(super) fn load_from(
        config: &Flux2Config,
        parameters: &Parameters,
        mode: WeightsMode,
        compute: Compute,
    ) -> Result<Self> {
        config.check()?;
        let ends = compute.exact();
        let (channels, hidden) = (config.in_channels, config.hidden_size());
        let time = parameters.pp("time_guidance_embed");
        Ok(Self {
            config: config.clone(),
            compute,
            options: ForwardOptions::default(),
            x_embedder: parameters.linear_no_bias("x_embedder", channels, hidden, ends)?,
            context_embedder: parameters.linear_no_bias(
                "context_embedder",
                config.joint_attention_dim,
                hidden,
                ends,
            )?,
            timestep_embedder: Embedder::load(&time, "timestep_embedder", [SINUSOID_CHANNELS, hidden], false)?,
            txt_modulation: Modulation::load(parameters, "double_stream_modulation_txt.linear", hidden, false, ends)?,
            img_modulation: Modulation::load(parameters, "double_stream_modulation_img.linear", hidden, false, ends)?,
            single_modulation: Modulation::load(parameters, "single_stream_modulation.linear", hidden, false, ends)?,
            blocks: blocks::blocks(config, parameters, mode, compute)?,
            norm_out: Modulation::load(parameters, "norm_out.linear", hidden, false, ends)?,
            proj_out: parameters.linear_no_bias("proj_out", hidden, channels, ends)?,
        })
    }

    /// The same model with other sizes of the pieces it computes in; they change memory and speed, not the result.
    #[must_use]
    pub fn with_options(self, options: ForwardOptions) -> Self {
        Self { options, ..self }
    }

    /// [`Transformer::with_options`] in place.
    pub(super) fn set_options(&mut self, options: ForwardOptions) {
        self.options = options;
    }

    /// The velocity [1, N, 128] (f32) at t for packed latents img [1, N, 128] and the prompt's embeddings [1, T, joint]; `rope`
    /// holds T + N tokens.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] when shapes do not fit or the device fails.
    pub fn forward(&self, img: &Tensor, prompt_embeds: &Tensor, t: f64, rope: &RopeTables) -> Result<Tensor> {
        Ok(self.velocity(&Inputs::new(img, prompt_embeds, rope), t)?.real()?.clone())
    }

    /// [`Transformer::forward`] of arrays, real or dry.
    pub(super) fn velocity(&self, inputs: &Inputs, t: f64) -> Result<Array> {
        let txt = streams::tokens(&inputs.prompt_embeds, self.config.joint_attention_dim, self.compute.dtype)?; // [T, joint]
        let img = streams::tokens(&inputs.img, self.config.in_channels, self.compute.dtype)?; // [N, 128]
        let pass = self.begin([txt.dim(0), img.dim(0)], inputs, t)?;
        let sides = [(&self.context_embedder, &txt), (&self.x_embedder, &img)];
        let x = streams::embed(sides, self.config.hidden_size(), self.options)?; // [T + N, C]
        drop((txt, img));
        inputs.run(&self.blocks, (&x, &pass), |_, block| block.forward(&x, &pass))?;
        let [shift, scale] = &pass.vec.out;
        streams::project(&x, &pass, [shift, scale], &self.proj_out, self.config.in_channels) // [1, N, 128]
    }

    /// The mean of the token embedder's weight over its outputs \[128\].
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn mean_embedding(&self, device: &Device) -> Result<Vec<f64>> {
        streams::mean_embedding(&self.x_embedder, self.config.in_channels, self.compute.dtype, device)
    }

    /// What all blocks share: what modulates them, the tables, room for keys and values.
    fn begin(&self, tokens: [usize; 2], inputs: &Inputs, t: f64) -> Result<Pass> {
        let embedded = self.timestep_embedder.forward(&sinusoidal(t, &inputs.cos.place())?)?;
        let vec = embedded.silu()?.to_dtype(self.compute.dtype)?; // [1, C]
        // As diffusers' files have it: scale, then shift.
        let [scale, shift] = self.norm_out.forward(&vec)?;
        let modulations = Modulations {
            txt: self.txt_modulation.forward(&vec)?,
            img: self.img_modulation.forward(&vec)?,
            single: self.single_modulation.forward(&vec)?,
            out: [shift, scale],
        };
        inputs.pass(modulations, tokens, self.config.heads(), self.compute, self.options)
    }
}
