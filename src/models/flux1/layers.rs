//! The layers only FLUX.1 is made of, under the names of diffusers' checkpoints.

use candle_core::DType;

use super::FluxConfig;
use crate::{
    error::{Error, Result},
    models::parts::{
        SINUSOID_CHANNELS,
        modulation::{Embedder, sinusoidal},
    },
    nn::{Array, Parameters},
};

/// The conditioning that modulates every block: t, guidance and the pooled prompt, in f32.
#[derive(Debug, Clone)]
pub struct TimeTextEmbed {
    timestep_embedder: Embedder,
    guidance_embedder: Option<Embedder>,
    text_embedder: Embedder,
}

impl TimeTextEmbed {
    /// The layers under `time_text_embed`.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, config: &FluxConfig) -> Result<Self> {
        let parameters = parameters.pp("time_text_embed");
        let channels = config.hidden_size();
        let embedder = |name, inputs| Embedder::load(&parameters, name, [inputs, channels], true);
        let time = |name| embedder(name, SINUSOID_CHANNELS);
        Ok(Self {
            timestep_embedder: time("timestep_embedder")?,
            guidance_embedder: if config.guidance_embeds { Some(time("guidance_embedder")?) } else { None },
            text_embedder: embedder("text_embedder", config.pooled_projection_dim)?,
        })
    }

    /// vec [1, C] for t in [0, 1], a guidance scale where the model takes one, and the pooled prompt [1, P].
    ///
    /// # Errors
    /// [`Error::Request`] when the model takes a guidance scale and there is none.
    pub fn forward(&self, t: f64, guidance: Option<f64>, pooled: &Array) -> Result<Array> {
        let place = pooled.place();
        let mut vec = self.timestep_embedder.forward(&sinusoidal(t, &place)?)?;
        if let Some(embedder) = &self.guidance_embedder {
            let guidance = guidance.ok_or_else(|| {
                Error::request("this model takes a guidance scale and none was given", "give one, for example 4.5")
            })?;
            vec = vec.add(&embedder.forward(&sinusoidal(guidance, &place)?)?)?;
        }
        vec.add(&self.text_embedder.forward(&pooled.to_dtype(DType::F32)?)?) // [1, C]
    }
}
