//! The layers FLUX is made of, under the names of diffusers' checkpoints.

use candle_core::DType;

use super::FluxConfig;
use crate::{
    error::{Error, Result},
    models::parts::{SINUSOID_CHANNELS, sinusoid},
    nn::{Array, Compute, Linear, Parameters, Place},
};

/// t and guidance are embedded in thousandths. Source: diffusers, FluxTransformer2DModel.forward.
const TIME_SCALE: f64 = 1000.0;

/// `COUNT` vectors \[C\] that shift, scale and gate a stream, computed from the pooled conditioning.
#[derive(Debug, Clone)]
pub struct Modulation<const COUNT: usize>(Linear);

impl<const COUNT: usize> Modulation<COUNT> {
    /// `{name}` as a layer from C to COUNT·C channels.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, name: &str, channels: usize, compute: Compute) -> Result<Self> {
        Ok(Self(parameters.linear(name, channels, COUNT * channels, compute.exact())?))
    }

    /// The vectors for silu(vec) [1, C].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, vec: &Array) -> Result<[Array; COUNT]> {
        let all = self.0.forward(vec)?.squeeze(0)?; // [COUNT·C]
        let channels = all.dim(0) / COUNT;
        let parts = (0..COUNT).map(|i| all.narrow(0, i * channels, channels)).collect::<Result<Vec<_>>>()?;
        parts.try_into().map_err(|_| Error::model("a modulation of another size", ""))
    }
}

/// Two linear layers with silu between them.
#[derive(Debug, Clone)]
struct Embedder {
    linear_1: Linear,
    linear_2: Linear,
}

impl Embedder {
    fn load(parameters: &Parameters, name: &str, inputs: usize, channels: usize) -> Result<Self> {
        let parameters = parameters.pp(name);
        Ok(Self {
            linear_1: parameters.linear("linear_1", inputs, channels, Compute::EXACT_F32)?,
            linear_2: parameters.linear("linear_2", channels, channels, Compute::EXACT_F32)?,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        self.linear_2.forward(&self.linear_1.forward(x)?.silu()?)
    }
}

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
        let time = |name| Embedder::load(&parameters, name, SINUSOID_CHANNELS, channels);
        Ok(Self {
            timestep_embedder: time("timestep_embedder")?,
            guidance_embedder: if config.guidance_embeds { Some(time("guidance_embedder")?) } else { None },
            text_embedder: Embedder::load(&parameters, "text_embedder", config.pooled_projection_dim, channels)?,
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

/// A number in thousandths, embedded: [1, 256].
fn sinusoidal(x: f64, place: &Place) -> Result<Array> {
    sinusoid((TIME_SCALE * x) as f32, place)
}
