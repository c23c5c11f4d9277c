//! The forward pass: noisy latents, prompt and time in, velocity out.

use candle_core::{DType, Device, Tensor};

use super::QwenImageConfig;
use crate::{
    error::Result,
    models::{
        ForwardOptions,
        parts::{
            SINUSOID_CHANNELS,
            config::Config,
            double::{DoubleBlock, DoubleNames, StreamNames},
            modulation::{Embedder, Modulation, sinusoidal},
            streams::{self, Inputs, Pass},
        },
    },
    nn::{Array, Blocks, Compute, Linear, NORM_EPS, Parameters, RmsNorm, RopeTables, WeightsMode},
    weights::Weights,
};

/// How a block calls what its two streams are made of. Source: diffusers, `QwenImageTransformerBlock`.
const NAMES: DoubleNames = DoubleNames {
    txt: StreamNames {
        norm1: "txt_mod.1",
        to_out: "to_add_out",
        ff: "txt_mlp",
        attn: ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"],
    },
    img: StreamNames {
        norm1: "img_mod.1",
        to_out: "to_out.0",
        ff: "img_mlp",
        attn: ["to_q", "to_k", "to_v", "norm_q", "norm_k"],
    },
};

/// The transformer, a velocity field over packed latents. Source: diffusers, `QwenImageTransformer2DModel`.
pub struct Transformer {
    config: QwenImageConfig,
    compute: Compute,
    options: ForwardOptions,
    img_in: Linear,
    txt_norm: RmsNorm,
    txt_in: Linear,
    timestep_embedder: Embedder,
    blocks: Blocks<DoubleBlock>,
    norm_out: Modulation<2>,
    proj_out: Linear,
}

impl Transformer {
    /// Loads a model. `weights` says in which number type the weights are held and where; `compute` what the streams compute in.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense, or a tensor is missing or has another shape.
    pub fn load(config: &QwenImageConfig, weights: &Weights, mode: WeightsMode, compute: Compute) -> Result<Self> {
        Self::load_from(config, &Parameters::real(weights).held_as_stored(), mode, compute)
    }

    /// As [`Transformer::load`], from weights or in a dry pass.
    pub(super) fn load_from(
        config: &QwenImageConfig,
        parameters: &Parameters,
        mode: WeightsMode,
        compute: Compute,
    ) -> Result<Self> {
        config.check()?;
        let (ends, channels, hidden) = (compute.exact(), config.in_channels, config.hidden_size());
        let time = parameters.pp("time_text_embed");
        Ok(Self {
            config: config.clone(),
            compute,
            options: ForwardOptions::default(),
            img_in: parameters.linear("img_in", channels, hidden, ends)?,
            txt_norm: RmsNorm::load(&parameters.pp("txt_norm"), config.joint_attention_dim, NORM_EPS)?,
            txt_in: parameters.linear("txt_in", config.joint_attention_dim, hidden, ends)?,
            timestep_embedder: Embedder::load(&time, "timestep_embedder", [SINUSOID_CHANNELS, hidden], true)?,
            blocks: blocks(config, parameters, mode, compute)?,
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
    pub(super) fn set_options(&mut self, options: ForwardOptions) {
        self.options = options;
    }

    /// The velocity [1, N, 64] (f32) at t for packed latents img [1, N, 64] and the prompt's hidden states [1, T, joint];
    /// `rope` holds T + N tokens, text first.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] when shapes do not fit or the device fails.
    pub fn forward(&self, img: &Tensor, prompt_embeds: &Tensor, t: f64, rope: &RopeTables) -> Result<Tensor> {
        Ok(self.velocity(&Inputs::new(img, prompt_embeds, rope), t)?.real()?.clone())
    }

    /// [`Transformer::forward`] of arrays, real or dry.
    pub(super) fn velocity(&self, inputs: &Inputs, t: f64) -> Result<Array> {
        let txt = streams::tokens(&inputs.prompt_embeds, self.config.joint_attention_dim, DType::F32)?; // [T, joint]
        let txt = self.txt_norm.forward(&txt)?.to_dtype(self.compute.dtype)?;
        let img = streams::tokens(&inputs.img, self.config.in_channels, self.compute.dtype)?; // [N, 64]
        let pass = self.begin([txt.dim(0), img.dim(0)], inputs, t)?;
        let x = streams::embed([(&self.txt_in, &txt), (&self.img_in, &img)], self.config.hidden_size(), self.options)?;
        drop((txt, img));
        let last = self.blocks.count().saturating_sub(1);
        // Nobody looks at what the last block makes of the text.
        inputs.run(&self.blocks, (&x, &pass), |index, block| block.forward(&x, &pass, index < last))?; // [T + N, C]
        let [scale, shift] = self.norm_out.forward(&pass.vec)?;
        streams::project(&x, &pass, [&shift, &scale], &self.proj_out, self.config.in_channels) // [1, N, 64]
    }

    /// What t becomes before silu: [1, C] f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn time_embedding(&self, t: f64, device: &Device) -> Result<Tensor> {
        let place = Array::from(Tensor::zeros(1, DType::F32, device)?).place();
        Ok(self.timestep_embedder.forward(&sinusoidal(t, &place)?)?.real()?.clone())
    }

    /// The mean of the token embedder's weight over its outputs \[64\].
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn mean_embedding(&self, device: &Device) -> Result<Vec<f64>> {
        streams::mean_embedding(&self.img_in, self.config.in_channels, self.compute.dtype, device)
    }

    /// What all blocks share: the conditioning, the tables, room for keys and values.
    fn begin(&self, tokens: [usize; 2], inputs: &Inputs, t: f64) -> Result<Pass<Array>> {
        let time = self.timestep_embedder.forward(&sinusoidal(t, &inputs.img.place())?)?;
        let vec = time.silu()?.to_dtype(self.compute.dtype)?; // [1, C]
        inputs.pass(vec, tokens, self.config.heads(), self.compute, self.options)
    }
}

/// All blocks; the last is of a kind of its own, since it leaves the text alone.
fn blocks(
    config: &QwenImageConfig,
    parameters: &Parameters,
    mode: WeightsMode,
    compute: Compute,
) -> Result<Blocks<DoubleBlock>> {
    let kinds = [config.num_layers - 1, 1];
    let heads = config.heads();
    Blocks::new(&kinds, mode, parameters, move |index, parameters| {
        let parameters = parameters.pp("transformer_blocks").pp(index);
        let block = DoubleBlock::load(&parameters, &NAMES, heads, compute)?;
        // What was read is copied: its mapped pages would only make the process look, and be, larger than it is.
        parameters.release();
        Ok(block)
    })
}
