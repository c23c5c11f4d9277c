//! Pictures in a row: one path for one picture and for many.
//!
//! Prompts are encoded together, the transformer is loaded once, each picture is denoised, decoded and written before
//! the next begins. Checkpoints keep what is half done; `--resume` finds them, and the pictures that are there already.

mod begun;
mod checkpoint;
mod clock;
mod denoiser;
mod existing;
mod follow;
mod identity;
mod job;
mod loras;
mod make;
pub mod pipeline;
mod preview;
mod provenance;
mod room;
mod runner;
mod start;
mod texts;

use std::{path::PathBuf, rc::Rc, time::Duration};

use crate::{
    error::{Error, Result},
    models::Facts,
    nn::CodeProducts,
    plan::{self, Encoding, Plan, Task},
    recipe::Recipe,
    sampling::{self, ScheduleFor},
};
use job::Pass;
use start::none_left;

#[cfg(test)]
pub(crate) use identity::settings_key;
pub use job::Job;
pub use loras::{Adapted, with_loras};
pub use preview::Preview;
pub use provenance::{
    MODEL as MODEL_ENTRY, PROGRAM as PROGRAM_ENTRY, VERSION as PROVENANCE_VERSION, is_ours, of_parameters, prompts,
};
pub use runner::Runner;

/// The most prompts that are encoded together. T5's weights pass through memory once for all of them, and each keeps
/// 8 MB (512 tokens of 4,096 f32) until its pictures are made.
pub const PROMPTS_AT_ONCE: usize = 32;

/// One picture that is to be made.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its place in the whole batch, from 0.
    pub index: usize,
    /// What it is made with.
    pub recipe: Recipe,
    /// Its file, before a number makes the name its own.
    pub path: PathBuf,
    /// Its number among all pictures of the run with that name, from 1.
    pub number: u64,
    /// Where its latents are kept, if they are.
    pub latents: Option<PathBuf>,
    /// What it needs.
    pub plan: Rc<Plan>,
}

/// Which products a recipe wants of codes.
const fn code_products(recipe: &Recipe) -> CodeProducts {
    CodeProducts { fp8: recipe.fp8_products, int8: recipe.int8_products }
}

impl Item {
    /// What a plan needs to know of a picture but what it begins with; `prompts` are encoded together, negative ones among them.
    pub fn task(recipe: &Recipe, prompts: usize) -> Task {
        let (text_tokens, cfg) = (recipe.max_sequence_length, recipe.cfg().is_some());
        // One picture alone has its prompt and its negative one.
        let prompts = prompts.max(1 + usize::from(cfg));
        let (sampler, cache, products) = (recipe.sampler, recipe.step_cache, code_products(recipe));
        let steps = recipe.steps - recipe.first_step();
        Task { prompts, cfg, sampler, cache, products, ..Task::new(recipe.size(), steps, text_tokens) }
    }

    /// Checks what only the model can say of a picture: whether its sides are no shorter than a token, and its steps and mu
    /// make a schedule with a step to do.
    ///
    /// # Errors
    /// [`Error::Request`] when they are, or do not.
    pub fn check(recipe: &Recipe, facts: &Facts) -> Result<()> {
        Job::of(recipe, facts).passes().iter().try_for_each(|pass| {
            facts.latents.check(pass.size)?;
            // The last of them is where the last step ends.
            let own = ScheduleFor::recipe(&pass.recipe(recipe), facts);
            let sigmas = sampling::sigmas(&facts.scheduler, &own)?;
            if pass.first + 1 < sigmas.len() { Ok(()) } else { Err(none_left()) }
        })
    }

    /// The same of all its passes, with what the first begins with.
    pub fn tasks(recipe: &Recipe, prompts: usize, facts: &Facts, encoding: Option<Encoding>) -> Vec<Task> {
        let of_pass = |pass: &Pass| Task { size: pass.size, steps: pass.own_steps(), ..Self::task(recipe, prompts) };
        let mut tasks: Vec<Task> = Job::of(recipe, facts).passes().iter().map(of_pass).collect();
        tasks[0].encoding = encoding;
        for pass in 1..tasks.len() {
            tasks[pass].encoding = Some(plan::enlarging(&facts.latents, &tasks[pass - 1], &tasks[pass]));
        }
        tasks
    }
}

/// How a run goes about its pictures. None of it changes a pixel.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave out pictures that are there, and go on from checkpoints.
    pub resume: bool,
    /// Steps between checkpoints; 0 for none.
    pub checkpoint_every: usize,
    /// Where and how often to show what is being made.
    pub preview: Option<Preview>,
    /// Whether existing files are replaced.
    pub overwrite: bool,
}

/// Where a picture's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Prompts to embeddings; 0 for a picture whose prompt was encoded with an earlier one's.
    pub text: Duration,
    /// A picture to latents; 0 where none is begun with.
    pub encode: Duration,
    /// Loading the transformer; 0 where it was there already.
    pub load: Duration,
    /// Noise to latents.
    pub denoise: Duration,
    /// Latents to pixels.
    pub decode: Duration,
    /// Pixels to a file that is on the disk.
    pub write: Duration,
}

/// A picture that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its file.
    pub path: PathBuf,
    /// Where the time went.
    pub times: Times,
    /// The steps that an earlier run had done, where this one went on from a checkpoint.
    pub resumed_from: Option<usize>,
    /// Steps that a step cache skipped in this run, where one is on.
    pub skipped: Option<usize>,
    /// Whether it was there before and nothing had to be done.
    pub existed: bool,
}

/// Who is told of each picture.
pub trait Listener {
    /// Work on the picture begins.
    fn begin(&mut self, item: &Item);
    /// The picture is on the disk.
    fn made(&mut self, item: &Item, made: Made);
    /// The picture could not be made, or, where it was told of as made just before, a file beside it; the run goes on with the next.
    fn failed(&mut self, item: &Item, error: Error);
}
