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
    /// Steps of its whole schedule.
    pub steps: usize,
    /// The step of the schedule that it begins with, from 0: those before it are left out, as what it starts from is no noise
    /// alone.
    pub first: usize,
}

/// What a pass starts from: a variant here, and an arm where a run makes the first latents of a pass
/// ([`Runner::start`](super::Runner)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The noise of the seed.
    Noise,
    /// The recipe's picture, with noise of the seed as its first sigma has it.
    Picture,
}

impl Pass {
    /// The steps that it does.
    pub fn own_steps(&self) -> usize {
        self.steps - self.first
    }

    /// The recipe of the whole as this pass follows it: at its own size, along its own schedule.
    pub fn recipe(&self, whole: &Recipe) -> Recipe {
        let ImageSize { height_px: height, width_px: width } = self.size;
        Recipe { height, width, steps: self.steps, ..whole.clone() }
    }
}

impl Job {
    /// A picture from text, or from another picture: one pass.
    pub fn of(recipe: &Recipe) -> Self {
        let start = if recipe.image.is_some() { Start::Picture } else { Start::Noise };
        let (size, steps, first) = (recipe.size(), recipe.steps, recipe.first_step());
        Self { passes: vec![Pass { size, start, steps, first }] }
    }

    /// The steps of all passes.
    pub fn steps(&self) -> usize {
        self.passes.iter().map(Pass::own_steps).sum()
    }

    /// The steps that are done before step `step` of the schedule of pass number `pass`.
    pub fn steps_done(&self, pass: usize, step: usize) -> usize {
        let first = self.passes.get(pass).map_or(0, |pass| pass.first);
        self.passes.iter().take(pass).map(Pass::own_steps).sum::<usize>() + step.saturating_sub(first)
    }

    /// Whether nothing is left to do before step `step` of the schedule of pass number `pass`.
    pub fn is_done(&self, pass: usize, step: usize) -> bool {
        self.steps_done(pass, step) == self.steps()
    }

    /// Its passes, the last of which ends in the picture.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Wanted;

    fn recipe() -> Recipe {
        let wanted = Wanted { height: Some(64), width: Some(48), steps: Some(6), ..Wanted::default() };
        Recipe::draft(&wanted).expect("in range")
    }

    #[test]
    fn text_to_image_is_one_pass_that_follows_the_whole_recipe() {
        let job = Job::of(&recipe());
        assert_eq!((job.passes().len(), job.steps()), (1, 6));
        assert_eq!(job.passes()[0].recipe(&recipe()), recipe());
    }

    #[test]
    fn steps_are_counted_over_all_passes() {
        let first = Job::of(&recipe()).passes[0];
        let size = ImageSize { height_px: 128, width_px: 96 };
        let job = Job { passes: vec![first, Pass { size, steps: 9, first: 5, ..first }] };
        assert_eq!(job.steps(), 10);
        assert_eq!([(0, 1), (0, 6), (1, 6), (1, 9)].map(|(pass, step)| job.steps_done(pass, step)), [1, 6, 7, 10]);
        assert!(job.is_done(1, 9) && !job.is_done(1, 4) && !job.is_done(0, 6) && !job.is_done(0, 4));
        let second = job.passes()[1].recipe(&recipe());
        assert_eq!((second.size(), second.steps, second.seed), (size, 9, recipe().seed));
    }
}
