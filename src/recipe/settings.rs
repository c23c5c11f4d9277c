//! What a picture is made with: the [`Request`] as asked, and the [`Settings`] once the model has filled the gaps.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    base::geometry::{ImageSize, InvalidSide},
    error::{Error, Result},
    methods::{DypeSchedule, DypeSettings, Method, PositionScaler, Thresholds, UnknownName},
    models::flux1::FluxConfig,
    sampling::{Mu, Rng},
};

/// The training resolution of FLUX.1 in pixels. Source: black-forest-labs/flux, trained at about one megapixel.
pub const FLUX_BASE_RESOLUTION_PX: usize = 1024;
/// T5 tokens of FLUX.1-dev. Source: diffusers, `FluxPipeline.__call__`.
pub const DEV_SEQUENCE_LENGTH: usize = 512;
/// T5 tokens FLUX.1-schnell was distilled with. Source: its model card.
pub const SCHNELL_SEQUENCE_LENGTH: usize = 256;

/// A picture as it is asked for; what is `None` the model decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to draw.
    pub prompt: String,
    /// How large.
    pub size: ImageSize,
    /// Denoising steps.
    pub steps: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// How strongly the prompt is followed.
    pub guidance: f64,
    /// T5 tokens.
    pub max_sequence_length: Option<usize>,
    /// Source of the noise.
    pub rng: Rng,
    /// How positions are scaled.
    pub method: Method,
    /// How the scaling follows the denoising steps; `None` where it does not.
    pub dype: Option<DypeSettings>,
    /// Training resolution in pixels.
    pub base_resolution: Option<usize>,
    /// The time shift.
    pub mu: Mu,
}

/// What a model says about itself, as far as it fills gaps of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ModelFacts {
    /// Training resolution in pixels, where its config says it.
    pub base_resolution: Option<usize>,
    /// lambda_s, where its config says it.
    pub dype_scale: Option<f64>,
    /// lambda_t, where its config says it.
    pub dype_exponent: Option<f64>,
    /// Whether it takes a guidance scale; schnell does not.
    pub takes_guidance: bool,
    /// The most T5 tokens it reads, where its tokenizer says so.
    pub text_tokens: Option<usize>,
}

/// Everything that decides a picture, next to the model itself. It is what a picture's provenance holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What was drawn.
    pub prompt: String,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Guidance scale; `None` where the model takes none.
    pub guidance: Option<f64>,
    /// T5 tokens.
    pub max_sequence_length: usize,
    /// Source of the noise, as `--rng` takes it.
    pub rng: String,
    /// Position method: yarn, ntk or base.
    pub method: String,
    /// Whether the scaling followed the denoising steps.
    pub dype: bool,
    /// lambda_s of kappa(t); `None` without DyPE.
    pub dype_scale: Option<f64>,
    /// lambda_t of kappa(t); `None` without DyPE.
    pub dype_exponent: Option<f64>,
    /// How kappa moved YaRN's thresholds: product or power.
    pub dype_thresholds: String,
    /// Training resolution in pixels that positions were scaled against.
    pub base_resolution: usize,
    /// The time shift as asked: "max_shift", "stock" or a number.
    pub mu: String,
}

impl Request {
    /// The settings of this request for a model.
    pub fn resolve(&self, model: &ModelFacts) -> Settings {
        let schedule = self.schedule(model);
        Settings {
            prompt: self.prompt.clone(),
            height: self.size.height_px,
            width: self.size.width_px,
            steps: self.steps,
            seed: self.seed,
            guidance: model.takes_guidance.then_some(self.guidance),
            max_sequence_length: self.max_sequence_length.unwrap_or_else(|| model.sequence_length()),
            rng: self.rng.to_string(),
            method: self.method.to_string(),
            dype: schedule.is_some(),
            dype_scale: schedule.map(|s| s.scale),
            dype_exponent: schedule.map(|s| s.exponent),
            dype_thresholds: self.dype.unwrap_or_default().thresholds.to_string(),
            base_resolution: model.base_resolution_px(self.base_resolution),
            mu: self.mu.to_string(),
        }
    }

    /// The DyPE schedule: the flags, else the model's own, else the paper's. `None` for `base` and without DyPE.
    pub fn schedule(&self, model: &ModelFacts) -> Option<DypeSchedule> {
        self.method.schedule(model.dype(self.dype)?)
    }

    /// The scaler that gives each axis its frequencies.
    pub fn scaler(&self, model: &ModelFacts) -> Box<dyn PositionScaler> {
        self.method.scaler(model.dype(self.dype))
    }
}

impl ModelFacts {
    /// What a transformer's config says.
    pub fn of(config: &FluxConfig) -> Self {
        Self {
            base_resolution: config.base_resolution,
            dype_scale: config.dype_scale,
            dype_exponent: config.dype_exponent,
            takes_guidance: config.guidance_embeds,
            text_tokens: None,
        }
    }

    /// T5 tokens of a prompt when nobody says how many: its kind's, or as many as it reads where that is fewer.
    pub fn sequence_length(&self) -> usize {
        let usual = if self.takes_guidance { DEV_SEQUENCE_LENGTH } else { SCHNELL_SEQUENCE_LENGTH };
        self.text_tokens.map_or(usual, |most| usual.min(most))
    }

    /// The training resolution in pixels: what was asked, else the model's own, else [`FLUX_BASE_RESOLUTION_PX`].
    pub fn base_resolution_px(&self, asked: Option<usize>) -> usize {
        asked.or(self.base_resolution).unwrap_or(FLUX_BASE_RESOLUTION_PX)
    }

    /// DyPE's settings: what was asked, filled up with the model's own.
    pub fn dype(&self, asked: Option<DypeSettings>) -> Option<DypeSettings> {
        asked.map(|dype| DypeSettings {
            scale: dype.scale.or(self.dype_scale),
            exponent: dype.exponent.or(self.dype_exponent),
            ..dype
        })
    }
}

impl Settings {
    /// The request that gives exactly these settings again.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when a value is none this version knows.
    pub fn to_request(&self) -> Result<Request> {
        let newer = "the picture may come from a newer version of dype";
        let unknown = |name: UnknownName| Error::request(name.to_string(), newer);
        let thresholds: Thresholds = self.dype_thresholds.parse().map_err(unknown)?;
        Ok(Request {
            prompt: self.prompt.clone(),
            size: ImageSize::new(self.height, self.width)?,
            steps: self.steps,
            seed: self.seed,
            guidance: self.guidance.unwrap_or_default(),
            max_sequence_length: Some(self.max_sequence_length),
            rng: self.rng.parse()?,
            method: self.method.parse().map_err(unknown)?,
            dype: self.dype.then_some(DypeSettings {
                scale: self.dype_scale,
                exponent: self.dype_exponent,
                thresholds,
            }),
            base_resolution: Some(self.base_resolution),
            mu: self.mu.parse()?,
        })
    }
}

impl From<InvalidSide> for Error {
    fn from(side: InvalidSide) -> Self {
        Self::request(side.to_string(), "choose a size such as --height 4096 --width 4096")
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device this binary was built for and finds.
    Auto,
    /// The processor.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "metal" => Ok(Self::Metal),
                _ => Err("a device is auto, cpu, cuda, cuda:N or metal".into()),
            },
            Some(("cuda", number)) => {
                number.parse().map(Self::Cuda).map_err(|_| "a CUDA device is cuda:0, cuda:1, ...".into())
            }
            Some(_) => Err("a device is auto, cpu, cuda, cuda:N or metal".into()),
        }
    }
}

/// The number type a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelDtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats.
    F16,
}
