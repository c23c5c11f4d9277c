//! How a picture comes about: denoising, once or several times.

use crate::{base::geometry::ImageSize, recipe::Recipe};

/// The passes of a picture, in their order; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    passes: Vec<Pass>,
}

/// One way from a start to latents without noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// The size of its picture.
    pub size: ImageSize,
    /// Where it starts.
    pub start: Start,
    /// Steps of its schedule that it does.
    pub steps: usize,
}

/// What a pass starts from. A picture, and the latents of the pass before at a larger size, are starts too, once an
/// encoder can give them: a variant here, and an arm where a run makes the first latents of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The noise of the seed.
    Noise,
}

impl Job {
    /// A picture from text: one pass, from noise.
    pub fn of(recipe: &Recipe) -> Self {
        Self { passes: vec![Pass { size: recipe.size(), start: Start::Noise, steps: recipe.steps }] }
    }

    /// The steps of all passes.
    pub fn steps(&self) -> usize {
        self.passes.iter().map(|pass| pass.steps).sum()
    }

    /// The steps that are done after `step` steps of pass number `pass`.
    pub fn steps_done(&self, pass: usize, step: usize) -> usize {
        self.passes.iter().take(pass).map(|pass| pass.steps).sum::<usize>() + step
    }

    /// Its passes, the last of which ends in the picture.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }
}
