//! One picture, from its noise or its checkpoint to its file.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use candle_core::Tensor;

use super::{
    Item, Made, Runner, Times,
    checkpoint::{self, Checkpoint, Progress},
    provenance,
    runner::Waiting,
};
use crate::{
    base::progress::Event,
    error::Result,
    models::flux1::Transformer,
    models::flux1::text::PromptEmbeddings,
    output::{self, LatentsFile, Picture, Provenance},
    plan::Speed,
    sampling::StepInfo,
};

impl Runner<'_> {
    /// Makes a picture. `replaced` is a damaged file that it takes the place of; `coming` are this and the next pictures.
    pub(super) fn make(&mut self, item: &Item, replaced: Option<&Path>, coming: &[Waiting<'_>]) -> Result<Made> {
        let mut times = Times::default();
        let checkpoint = self.checkpoint(item);
        let before = self.earlier_progress(item, &checkpoint);
        let resumed_from = before.as_ref().map(|progress| progress.step);
        let provenance = provenance::of(&item.recipe, &self.files.identity, self.machine);
        let latents = match before {
            Some(Progress { step, latents }) if step == item.recipe.steps => latents.to_device(&self.machine.device)?,
            before => self.denoise(item, before, coming, &checkpoint, &provenance, &mut times)?,
        };
        self.save_latents(item, &latents, &provenance)?;
        self.make_room_for_decoder(item, coming.len() == 1);
        let started = Instant::now();
        let picture = self.pipeline.decode(&latents, item.recipe.size(), &item.plan.choices)?;
        times.decode = started.elapsed();
        self.note_speed(item, resumed_from.unwrap_or(0), &times);
        let started = Instant::now();
        let path = self.write(item, replaced, &picture, &provenance)?;
        times.write = started.elapsed();
        checkpoint.remove();
        Ok(Made { path, times, resumed_from, existed: false })
    }

    /// What an earlier run left of this picture, where that is to be used.
    fn earlier_progress(&self, item: &Item, checkpoint: &Checkpoint) -> Option<Progress> {
        let file = checkpoint.file().display();
        if !self.options.resume {
            if checkpoint.file().exists() {
                self.note(format!(
                    "an earlier run began this picture; --resume goes on from its checkpoint, this run starts anew ({file})"
                ));
            }
            return None;
        }
        match checkpoint.load(item.recipe.steps) {
            Ok(progress) => {
                if let Some(Progress { step, .. }) = &progress {
                    self.note(format!("going on after step {step} of {}, from {file}", item.recipe.steps));
                }
                progress
            }
            Err(why) => {
                self.note(format!("a checkpoint cannot be used, so this picture starts anew: {why}"));
                None
            }
        }
    }

    fn denoise(
        &mut self,
        item: &Item,
        before: Option<Progress>,
        coming: &[Waiting<'_>],
        checkpoint: &Checkpoint,
        provenance: &Provenance,
        times: &mut Times,
    ) -> Result<Tensor> {
        let embeddings = self.embeddings(coming, times)?;
        let transformer = self.take_transformer(item, times)?;
        let started = Instant::now();
        let result = self.steps(item, before, &embeddings, &transformer, checkpoint, provenance);
        times.denoise = started.elapsed();
        self.keep_transformer(item, transformer);
        result
    }

    fn steps(
        &self,
        item: &Item,
        before: Option<Progress>,
        embeddings: &PromptEmbeddings,
        transformer: &Transformer,
        checkpoint: &Checkpoint,
        provenance: &Provenance,
    ) -> Result<Tensor> {
        let start = match before {
            Some(Progress { step, latents }) => (step, latents.to_device(&self.machine.device)?),
            None => (0, self.pipeline.noise(&item.recipe)?),
        };
        let mut last = start.1.clone();
        self.pipeline.denoise(transformer, &item.recipe, embeddings, start, &mut |step, latents| {
            self.keep(item, checkpoint, step, latents);
            self.show(item, provenance, step, [&last, latents]);
            last = latents.clone();
            Ok(())
        })
    }

    /// Writes a checkpoint where one is due. That it fails must not end a run of hours.
    fn keep(&self, item: &Item, checkpoint: &Checkpoint, step: &StepInfo, latents: &Tensor) {
        let every = self.options.checkpoint_every;
        let done = step.index + 1;
        // After the last step there is one in any case: decoding may fail, or take long.
        if every == 0 || (!done.is_multiple_of(every) && done != step.steps) {
            return;
        }
        if let Err(error) = checkpoint.save(done, latents, &item.recipe)
            && !self.told_of_lost_checkpoint.replace(true)
        {
            let advice = "free some space there, or --resume can only go on from the checkpoint before";
            self.warn(format!("no checkpoint could be kept, the run goes on: {}; {advice}", error));
        }
    }

    /// Writes a preview where one is due.
    fn show(&self, item: &Item, provenance: &Provenance, step: &StepInfo, [before, after]: [&Tensor; 2]) {
        let Some(preview) = self.options.preview.as_ref().filter(|preview| preview.is_due(step)) else { return };
        if let Err(error) = preview.write(item, provenance, step, before, after)
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
        let path = output::numbered(path, item.index as u64 + 1);
        let saved = LatentsFile { latents: latents.clone(), metadata }.write(&path, self.options.overwrite)?;
        self.observer.on(Event::Detail(format!("latents   {}", saved.display())));
        Ok(())
    }

    /// Gives the picture its name.
    fn write(
        &self,
        item: &Item,
        replaced: Option<&Path>,
        picture: &Picture,
        provenance: &Provenance,
    ) -> Result<PathBuf> {
        match replaced {
            Some(path) => output::save(path, picture, provenance, true),
            None => output::save_numbered(&item.path, item.number, picture, provenance, self.options.overwrite),
        }
    }

    /// Keeps how fast this machine was, for the next estimate.
    fn note_speed(&mut self, item: &Item, first_step: usize, times: &Times) {
        let steps = (item.recipe.steps - first_step) as f64;
        if steps == 0.0 {
            return;
        }
        let speed = Speed {
            denoise_flops_per_s: item.plan.step_flops as f64 * steps / times.denoise.as_secs_f64(),
            decode_flops_per_s: item.plan.decode_flops as f64 / times.decode.as_secs_f64(),
        };
        self.speeds.note(&self.machine.name(), speed);
    }
}
