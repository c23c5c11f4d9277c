//! A preview while a picture is being made, so that a bad one is stopped early.

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use serde_json::json;

use super::Item;
use crate::{
    base::geometry::LatentSize,
    error::Result,
    models::Facts,
    output::{self, Picture, Provenance},
    sampling::preview::{estimate_clean, preview_rgb},
    sampling::{self, StepInfo},
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

    /// Writes the picture that a step was heading for, a pixel for each latent: `before` and `after` are packed latents
    /// [1, N, 64]. It carries the picture's own provenance, marked as a preview: what looks good can be replayed.
    ///
    /// # Errors
    /// When the file cannot be written or the device fails.
    pub fn write(
        &self,
        item: &Item,
        facts: &Facts,
        provenance: &Provenance,
        step: &StepInfo,
        [before, after]: [&Tensor; 2],
    ) -> Result<()> {
        let geometry = &facts.latents;
        let grid = geometry.tokens(item.recipe.size());
        let unpacked = |latents: &Tensor| -> Result<Vec<f32>> {
            Ok(sampling::unpack(&latents.to_device(&Device::Cpu)?, grid, geometry)?.flatten_all()?.to_vec1()?) // [C · h · w]
        };
        let clean = estimate_clean(&unpacked(before)?, &unpacked(after)?, step.t, step.t_next)?;
        let LatentSize { height, width } = geometry.latents(grid);
        let rgb8 = preview_rgb(&clean, height, width, &facts.latent_rgb)?;
        let mut provenance = provenance.clone();
        provenance.json["preview"] = json!({ "step": step.index + 1, "steps": step.steps });
        self.save(&Picture { height, width, rgb8 }, &provenance)
    }

    fn save(&self, picture: &Picture, provenance: &Provenance) -> Result<()> {
        output::save(&self.path, picture, provenance, true).map(|_| ())
    }
}
