//! What the moment, and whatever else conditions a transformer, becomes: an embedding, and vectors that modulate streams.

use super::{sinusoid, streams::linear};
use crate::{
    error::{Error, Result},
    nn::{Array, Compute, Linear, Parameters, Place},
};

/// t and guidance are embedded in thousandths. Source: diffusers, FluxTransformer2DModel.forward.
const TIME_SCALE: f64 = 1000.0;

/// `COUNT` vectors \[C\] that shift, scale and gate a stream, computed from the conditioning.
#[derive(Debug, Clone)]
pub(crate) struct Modulation<const COUNT: usize>(Linear);

impl<const COUNT: usize> Modulation<COUNT> {
    /// `{name}` as a layer from C to COUNT·C channels.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape.
    pub fn load(
        parameters: &Parameters,
        name: &str,
        channels: usize,
        has_bias: bool,
        compute: Compute,
    ) -> Result<Self> {
        let sizes = [channels, COUNT * channels];
        Ok(Self(linear(parameters, name, sizes, has_bias, compute.exact())?))
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

/// Two linear layers with silu between them, in f32.
#[derive(Debug, Clone)]
pub(crate) struct Embedder {
    linear_1: Linear,
    linear_2: Linear,
}

impl Embedder {
    /// `{name}.linear_1` and `{name}.linear_2`.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, name: &str, [inputs, channels]: [usize; 2], has_bias: bool) -> Result<Self> {
        let parameters = parameters.pp(name);
        let layer = |name, inputs| linear(&parameters, name, [inputs, channels], has_bias, Compute::EXACT_F32);
        Ok(Self { linear_1: layer("linear_1", inputs)?, linear_2: layer("linear_2", channels)? })
    }

    /// For x [1, inputs]: [1, channels].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.linear_2.forward(&self.linear_1.forward(x)?.silu()?)
    }
}

/// t, or a guidance scale, in thousandths, embedded: [1, 256].
///
/// # Errors
/// When the device fails.
pub(crate) fn sinusoidal(x: f64, place: &Place) -> Result<Array> {
    sinusoid((TIME_SCALE * x) as f32, place)
}
