//! A preview while a picture is being made, so that a bad one is stopped early.

use std::path::PathBuf;

use candle_core::Device;
use serde_json::json;

use super::job::Job;
use crate::{
    base::geometry::LatentSize,
    error::Result,
    models::Facts,
    output::{self, Picture, Provenance},
    sampling::preview::preview_rgb,
    sampling::{self, After, StepInfo},
};

/// Where a preview goes, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Its file; each preview replaces the one before.
    pub path: PathBuf,
    /// Steps between previews, at least 1.
    pub every: usize,
}

impl Preview {
    /// Whether there is a preview after this step.
    pub fn is_due(&self, step: &StepInfo) -> bool {
        (step.index + 1).is_multiple_of(self.every.max(1)) || step.index + 1 == step.steps
    }

    /// Writes the picture that a step of a pass was heading for, a pixel for each latent. It carries the picture's own provenance, marked
    /// as a preview: what looks good can be replayed.
    ///
    /// # Errors
    /// When the file cannot be written or the device fails.
    pub fn write(
        &self,
        (job, pass): (&Job, usize),
        facts: &Facts,
        provenance: &Provenance,
        after: &After,
    ) -> Result<()> {
        let (geometry, step) = (&facts.latents, &after.step);
        let grid = geometry.tokens(job.passes()[pass].size);
        let clean = sampling::unpack(&after.clean()?.to_device(&Device::Cpu)?, grid, geometry)?; // [1, C, h, w]
        let clean: Vec<f32> = clean.flatten_all()?.to_vec1()?;
        let LatentSize { height, width } = geometry.latents(grid);
        let rgb8 = preview_rgb(&clean, height, width, &facts.latent_rgb)?;
        let mut provenance = provenance.clone();
        provenance.json[output::PREVIEW] = json!({ "step": step.index + 1, "steps": step.steps });
        if job.passes().len() > 1 {
            provenance.json[output::PREVIEW]["stage"] = (pass + 1).into();
            provenance.json[output::PREVIEW]["stages"] = job.passes().len().into();
        }
        self.save(&Picture { height, width, rgb8 }, &provenance)
    }

    fn save(&self, picture: &Picture, provenance: &Provenance) -> Result<()> {
        output::save(&self.path, picture, provenance, true).map(|_| ())
    }
}
