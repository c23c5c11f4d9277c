//! The forward pass: noisy latents, prompt and time in, velocity out.

use candle_core::{DType, Device};

use super::{
    LATENTS, ZImageConfig,
    blocks::{Block, Pass},
    config::padded,
};
use crate::{
    error::Result,
    models::{
        FirstBlock, ForwardOptions,
        parts::{SINUSOID_CHANNELS, config::Config, sinusoid, streams},
    },
    nn::{self, Array, Blocks, Compute, KeyBias, Linear, Parameters, RmsNorm, WeightsMode},
    weights::Weights,
};

/// Width between both layers that embed t. Source: diffusers, `TimestepEmbedder(mid_size=1024)`.
const TIME_HIDDEN: usize = 1024;

/// The Z-Image transformer, a velocity field over packed latents. Source: diffusers, ZImageTransformer2DModel.
pub struct Transformer {
    config: ZImageConfig,
    compute: Compute,
    options: ForwardOptions,
    x_embedder: Linear,
    cap_norm: RmsNorm,
    cap_embedder: Linear,
    /// What stands in padding, [1, C]: picture, text.
    pads: [Array; 2],
    t_embedder: [Linear; 2],
    /// Layers that see the text alone.
    context_refiner: Blocks<Block>,
    /// Layers that see the picture alone, and behind them those that see all.
    blocks: Blocks<Block>,
    final_scale: Linear,
    final_linear: Linear,
}

/// What a forward pass is given.
pub(super) struct Inputs {
    /// Packed latents [1, N, 64], f32.
    pub img: Array,
    /// The text [M, C], refined and padded, in the number type of the streams ([`Transformer::refine`]).
    pub text: Array,
    /// Tokens of the text that are no padding.
    pub text_tokens: usize,
    /// Cosines of every token's angles [N + padding + M, D/2], f32.
    pub cos: Array,
    /// Sines of every token's angles, likewise.
    pub sin: Array,
    /// What is asked for beside.
    pub asked: streams::Asked,
}

impl Transformer {
    /// Loads a model. `weights` says in which number type the weights are held and where; `compute` what the streams compute in.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the configuration makes no sense, or a tensor is missing or has another shape.
    pub fn load(config: &ZImageConfig, weights: &Weights, mode: WeightsMode, compute: Compute) -> Result<Self> {
        Self::load_from(config, &Parameters::real(weights).held_as_stored(), mode, compute)
    }

    /// As [`Transformer::load`], from weights or in a dry pass.
    pub(super) fn load_from(
        config: &ZImageConfig,
        parameters: &Parameters,
        mode: WeightsMode,
        compute: Compute,
    ) -> Result<Self> {
        config.check()?;
        let ends = compute.exact();
        let (channels, time, token) = (config.dim, config.time_channels(), LATENTS.token_channels());
        let pad = |name| parameters.with_dtype(compute.dtype).get(name, &[1, channels]);
        let caption = parameters.pp("cap_embedder");
        let t_embedder = parameters.pp("t_embedder").pp("mlp");
        let last = parameters.pp("all_final_layer").pp("2-1");
        Ok(Self {
            config: config.clone(),
            compute,
            options: ForwardOptions::default(),
            x_embedder: parameters.pp("all_x_embedder").linear("2-1", token, channels, ends)?,
            cap_norm: RmsNorm::load(&caption.pp("0"), config.cap_feat_dim, config.norm_eps)?,
            cap_embedder: caption.linear("1", config.cap_feat_dim, channels, ends)?,
            pads: [pad("x_pad_token")?, pad("cap_pad_token")?],
            t_embedder: [
                t_embedder.linear("0", SINUSOID_CHANNELS, TIME_HIDDEN, Compute::EXACT_F32)?,
                t_embedder.linear("2", TIME_HIDDEN, time, Compute::EXACT_F32)?,
            ],
            context_refiner: context_refiner(config, parameters, mode, compute)?,
            blocks: blocks(config, parameters, mode, compute)?,
            final_scale: last.linear("adaLN_modulation.1", time, channels, ends)?,
            final_linear: last.linear("linear", channels, token, ends)?,
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

    /// What the layers make of a text alone: hidden states [T, F] f32 become tokens [M, C], T and padding. `tables` are those of
    /// the M tokens. It depends on nothing else, so that one of them serves all steps.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub(super) fn refine(&self, hidden_states: &Array, tables: [Array; 2]) -> Result<Array> {
        let tokens = hidden_states.dim(0);
        let x = hidden_states.place().zeros(&[padded(tokens), self.config.dim], self.compute.dtype)?; // [M, C]
        let normed = self.cap_norm.forward(&hidden_states.to_dtype(DType::F32)?)?.to_dtype(self.compute.dtype)?;
        x.slice_set(&self.cap_embedder.forward(&normed)?, 0, 0)?;
        self.pad(&x, tokens, padded(tokens), &self.pads[1])?;
        drop(normed);
        let pass = Pass::new(&self.config, None, tables, (self.compute, self.options))?;
        self.context_refiner.for_each(|_, block| block.forward(&x, &pass))?;
        Ok(x)
    }

    /// The velocity [1, N, 64] (f32) at sigma `t`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub(super) fn velocity(&self, inputs: &Inputs, t: f64) -> Result<Array> {
        let (tokens, text) = (inputs.img.dim(1), inputs.text.dim(0));
        let picture = padded(tokens);
        if inputs.cos.dim(0) != picture + text {
            let found = inputs.cos.dim(0);
            return Err(nn::mismatch(format!("position tables of {found} tokens for {picture} and {text}")));
        }
        let time = self.time(t, inputs)?;
        let x = self.embed(inputs)?; // [N + padding + M, C]
        let mut pass = self.pass_over(picture, &time, inputs)?;
        let mut sees_text = false;
        // The first of the layers that see all decides whether the others are left out.
        let (cache, first) = (inputs.asked.first_block.as_deref(), self.config.n_refiner_layers);
        FirstBlock::run_within(cache, &self.blocks, first, (&x, 0..tokens), |index, block| {
            if index >= self.config.n_refiner_layers && !sees_text {
                // The room of the layers before goes first.
                drop(pass.take());
                pass = self.pass_over(picture + text, &time, inputs)?;
                sees_text = true;
            }
            pass.as_ref().map_or(Ok(()), |pass| block.forward(&x, pass))
        })?;
        drop(pass);
        self.project(&x, tokens, &time)
    }

    /// A pass over the first `tokens` of all.
    fn pass_over(&self, tokens: usize, time: &Array, inputs: &Inputs) -> Result<Option<Pass>> {
        let tables = [inputs.cos.narrow(0, 0, tokens)?, inputs.sin.narrow(0, 0, tokens)?];
        let mut pass = Pass::new(&self.config, Some(time.clone()), tables, (self.compute, self.options))?;
        let picture = padded(inputs.img.dim(1));
        pass.logit_scale = inputs.asked.logit_scale;
        let bias = inputs.asked.text_bias.filter(|_| tokens > picture);
        pass.bias = bias.map(|bias| KeyBias { runs: vec![(picture, 0.0), (inputs.text_tokens, bias)] });
        Ok(Some(pass))
    }

    /// t, embedded [1, min(C, 256)]. The model's own time is 1 - sigma, which the reference computes in f32.
    fn time(&self, t: f64, inputs: &Inputs) -> Result<Array> {
        let timestep = 1000.0 * t as f32;
        let time = (1000.0 - timestep) / 1000.0 * self.config.t_scale as f32;
        let [first, second] = &self.t_embedder;
        let hidden = first.forward(&sinusoid(time, &inputs.img.place())?)?.silu()?;
        second.forward(&hidden)?.to_dtype(self.compute.dtype)
    }

    /// Writes `token` over rows `start..end` of x.
    fn pad(&self, x: &Array, start: usize, end: usize, token: &Array) -> Result<()> {
        if start == end {
            return Ok(());
        }
        let rows = token.broadcast_as(&[end - start, self.config.dim])?.contiguous()?;
        x.slice_set(&rows, 0, start)
    }

    /// All tokens in one stream: picture, its padding, text with its own.
    fn embed(&self, inputs: &Inputs) -> Result<Array> {
        let (place, tokens) = (inputs.img.place(), inputs.img.dim(1));
        let (picture, text) = (padded(tokens), inputs.text.dim(0));
        let x = place.zeros(&[picture + text, self.config.dim], self.compute.dtype)?;
        let img = channels_last(&inputs.img.squeeze(0)?)?.to_dtype(self.compute.dtype)?; // [N, 64]
        place.pieces(0..tokens, self.options.token_chunk, |start, count| {
            x.slice_set(&self.x_embedder.forward(&img.narrow(0, start, count)?)?, 0, start) // [C', C]
        })?;
        self.pad(&x, tokens, picture, &self.pads[0])?;
        x.slice_set(&inputs.text, 0, picture)?;
        Ok(x)
    }

    /// The picture tokens' velocity: [1, N, 64]. The model predicts the way to the picture, which is minus the velocity.
    fn project(&self, x: &Array, tokens: usize, time: &Array) -> Result<Array> {
        let scale = self.final_scale.forward(&time.silu()?)?.squeeze(0)?; // [C]
        let shift = x.place().zeros(&[self.config.dim], scale.dtype())?;
        let rows = (0..tokens, self.options.token_chunk);
        let output = streams::project_rows(x, rows, [&shift, &scale], &self.final_linear, LATENTS.token_channels())?;
        channels_first(&output)?.affine(-1.0, 0.0)?.unsqueeze(0)
    }

    /// The mean of the token embedder's weight over its outputs \[64\]: what it makes of each channel alone, less what it makes
    /// of nothing.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn mean_embedding(&self, device: &Device) -> Result<Vec<f64>> {
        let channels = LATENTS.token_channels();
        let own = streams::mean_embedding(&self.x_embedder, channels, self.compute.dtype, device)?;
        // Its channels are the fastest, those of packed tokens the slowest.
        let positions = LATENTS.patch * LATENTS.patch;
        Ok((0..channels).map(|at| own[at % positions * LATENTS.channels + at / positions]).collect())
    }
}

/// Packed tokens [N, 64] as this model takes them: (row, column, channel), the channel fastest.
fn channels_last(tokens: &Array) -> Result<Array> {
    exchanged(tokens, [LATENTS.channels, LATENTS.patch * LATENTS.patch])
}

/// Tokens of this model [N, 64] as they are packed: (channel, row, column), the column fastest.
fn channels_first(tokens: &Array) -> Result<Array> {
    exchanged(tokens, [LATENTS.patch * LATENTS.patch, LATENTS.channels])
}

fn exchanged(tokens: &Array, [outer, inner]: [usize; 2]) -> Result<Array> {
    let (count, channels) = tokens.dims2()?;
    let parts = tokens.reshape(&[count, outer, inner])?; // [N, outer, inner]
    parts.transpose(1, 2)?.reshape(&[count, channels]) // [N, inner·outer]
}

/// The layers that see the text alone. They are needed once a prompt: streamed ones are read where they are, beside nothing.
fn context_refiner(
    config: &ZImageConfig,
    parameters: &Parameters,
    mode: WeightsMode,
    compute: Compute,
) -> Result<Blocks<Block>> {
    let (count, config) = ([config.n_refiner_layers], config.clone());
    let load = move |index, parameters: &Parameters| {
        Block::load(&parameters.pp("context_refiner").pp(index), &config, compute, false)
    };
    match mode {
        WeightsMode::Resident | WeightsMode::Part { .. } => {
            Blocks::new(&count, WeightsMode::Resident, parameters, load)
        }
        WeightsMode::Stream => Ok(Blocks::one_by_one(&count, parameters, load)),
    }
}

/// The layers that see the picture alone, then those that see all.
fn blocks(
    config: &ZImageConfig,
    parameters: &Parameters,
    mode: WeightsMode,
    compute: Compute,
) -> Result<Blocks<Block>> {
    let kinds = [config.n_refiner_layers, config.n_layers];
    let config = config.clone();
    Blocks::new(&kinds, mode, parameters, move |index, parameters| {
        let parameters = match index.checked_sub(config.n_refiner_layers) {
            None => parameters.pp("noise_refiner").pp(index),
            Some(layer) => parameters.pp("layers").pp(layer),
        };
        Block::load(&parameters, &config, compute, true)
    })
}
