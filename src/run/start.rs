//! Where a pass begins: noise, or a picture with noise, be it that of the pass below.

use std::path::Path;

use candle_core::Tensor;

use super::{
    Item, Runner, Times,
    clock::Clock,
    job::{Job, Pass, Start},
};
use crate::{
    error::{Error, Result},
    input,
    models::Posterior,
    plan::Plan,
    recipe::Recipe,
    sampling::{
        self, Progress,
        ladder::{Enlarged, handed_up},
    },
};

/// A pass that begins behind the last step of its schedule.
pub(super) fn none_left() -> Error {
    Error::request("no step of this schedule is left to do", "ask for more --strength, or for fewer --steps")
}

impl Runner<'_> {
    /// Where a pass begins. The transformer is at nobody's: what needs its room may have it.
    ///
    /// `below` is the end of the pass below, where there is one.
    pub(super) fn start(
        &mut self,
        item: &Item,
        job: &Job,
        number: usize,
        below: Option<Progress>,
        times: &mut Times,
    ) -> Result<Progress> {
        let pass = job.passes()[number];
        let recipe = pass.recipe(&item.recipe);
        let mut before = self.draws_before(job, number)?;
        let (latents, state) = below.map(|Progress { latents, state, .. }| (latents, handed_up(state))).unzip();
        let clean = match pass.start {
            Start::Noise => None,
            Start::Picture => {
                self.make_room_for(item, item.plan.peak_bytes.encode.unwrap_or(0));
                let clock = Clock::start();
                let clean = self.encoded(item, &recipe, &mut before)?;
                self.note_encode(item.plan.pass(number), &clock, times);
                Some(clean)
            }
            Start::Below => {
                let missing = || Error::request("a stage has none below it", "please report this");
                Some(self.enlarged((item, job), number, &latents.ok_or_else(missing)?, times)?)
            }
        };
        let noise = self.pipeline.noise_after(&recipe, &before)?;
        let latents = match clean {
            None => noise,
            Some(clean) => sampling::noised(&clean, &noise, self.first_sigma(&recipe, pass.first)?)?,
        };
        Ok(Progress { step: pass.first, latents, state: state.unwrap_or_default() })
    }

    /// The latents of the pass below as those of its picture at the size of this one: decoded, enlarged, sharpened, encoded to
    /// the mean of what the encoder says.
    fn enlarged(
        &mut self,
        (item, job): (&Item, &Job),
        number: usize,
        latents: &Tensor,
        times: &mut Times,
    ) -> Result<Tensor> {
        let (below, own) = (item.plan.pass(number - 1), item.plan.pass(number));
        self.make_room_for(item, below.peak_bytes.decode.max(own.peak_bytes.encode.unwrap_or(0)));
        let geometry = self.geometry();
        let [from, to] = [number - 1, number].map(|pass| job.passes()[pass].size);
        let clock = Clock::start();
        let picture = self.pipeline.decode_unclamped(latents, from, &below.choices)?;
        let took = clock.took(&self.machine.device);
        times.decode += took.whole;
        self.note_speed(below, below.decoding(), took);
        let clock = Clock::start();
        let enlarged = Enlarged::new(picture, geometry.computed(from), geometry.computed(to));
        let rows = &mut |first: usize, rows: &mut [f32]| {
            enlarged.fill(first, rows);
            Ok(())
        };
        let clean = self.pipeline.encode_picture((Posterior::Mean, to), rows, &own.choices)?;
        self.note_encode(own, &clock, times);
        Ok(clean)
    }

    /// Counts an encode that has just ended, of the pass of this plan.
    fn note_encode(&mut self, plan: &Plan, clock: &Clock, times: &mut Times) {
        let took = clock.took(&self.machine.device);
        times.encode += took.whole;
        plan.encode_amount().into_iter().for_each(|amount| self.note_speed(plan, amount, took));
    }

    /// The sigma that a pass begins at. A schedule may have fewer than its steps.
    fn first_sigma(&self, recipe: &Recipe, first: usize) -> Result<f64> {
        let sigmas = self.pipeline.sigmas(recipe)?;
        sigmas.split_last().and_then(|(_, sigmas)| sigmas.get(first).copied()).ok_or_else(none_left)
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
