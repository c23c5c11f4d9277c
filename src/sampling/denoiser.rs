//! Who gives the velocities: what a denoiser is asked, what it carries from step to step, and what it may skip.

use std::{collections::BTreeMap, ops::Add};

use candle_core::Tensor;

use crate::{
    error::{Error, Result},
    methods::Moment,
};

/// Where the loop stands: the moment for which a velocity is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepInfo {
    /// Index of the step, from 0.
    pub index: usize,
    /// Number of steps of the whole schedule.
    pub steps: usize,
    /// The time at which the velocity is asked: the current sigma, in (0, 1]; in a second evaluation that after the step.
    pub t: f64,
    /// The time after the step: the next sigma, in [0, 1).
    pub t_next: f64,
    /// Which evaluation of the step it is, from 0: samplers of second order ask twice.
    pub evaluation: usize,
}

impl StepInfo {
    /// The same moment as the scalers see it, without the latents' spectrum.
    pub fn moment(&self) -> Moment<'static> {
        Moment { t: self.t, step: self.index, steps: self.steps, spectrum: None }
    }
}

/// What a denoiser or a sampler carries from step to step, as tensors by name.
pub type State = BTreeMap<String, Tensor>;

/// What a denoiser has skipped so far in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skips {
    /// Steps of which no evaluation was computed in full.
    pub steps: usize,
    /// Their evaluations.
    pub evaluations: usize,
}

impl Add for Skips {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { steps: self.steps + other.steps, evaluations: self.evaluations + other.evaluations }
    }
}

impl Skips {
    /// Counts this evaluation.
    pub fn count(&mut self, step: &StepInfo) {
        self.steps += usize::from(step.evaluation == 0);
        self.evaluations += 1;
    }
}

/// Whatever predicts the velocity of the latents: the transformer, a test, or a decorator around another denoiser.
///
/// A decorator asks the one it holds, or does not. Its own state goes under names of its own beside that of the other, and
/// it takes those names out of what it is given back before it hands on the rest.
pub trait Denoiser {
    /// The velocity at `latents` [1, N, C] f32, of the same shape, of any float type.
    ///
    /// # Errors
    /// Whatever kept the velocity from being computed.
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor>;

    /// What it must find again to go on as if nothing had happened; nothing, where a velocity depends on latents and step
    /// alone.
    ///
    /// # Errors
    /// When the device fails.
    fn state(&self) -> Result<State> {
        Ok(State::new())
    }

    /// Takes back what [`Denoiser::state`] gave, on any device.
    ///
    /// # Errors
    /// [`Error::Request`] for a state that is not its own.
    fn restore(&mut self, state: State) -> Result<()> {
        match state.keys().next() {
            None => Ok(()),
            Some(name) => {
                let hint = "the checkpoint belongs to a run with other settings; start without --resume";
                Err(Error::request(format!("nothing takes the state {name:?} of a checkpoint"), hint))
            }
        }
    }

    /// What was not computed in full since it was made.
    fn skips(&self) -> Skips {
        Skips::default()
    }
}

impl<D: Denoiser + ?Sized> Denoiser for Box<D> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        (**self).velocity(latents, step)
    }

    fn state(&self) -> Result<State> {
        (**self).state()
    }

    fn restore(&mut self, state: State) -> Result<()> {
        (**self).restore(state)
    }

    fn skips(&self) -> Skips {
        (**self).skips()
    }
}
