//! How a picture comes about: denoising, once or several times.

use crate::{
    base::geometry::{ImageSize, LatentGeometry},
    methods::sharpens,
    models::Facts,
    recipe::{Mu, Recipe},
    sampling::{
        ScheduleFor, Shift,
        ladder::{Climb, Guide, Pull},
    },
};

/// The passes of a picture, in their order; there is at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    passes: Vec<Pass>,
}

/// One way from a start to latents without noise.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// The time shift of its schedule.
    pub mu: Mu,
    /// Its guidance scale, where the model takes one.
    pub guidance: Option<f64>,
    /// Whether attention to many tokens is kept as sharp as in training.
    pub proportional_attention: bool,
}

/// What a pass starts from: a variant here, and an arm where a run makes the first latents of a pass
/// ([`Runner::start`](super::Runner)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The noise of the seed.
    Noise,
    /// The recipe's picture, with noise of the seed as its first sigma has it.
    Picture,
    /// The picture of the pass below at this size, and noise.
    Below,
}

impl Pass {
    /// The steps that it does.
    pub fn own_steps(&self) -> usize {
        self.steps - self.first
    }

    /// The recipe of the whole as this pass follows it: at its own size, along its own schedule.
    pub fn recipe(&self, whole: &Recipe) -> Recipe {
        let ImageSize { height_px: height, width_px: width } = self.size;
        let Self { steps, mu, guidance, proportional_attention, .. } = *self;
        Recipe { height, width, steps, mu, guidance, proportional_attention, ..whole.clone() }
    }
}

impl Job {
    /// A picture from text, or from another picture: one pass; with a ladder one for each of its stages.
    pub fn of(recipe: &Recipe, facts: &Facts) -> Self {
        let Recipe { steps, mu, guidance, proportional_attention, .. } = *recipe;
        let start = if recipe.image.is_some() { Start::Picture } else { Start::Noise };
        let (size, first) = (recipe.size(), recipe.first_step());
        let whole = Pass { size, start, steps, first, mu, guidance, proportional_attention };
        let rungs = recipe.rungs(facts.latents.px_per_token());
        let Some(lowest) = rungs.first() else { return Self { passes: vec![whole] } };
        // HiFlow's code has it so; the amplitudes of some methods do the same in their way.
        let whole = Pass { proportional_attention: proportional_attention || !sharpens(&*recipe.scaler()), ..whole };
        // All follow the schedule of the first: what a model's shift makes of larger sizes plays no part.
        let first = Pass { size: lowest.size, guidance: lowest.guidance, ..whole };
        let shift = Shift::of(&facts.scheduler, &ScheduleFor::recipe(&first.recipe(recipe), facts));
        let mu = shift.mu().map_or(recipe.mu, Mu::Value);
        let above = rungs.iter().skip(1).map(|rung| Pass {
            size: rung.size,
            start: Start::Below,
            first: steps - rung.steps,
            mu,
            guidance: rung.guidance,
            ..whole
        });
        Self { passes: [first].into_iter().chain(above).collect() }
    }

    /// What pass number `pass` of a ladder has to do with those below and above it; nothing, where it is led by none.
    pub fn climb(&self, pass: usize, recipe: &Recipe, geometry: LatentGeometry) -> Option<Climb> {
        let pull = recipe.ladder_pull.filter(|pull| *pull > 0.0)?;
        let keeps = self.passes.get(pass + 1).map_or(0, Pass::own_steps);
        let guide = pass.checked_sub(1).map(|below| {
            let grids = [below, pass].map(|pass| geometry.tokens(self.passes[pass].size));
            Guide::new(Pull::of_stage(pass).times(pull), self.passes[pass].own_steps(), geometry, grids)
        });
        Some(Climb { keeps, guide })
    }

    /// Which of several passes it is, in words: "stage 2 of 3".
    pub fn stage(&self, pass: usize) -> Option<String> {
        (self.passes.len() > 1).then(|| format!("stage {} of {}", pass + 1, self.passes.len()))
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
    use crate::{models::Registry, recipe::Wanted};

    fn recipe(ladder: &str) -> Recipe {
        let ladder = ladder.parse().ok();
        let wanted = Wanted { ladder, height: Some(64), width: Some(48), steps: Some(9), ..Wanted::default() };
        Recipe::draft(&wanted).expect("in range")
    }

    fn job(ladder: &str) -> Job {
        Job::of(&recipe(ladder), &Registry::default().usual())
    }

    #[test]
    fn text_to_image_is_one_pass_that_follows_the_whole_recipe() {
        let job = job("off");
        assert_eq!((job.passes().len(), job.steps(), job.stage(0)), (1, 9, None));
        assert_eq!(job.passes()[0].recipe(&recipe("off")), recipe("off"));
        assert!(job.climb(0, &recipe("off"), Registry::default().usual().latents).is_none());
    }

    #[test]
    fn steps_are_counted_over_all_passes() {
        let job = job("32,48,64");
        assert_eq!((job.steps(), job.passes().iter().map(|pass| pass.first).collect()), (17, vec![0, 4, 6]));
        let done = [(0, 1), (0, 9), (1, 5), (1, 9), (2, 7), (2, 9)].map(|(pass, step)| job.steps_done(pass, step));
        assert_eq!(done, [1, 9, 10, 14, 15, 17]);
        assert!(job.is_done(2, 9) && !job.is_done(2, 7) && !job.is_done(0, 9));
        assert_eq!(job.stage(1).as_deref(), Some("stage 2 of 3"));
    }

    #[test]
    fn a_stage_has_its_size_and_guidance_and_the_schedule_of_the_first() {
        let whole = Recipe { mu: Mu::Stock, guidance: Some(4.5), ..recipe("32,48,64") };
        let facts = Registry::default().usual();
        let job = Job::of(&whole, &facts);
        let recipes: Vec<_> = job.passes().iter().map(|pass| pass.recipe(&whole)).collect();
        let sizes: Vec<_> = recipes.iter().map(|recipe| (recipe.height, recipe.width, recipe.steps)).collect();
        assert_eq!(sizes, [(32, 32, 9), (48, 32, 9), (64, 48, 9)], "halves of a token go up");
        let mu: Vec<_> = recipes
            .iter()
            .map(|recipe| Shift::of(&facts.scheduler, &ScheduleFor::recipe(recipe, &facts)).mu())
            .collect();
        assert!(mu.iter().all(|other| other.is_some() && *other == mu[0]), "{mu:?}");
        assert_eq!(recipes.iter().map(|recipe| recipe.guidance).collect::<Vec<_>>(), [Some(3.5), Some(4.5), Some(6.0)]);
        let keeps: Vec<_> = (0..3).map(|pass| job.climb(pass, &whole, facts.latents).expect("a ladder")).collect();
        assert_eq!(
            keeps.iter().map(|climb| (climb.keeps, climb.guide.is_some())).collect::<Vec<_>>(),
            [(5, false), (3, true), (0, true)]
        );
        assert!(!recipes.iter().any(|recipe| recipe.proportional_attention), "yarn's amplitude sharpens");
        let ntk = Recipe { method: crate::methods::Method::NTK, ..whole.clone() };
        let sharp = Job::of(&ntk, &facts).passes().iter().all(|pass| pass.recipe(&ntk).proportional_attention);
        assert!(
            sharp && !Job::of(&Recipe { ladder: Default::default(), ..ntk }, &facts).passes()[0].proportional_attention
        );
        let free = Recipe { ladder_pull: Some(0.0), ..whole };
        assert!(job.climb(1, &free, facts.latents).is_none());
    }
}
