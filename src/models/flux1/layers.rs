//! The layers FLUX is made of, under the names of diffusers' checkpoints.

use candle_core::{DType, Device, Tensor};

use super::FluxConfig;
use crate::{
    error::{Error, Result},
    nn::{self, Activation, Products},
    weights::Weights,
};

/// Channels of the sinusoidal embedding of t and guidance. Source: diffusers, CombinedTimestepGuidanceTextProjEmbeddings.
pub(super) const TIME_CHANNELS: usize = 256;
/// t and guidance are embedded in thousandths. Source: diffusers, FluxTransformer2DModel.forward.
const TIME_SCALE: f64 = 1000.0;
/// The slowest period of the sinusoidal embedding. Source: diffusers, get_timestep_embedding.
const MAX_PERIOD: f64 = 10_000.0;

/// What the streams compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// The number type of tokens, keys and values.
    pub dtype: DType,
    /// How the large products multiply.
    pub products: Products,
    /// Whether it is the CPU's own kernels that compute, which work in place and hold no scores; else tensors do.
    pub own_kernels: bool,
}

impl Compute {
    /// f32 throughout, on the CPU.
    pub const EXACT_F32: Self = Self { dtype: DType::F32, products: Products::Exact, own_kernels: true };

    /// What a device computes in when asked for `dtype`: bf16 on the CPU is f32 with the large products rounded.
    pub fn on(device: &Device, dtype: DType) -> Self {
        Self::on_kind(device.is_cpu(), dtype)
    }

    /// As [`Compute::on`], where a device need not be at hand: for plans.
    pub fn on_kind(is_cpu: bool, dtype: DType) -> Self {
        match (is_cpu, dtype) {
            (true, DType::BF16) => Self { products: Products::Rounded, ..Self::EXACT_F32 },
            (true, DType::F32) => Self::EXACT_F32,
            _ => Self { dtype, products: Products::Exact, own_kernels: false },
        }
    }

    /// The same for small layers whose rounding would reach every token: modulation, the first and the last layer.
    pub fn exact(self) -> Self {
        Self { products: Products::Exact, ..self }
    }
}

/// `x·weightᵀ + bias`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    products: Products,
}

impl Linear {
    /// `{name}.weight` [outputs, inputs] in the number type of `weights`, and `{name}.bias` in that of the stream.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape.
    pub fn load(weights: &Weights, name: &str, inputs: usize, outputs: usize, compute: Compute) -> Result<Self> {
        let weights = weights.pp(name);
        let weight = weights.get("weight", &[outputs, inputs])?;
        let bias = weights.get("bias", &[outputs])?.to_dtype(compute.dtype)?;
        Ok(Self { weight, bias: Some(bias), products: compute.products })
    }

    /// For x [C, in]: [C, out].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        nn::linear_in(self.products, x, &self.weight, self.bias.as_ref(), Activation::None)
    }

    /// The same with gelu behind it.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        nn::linear_in(self.products, x, &self.weight, self.bias.as_ref(), Activation::Gelu)
    }

    /// Two layers whose sum this is, for an input of `inputs` channels and the rest; the weight is shared, not copied.
    ///
    /// # Errors
    /// When there are fewer channels than that.
    pub fn split_inputs(&self, inputs: usize) -> Result<(Self, Self)> {
        let rest = self.weight.dim(1)? - inputs;
        let first = Self { weight: self.weight.narrow(1, 0, inputs)?, bias: self.bias.clone(), ..*self };
        let second = Self { weight: self.weight.narrow(1, inputs, rest)?, bias: None, ..*self };
        Ok((first, second))
    }
}

/// `COUNT` vectors \[C\] that shift, scale and gate a stream, computed from the pooled conditioning.
#[derive(Debug, Clone)]
pub struct Modulation<const COUNT: usize>(Linear);

impl<const COUNT: usize> Modulation<COUNT> {
    /// `{name}` as a layer from C to COUNT·C channels.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape.
    pub fn load(weights: &Weights, name: &str, channels: usize, compute: Compute) -> Result<Self> {
        Ok(Self(Linear::load(weights, name, channels, COUNT * channels, compute.exact())?))
    }

    /// The vectors for silu(vec) [1, C].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, vec: &Tensor) -> Result<[Tensor; COUNT]> {
        let all = self.0.forward(vec)?.squeeze(0)?; // [COUNT·C]
        let channels = all.dim(0)? / COUNT;
        let parts = (0..COUNT).map(|i| Ok(all.narrow(0, i * channels, channels)?)).collect::<Result<Vec<_>>>()?;
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
    fn load(weights: &Weights, name: &str, inputs: usize, channels: usize) -> Result<Self> {
        let weights = weights.pp(name);
        Ok(Self {
            linear_1: Linear::load(&weights, "linear_1", inputs, channels, Compute::EXACT_F32)?,
            linear_2: Linear::load(&weights, "linear_2", channels, channels, Compute::EXACT_F32)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
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
    pub fn load(weights: &Weights, config: &FluxConfig) -> Result<Self> {
        let weights = weights.pp("time_text_embed");
        let channels = config.hidden_size();
        let time = |name| Embedder::load(&weights, name, TIME_CHANNELS, channels);
        Ok(Self {
            timestep_embedder: time("timestep_embedder")?,
            guidance_embedder: if config.guidance_embeds { Some(time("guidance_embedder")?) } else { None },
            text_embedder: Embedder::load(&weights, "text_embedder", config.pooled_projection_dim, channels)?,
        })
    }

    /// vec [1, C] for t in [0, 1], a guidance scale where the model takes one, and the pooled prompt [1, P].
    ///
    /// # Errors
    /// [`Error::Request`] when the model takes a guidance scale and there is none.
    pub fn forward(&self, t: f64, guidance: Option<f64>, pooled: &Tensor) -> Result<Tensor> {
        let device = pooled.device();
        let mut vec = self.timestep_embedder.forward(&sinusoidal(t, device)?)?;
        if let Some(embedder) = &self.guidance_embedder {
            let guidance = guidance.ok_or_else(|| {
                Error::request("this model takes a guidance scale and none was given", "give one, for example 4.5")
            })?;
            vec = (vec + embedder.forward(&sinusoidal(guidance, device)?)?)?;
        }
        Ok((vec + self.text_embedder.forward(&pooled.to_dtype(DType::F32)?)?)?) // [1, C]
    }
}

/// `[cos(1000·x·f), sin(1000·x·f)]`, `f_i = 10000^(-i/128)`: [1, 256].
///
/// In f32, as every model was trained and as the reference computes it: in f64 the velocity differs from the
/// reference's by 3e-5 of its norm instead of 8e-6.
fn sinusoidal(x: f64, device: &Device) -> Result<Tensor> {
    let half = TIME_CHANNELS / 2;
    let scaled = (TIME_SCALE * x) as f32;
    let angles = (0..half).map(|i| scaled * (-(MAX_PERIOD.ln() as f32) * i as f32 / half as f32).exp());
    let embedding = angles.clone().map(f32::cos).chain(angles.map(f32::sin)).collect();
    Ok(Tensor::from_vec(embedding, (1, TIME_CHANNELS), device)?)
}
