//! One picture, from its noise or its checkpoint to its file.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    time::Instant,
};

use candle_core::Tensor;

use super::{
    Item, Made, Runner, Times,
    begun::Begun,
    checkpoint::{self, Checkpoint, Near, Reached},
    clock::Clock,
    job::{Job, Pass},
    provenance,
    runner::Waiting,
};
use crate::{
    base::progress::Event,
    error::{Error, Result},
    models::Velocity,
    output::{self, LatentsFile, Picture, Provenance},
    plan::{Amount, Plan, Took},
    recipe::StepCache,
    run::pipeline::{Course, Texts},
    sampling::{After, Progress, Skips, State},
};

/// A picture that is being made.
struct Making<'m> {
    item: &'m Item,
    job: &'m Job,
    checkpoint: &'m Checkpoint,
    begun: &'m RefCell<Begun>,
    provenance: &'m Provenance,
    /// What this run has skipped.
    skips: &'m Cell<Skips>,
}

impl Runner<'_> {
    /// Makes a picture. `replaced` is a damaged file that it takes the place of; `coming` are this and the next pictures.
    /// Beside a picture that is there stands why its latents are not where they were asked for, where that is so.
    pub(super) fn make(
        &mut self,
        item: &Item,
        replaced: Option<&Path>,
        coming: &[Waiting<'_>],
    ) -> Result<(Made, Option<Error>)> {
        let mut times = Times::default();
        let checkpoint = self.checkpoint(item);
        let job = Job::of(&item.recipe, self.pipeline.facts());
        let before = self.reached(item, &job, &checkpoint);
        let resumed_from = before.as_ref().map(|reached| job.steps_done(reached.pass, reached.progress.step));
        let begun = Begun::new(output::folder_of(&item.path), item, job.steps(), self.options.checkpoint_every > 0);
        let begun = RefCell::new(begun);
        begun.borrow_mut().reached(resumed_from.unwrap_or(0));
        let provenance = provenance::of(&item.recipe, &self.known, self.machine);
        let skips = Cell::new(Skips::default());
        let latents = match before {
            Some(Reached { pass, progress }) if job.is_done(pass, progress.step) => {
                progress.latents.to_device(&self.machine.device)?
            }
            before => {
                let making = Making {
                    item,
                    job: &job,
                    checkpoint: &checkpoint,
                    begun: &begun,
                    provenance: &provenance,
                    skips: &skips,
                };
                self.denoise(&making, before, coming, &mut times)?
            }
        };
        let latents_saved = self.save_latents(item, &latents, &provenance);
        self.make_room_for_decoder(item, coming.len() == 1);
        let clock = Clock::start();
        let picture = self.pipeline.decode(&latents, item.recipe.size(), &item.plan.choices)?;
        let took = clock.took(&self.machine.device);
        times.decode += took.whole;
        self.note_speed(&item.plan, item.plan.decoding(), took);
        let started = Instant::now();
        let path = self.write(item, replaced, &picture, &provenance);
        times.write = started.elapsed();
        self.tell_of_unconfirmed();
        let path = path?;
        drop(begun);
        let skipped = (item.recipe.step_cache != StepCache::Off).then_some(skips.get().steps);
        self.hold(&path);
        checkpoint.remove();
        Ok((Made { path, times, resumed_from, skipped, existed: false }, latents_saved.err()))
    }

    /// What an earlier run left of this picture, where that is to be used.
    fn reached(&self, item: &Item, job: &Job, checkpoint: &Checkpoint) -> Option<Reached> {
        let Some(file) = checkpoint.existing() else {
            if self.options.resume {
                self.tell_near_checkpoint(item, checkpoint);
            }
            return None;
        };
        let file = file.display();
        if !self.options.resume {
            self.note(format!(
                "an earlier run began this picture; --resume goes on from its checkpoint, this run starts anew ({file})"
            ));
            return None;
        }
        match checkpoint.load(job, &self.geometry()) {
            Ok(reached) => {
                if let Some(Reached { pass, progress }) = &reached {
                    let done = job.steps_done(*pass, progress.step);
                    let stage = job.stage(*pass).map(|stage| format!(" ({stage})")).unwrap_or_default();
                    self.note(format!("going on after step {done} of {}{stage}, from {file}", job.steps()));
                    if matches!(item.recipe.step_cache, StepCache::FirstBlock(_)) {
                        self.note(
                            "what --cache first-block keeps is too large for a checkpoint: the next step is computed in full, and the \
                             picture may differ a little from one that nothing interrupted"
                                .to_owned(),
                        );
                    }
                }
                reached
            }
            Err(why) => {
                self.note(format!("a checkpoint cannot be used, so this picture starts anew: {why}"));
                None
            }
        }
    }

    /// Tells of a checkpoint that would be gone on with, but for what it was computed with.
    fn tell_near_checkpoint(&self, item: &Item, checkpoint: &Checkpoint) {
        let Some(Near { file, differing }) = checkpoint.near(&item.recipe, &self.known) else { return };
        self.note(format!(
            "a checkpoint of the same settings is there and cannot be gone on with, so this picture starts anew: {} was computed \
             with another {}",
            file.display(),
            differing.join(", ")
        ));
    }

    fn denoise(
        &mut self,
        making: &Making<'_>,
        before: Option<Reached>,
        coming: &[Waiting<'_>],
        times: &mut Times,
    ) -> Result<Tensor> {
        let item = making.item;
        self.take_model(item)?;
        let texts = self.texts(coming, times)?;
        let (mut pass, mut from) = match before {
            Some(Reached { pass, progress }) => (pass, self.on_device(progress)?),
            None => (0, self.start(item, making.job, 0, None, times)?),
        };
        // The passes that are left, to the latents of the last.
        loop {
            let end = self.pass(making, (pass, from), &texts, times)?;
            pass += 1;
            if pass == making.job.passes().len() {
                return Ok(end.latents);
            }
            from = self.start(item, making.job, pass, Some(end), times)?;
        }
    }

    /// A pass from where it stands to its end.
    fn pass(
        &mut self,
        making: &Making<'_>,
        (pass, from): (usize, Progress),
        texts: &Texts,
        times: &mut Times,
    ) -> Result<Progress> {
        let left = making.job.passes()[pass].steps.saturating_sub(from.step);
        if left == 0 {
            return Ok(from);
        }
        let transformer = self.take_transformer(making.item, pass, times)?;
        let (clock, before) = (Clock::start(), making.skips.get());
        let end = self.steps(making, pass, from, texts, &*transformer);
        let took = clock.took(&self.machine.device);
        times.denoise += took.whole;
        self.keep_transformer(making.item, transformer);
        let (plan, skips) = (making.item.plan.pass(pass), making.skips.get());
        let skipped = skips.evaluations.saturating_sub(before.evaluations);
        // What is skipped behind a first block is not nothing, and not known.
        if skips == before || !matches!(making.item.recipe.step_cache, StepCache::FirstBlock(_)) {
            let amount = plan.denoising(plan.task.sampler.evaluations(left).saturating_sub(skipped));
            self.note_speed(plan, amount, took);
        }
        end
    }

    fn on_device(&self, progress: Progress) -> Result<Progress> {
        Ok(Progress { latents: progress.latents.to_device(&self.machine.device)?, ..progress })
    }

    fn steps(
        &self,
        making: &Making<'_>,
        pass: usize,
        from: Progress,
        texts: &Texts,
        transformer: &dyn Velocity,
    ) -> Result<Progress> {
        let (job, before) = (making.job, making.skips.get());
        let Pass { first, steps, .. } = job.passes()[pass];
        let recipe = job.passes()[pass].recipe(&making.item.recipe);
        let is_last = pass + 1 == job.passes().len();
        let mut state = State::new();
        let course = Course {
            recipe: &recipe,
            first,
            climb: job.climb(pass, &making.item.recipe, self.geometry()),
            stage: job.stage(pass),
        };
        let latents = self.pipeline.denoise_along(transformer, course, texts, from, &mut |after| {
            making.skips.set(before + after.skips());
            self.keep(making, pass, after);
            making.begun.borrow_mut().reached(job.steps_done(pass, after.step.index + 1));
            self.show(making, pass, after);
            if !is_last && after.step.index + 1 == after.step.steps {
                state = after.progress()?.state;
            }
            Ok(())
        })?;
        Ok(Progress { step: steps, latents, state })
    }

    /// Writes a checkpoint where one is due. That it fails must not end a run of hours.
    fn keep(&self, making: &Making<'_>, pass: usize, after: &After) {
        let Making { item, job, checkpoint, .. } = making;
        let every = self.options.checkpoint_every;
        let done = after.step.index + 1;
        // After the last step there is one in any case: decoding may fail, or take long.
        if every == 0 || (!done.is_multiple_of(every) && done != after.step.steps) {
            return;
        }
        let size = job.passes()[pass].size;
        let saved =
            after.progress().and_then(|progress| checkpoint.save(Reached { pass, progress }, size, &item.recipe));
        self.tell_of_unconfirmed();
        if let Err(error) = saved
            && !self.told_of_lost_checkpoint.replace(true)
        {
            let advice = "free some space there, or --resume can only go on from the checkpoint before";
            self.warn(format!("no checkpoint could be kept, the run goes on: {}; {advice}", error));
        }
    }

    /// Writes a preview where one is due.
    fn show(&self, making: &Making<'_>, pass: usize, after: &After) {
        let is_known = self.pipeline.facts().latent_rgb.is_known();
        let due = self.options.preview.as_ref().filter(|preview| is_known && preview.is_due(&after.step));
        let Some(preview) = due else { return };
        let of = (making.job, pass);
        if let Err(error) = preview.write(of, self.pipeline.facts(), making.provenance, after)
            && !self.told_of_lost_preview.replace(true)
        {
            let advice = "name another file with --preview";
            self.warn(format!("no preview could be written, the run goes on: {}; {advice}", error));
        }
    }

    fn save_latents(&self, item: &Item, latents: &Tensor, provenance: &Provenance) -> Result<()> {
        let Some(path) = &item.latents else { return Ok(()) };
        let mut metadata = checkpoint::sized(item.recipe.size());
        metadata.insert("parameters".to_owned(), provenance.parameters.clone());
        metadata.insert("provenance".to_owned(), provenance.json.to_string());
        metadata.extend(self.pipeline.latents_of().map(|class| (output::AUTOENCODER.to_owned(), class.to_owned())));
        let path = output::numbered(path, item.index as u64 + 1);
        let latents = self.pipeline.to_save(latents, item.recipe.size())?;
        let file = LatentsFile { latents, beside: State::new(), metadata };
        // A run that ended between latents and picture left them: they are not to get a second name, the next picture's perhaps.
        let is_there = self.options.resume && file.is_in(&path);
        let saved = if is_there { path } else { file.write_or_keep(&path, self.options.overwrite)? };
        self.observer.on(Event::Detail(format!("latents   {}", saved.display())));
        Ok(())
    }

    /// Gives the picture its name. What is replaced is never another picture of this run: then it gets the first free name.
    fn write(
        &self,
        item: &Item,
        replaced: Option<&Path>,
        picture: &Picture,
        provenance: &Provenance,
    ) -> Result<PathBuf> {
        match replaced {
            Some(path) => output::save_or_keep(path, 1, picture, provenance, true),
            None => {
                let is_ours = self.holds(&output::numbered(&item.path, item.number));
                let overwrite = self.options.overwrite && !is_ours;
                output::save_or_keep(&item.path, item.number, picture, provenance, overwrite)
            }
        }
    }

    /// Keeps how fast this machine was, for the next estimate.
    pub(super) fn note_speed(&mut self, plan: &Plan, amount: Amount, took: Took) {
        self.speeds.note(&plan.machine, amount, took);
    }
}
