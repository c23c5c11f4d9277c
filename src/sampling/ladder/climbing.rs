//! A pass of a ladder as a decorator: it keeps where the picture was heading for, for the pass above, and lets itself be led
//! by what the pass below has kept.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::{
    Pull,
    bicubic::{Bicubic, resized},
    low_pass::LowPass,
    pull::Channel,
};
use crate::{
    base::geometry::{LatentGeometry, LatentSize, TokenGrid},
    error::{Error, Result},
    sampling::{Denoiser, Skips, State, StepInfo, pack, unpack},
};

/// Stands before the names of what this pass has kept for the one above.
const KEPT: &str = "ladder.x0.";
/// Before those of what the pass below has kept for this one.
const REFERENCE: &str = "ladder.reference.";
/// The velocities of the last step, u and r.
const LAST: [&str; 2] = ["ladder.u", "ladder.r"];

/// A pass of a ladder.
pub struct Climbing<D> {
    denoiser: D,
    climb: Climb,
    /// By the number of steps left: the ends of all passes are the same.
    kept: Clean,
}

/// What a pass has to do with those below and above it.
pub struct Climb {
    /// Of its last so many steps, where they were heading for is kept.
    pub keeps: usize,
    /// What leads it, where there is a pass below.
    pub guide: Option<Guide>,
}

/// Packed latents without noise [1, N, C·P·P] f32 on the CPU, by the number of steps left.
type Clean = BTreeMap<usize, Tensor>;

/// What leads a pass.
pub struct Guide {
    pull: Pull,
    /// Steps of the pass.
    steps: usize,
    geometry: LatentGeometry,
    grids: [TokenGrid; 2],
    low_pass: LowPass,
    rows: Bicubic,
    columns: Bicubic,
    reference: Clean,
    /// u and r of the last step, [C, h, w] f32 each.
    last: Option<[Vec<f32>; 2]>,
}

impl<D> Climbing<D> {
    /// The pass of a denoiser.
    pub fn new(denoiser: D, climb: Climb) -> Self {
        Self { denoiser, climb, kept: Clean::new() }
    }
}

/// The state a pass begins with, from that which the pass below ended with.
pub fn handed_up(state: State) -> State {
    let named = |(name, tensor): (String, Tensor)| Some((format!("{REFERENCE}{}", name.strip_prefix(KEPT)?), tensor));
    state.into_iter().filter_map(named).collect()
}

impl Guide {
    /// For a pass of so many steps, from the grid of the pass below to its own.
    pub fn new(pull: Pull, steps: usize, geometry: LatentGeometry, grids: [TokenGrid; 2]) -> Self {
        let [below, own] = grids.map(|grid| geometry.latents(grid));
        Self {
            pull,
            steps,
            geometry,
            grids,
            low_pass: LowPass::new(own.height, own.width),
            rows: Bicubic::new(below.height, own.height),
            columns: Bicubic::new(below.width, own.width),
            reference: Clean::new(),
            last: None,
        }
    }

    /// Bytes of latents [channels, h, w] of the pass below and of its own: what is held from step to step beside the references, and
    /// the most that leading a velocity takes.
    pub fn bytes([below, own]: [LatentSize; 2], channels: usize) -> [u64; 2] {
        /// f64 numbers of a channel that is worked on: planes, and complex ones before and behind a transposition.
        const WORKING_BYTES: usize = 8 * 8;
        let cells = |size: LatentSize| size.height * size.width;
        let (reference, plane) = (4 * channels * cells(below), 4 * channels * cells(own));
        let at_once = channels.min(rayon::current_num_threads());
        // u and r of the channels that are done.
        let led = at_once * cells(own) * WORKING_BYTES + (channels - at_once) * 8 * cells(own);
        // All of them by channels and together, and what is followed.
        let gathered = 5 * plane;
        // u, r and the gains; then latents, velocity and reference beside the larger of both.
        [(2 * plane + 8 * cells(own)) as u64, (2 * plane + reference + led.max(gathered)) as u64]
    }

    /// The velocity that is followed at packed latents in place of the model's; all are [1, N, C·P·P].
    fn led(&mut self, latents: &Tensor, velocity: &Tensor, step: &StepInfo) -> Result<Tensor> {
        let left = step.steps - step.index;
        let reference = self.reference.get(&left).ok_or_else(|| {
            let what = format!("nothing is kept of the stage below for the step with {left} left");
            Error::request(what, "start without --resume")
        })?;
        let [below, own] = self.grids;
        let [latents_values, velocity_values] = [self.unpacked(latents, own)?, self.unpacked(velocity, own)?];
        let reference = self.unpacked(reference, below)?;
        let LatentSize { height, width } = self.geometry.latents(below);
        let cells = self.low_pass.gains().len();
        let pull = self.pull.at(left, self.steps);
        let of_channel = |channel: usize| {
            let place = channel * cells..(channel + 1) * cells;
            let small = &reference[channel * height * width..][..height * width];
            let channel = Channel {
                latents: &latents_values[place.clone()],
                velocity: &velocity_values[place.clone()],
                reference: &resized(small, width, &self.rows, &self.columns),
                last: self.last.as_ref().map(|last| [&last[0][place.clone()], &last[1][place]]),
            };
            channel.pulled(step.t, pull, &self.low_pass).map(|values| values.into_iter().map(|x| x as f32).collect())
        };
        let channels: Vec<[Vec<f32>; 2]> = (0..self.geometry.channels).into_par_iter().map(of_channel).collect();
        let last = [0, 1].map(|which| channels.iter().map(|both| both[which].as_slice()).collect::<Vec<_>>().concat());
        let followed = Tensor::from_slice(&last[0], &self.geometry.latents_shape(own), &Device::Cpu)?; // [1, C, h, w]
        self.last = Some(last);
        self.reference.retain(|steps_left, _| *steps_left < left);
        Ok(pack(&followed, &self.geometry)?.to_device(latents.device())?) // [1, N, C·P·P]
    }

    /// Packed latents of a grid as numbers [C, h, w].
    fn unpacked(&self, latents: &Tensor, grid: TokenGrid) -> Result<Vec<f32>> {
        let latents = latents.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(unpack(&latents, grid, &self.geometry)?.flatten_all()?.to_vec1()?) // [C · h · w]
    }

    fn state(&self) -> Result<State> {
        let shape = self.geometry.latents_shape(self.grids[1]);
        let last = LAST.iter().zip(self.last.iter().flatten());
        let last =
            last.map(|(name, values)| Ok(((*name).to_owned(), Tensor::from_slice(values, &shape, &Device::Cpu)?)));
        named(REFERENCE, &self.reference).map(Ok).chain(last).collect()
    }

    fn restore(&mut self, state: &mut State) -> Result<()> {
        self.reference = taken(REFERENCE, state);
        let [u, r] = LAST.map(|name| state.remove(name));
        let values = |tensor: Tensor| -> Result<Vec<f32>> { Ok(tensor.flatten_all()?.to_vec1()?) };
        self.last = u.zip(r).map(|(u, r)| Ok::<_, Error>([values(u)?, values(r)?])).transpose()?;
        Ok(())
    }
}

fn named(prefix: &str, clean: &Clean) -> impl Iterator<Item = (String, Tensor)> {
    clean.iter().map(move |(left, tensor)| (format!("{prefix}{left}"), tensor.clone()))
}

/// What goes under this prefix, taken out.
fn taken(prefix: &str, state: &mut State) -> Clean {
    let left = |name: &String| name.strip_prefix(prefix)?.parse().ok();
    let names: Vec<(String, usize)> = state.keys().filter_map(|name| Some((name.clone(), left(name)?))).collect();
    names.into_iter().filter_map(|(name, left)| Some((left, state.remove(&name)?))).collect()
}

impl<D: Denoiser> Denoiser for Climbing<D> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        let velocity = self.denoiser.velocity(latents, step)?.to_dtype(DType::F32)?; // [1, N, C]
        let left = step.steps - step.index;
        if left <= self.climb.keeps {
            // Before any correction, as HiFlow's code has it.
            let clean = (latents - (&velocity * step.t)?)?;
            self.kept.insert(left, clean.to_device(&Device::Cpu)?);
        }
        match &mut self.climb.guide {
            Some(guide) => guide.led(latents, &velocity, step),
            None => Ok(velocity),
        }
    }

    fn state(&self) -> Result<State> {
        let mut state = self.denoiser.state()?;
        state.extend(named(KEPT, &self.kept));
        if let Some(guide) = &self.climb.guide {
            state.extend(guide.state()?);
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: State) -> Result<()> {
        self.kept = taken(KEPT, &mut state);
        if let Some(guide) = &mut self.climb.guide {
            guide.restore(&mut state)?;
        }
        self.denoiser.restore(state)
    }

    fn skips(&self) -> Skips {
        self.denoiser.skips()
    }
}
