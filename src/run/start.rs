//! Where a pass begins: noise, or a picture with noise.

use std::{path::Path, time::Instant};

use candle_core::Tensor;

use super::{
    Item, Runner, Times,
    job::{Job, Pass, Start},
};
use crate::{
    error::{Error, Result},
    input,
    models::Posterior,
    recipe::Recipe,
    sampling::{self, Progress},
};

impl Runner<'_> {
    /// Where a pass begins. The transformer is at nobody's: what needs its room may have it.
    pub(super) fn start(&mut self, item: &Item, job: &Job, number: usize, times: &mut Times) -> Result<Progress> {
        let pass = job.passes()[number];
        let recipe = pass.recipe(&item.recipe);
        let mut before = self.draws_before(job, number)?;
        let latents = match pass.start {
            Start::Noise => self.pipeline.noise_after(&recipe, &before)?,
            Start::Picture => {
                self.make_room_for(item, item.plan.peak_bytes.encode.unwrap_or(0));
                let started = Instant::now();
                let clean = self.encoded(item, &recipe, &mut before)?;
                times.encode += started.elapsed();
                let noise = self.pipeline.noise_after(&recipe, &before)?;
                sampling::noised(&clean, &noise, self.first_sigma(&recipe, pass.first)?)?
            }
        };
        Ok(Progress { step: pass.first, ..Progress::start(latents) })
    }

    /// The sigma that a pass begins at. A schedule may have fewer than its steps.
    fn first_sigma(&self, recipe: &Recipe, first: usize) -> Result<f64> {
        let sigmas = self.pipeline.sigmas(recipe)?;
        let none = || Error::request("--strength leaves no step of this schedule to do", "ask for more of it");
        sigmas.split_last().and_then(|(_, sigmas)| sigmas.get(first).copied()).ok_or_else(none)
    }

    /// The recipe's picture as packed latents without noise. A sample of what the encoder says takes a draw of the seed, which
    /// `before` is told of.
    fn encoded(&self, item: &Item, recipe: &Recipe, before: &mut Vec<usize>) -> Result<Tensor> {
        let missing = || Error::request("a picture begins with none", "please report this");
        let image = recipe.image.as_ref().ok_or_else(missing)?;
        let size = recipe.size();
        let picture = input::open(Path::new(&image.path), image.sha256.as_deref(), size)?;
        let width_px = self.geometry().computed(size).width_px;
        let rows = &mut |first: usize, rows: &mut [f32]| picture.fill(width_px, first, rows);
        let draw = match self.pipeline.encoder()?.samples() {
            true => Some(self.pipeline.draw(recipe, before)?),
            false => None,
        };
        before.extend(draw.as_ref().map(Vec::len));
        let posterior = draw.as_deref().map_or(Posterior::Mean, Posterior::Sample);
        self.pipeline.encode_picture((posterior, size), rows, &item.plan.choices)
    }

    /// Numbers in each draw of the seed that the passes before this one have taken: each took its noise, and one that began with
    /// a sample of what the encoder said took that before.
    fn draws_before(&self, job: &Job, pass: usize) -> Result<Vec<usize>> {
        let geometry = self.geometry();
        let mut draws = Vec::new();
        for Pass { size, start, .. } in job.passes().iter().take(pass) {
            let count: usize = geometry.latents_shape(geometry.tokens(*size)).iter().product();
            let is_sampled = *start == Start::Picture && self.pipeline.encoder()?.samples();
            draws.extend(std::iter::repeat_n(count, 1 + usize::from(is_sampled)));
        }
        Ok(draws)
    }
}
