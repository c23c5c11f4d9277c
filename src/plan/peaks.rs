//! Peak memory by stage.

use candle_core::DType;
use serde::Serialize;

use super::{
    Task,
    autoencoder::{decode_ways, least_peak},
    denoising::Steps,
    ladder::ALONE,
    process::Process,
    text_stage,
};
use crate::{base::device::DeviceKind, error::Result, models::Model, nn::WeightsMode};

/// Peak memory of each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StagePeaks {
    /// Prompts to embeddings.
    pub text: u64,
    /// A picture to latents, where one is encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode: Option<u64>,
    /// Noise to latents.
    pub denoise: u64,
    /// Latents to pixels.
    pub decode: u64,
}

impl StagePeaks {
    /// The peak of the run.
    pub fn most(&self) -> u64 {
        self.text.max(self.encode.unwrap_or(0)).max(self.denoise).max(self.decode)
    }

    /// The larger of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            text: self.text.max(other.text),
            encode: self.encode.max(other.encode),
            denoise: self.denoise.max(other.denoise),
            decode: self.decode.max(other.decode),
        }
    }

    /// The least that each stage of a task takes with weights in this mode, whatever it costs in time: a budget below it is refused,
    /// one a little above it serves.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a configuration makes no sense.
    pub fn least(model: &dyn Model, task: &Task, on: (DeviceKind, DType), mode: WeightsMode) -> Result<Self> {
        let (_, text) = text_stage(model, task, on)?;
        let denoising = Steps::new(model, (task, &ALONE), on, Process::on(on.0))?.least(mode)?;
        let (ways, picture) = decode_ways(model.decoder(), on, (task.size, ALONE.pixel_bytes))?;
        let decode = least_peak(&ways, [0, picture], Process::on(on.0));
        Ok(Self { text, encode: None, denoise: denoising.peak, decode })
    }
}
