//! Checkpoints: how far a picture has come that is being made, in `.dype/` beside it.
//!
//! Each holds the latents after a step of a pass and what the denoiser carries on. It is a whole file at every moment
//! (written under another name, synced, renamed) and carries a sha256 of each tensor, so that a file which a power cut or a full
//! disk has damaged is never taken for good. A file is named by everything that could change its bits: a run with other settings
//! never finds it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::identity;
use crate::{
    base::geometry::{ImageSize, LatentGeometry},
    error::{Error, Result},
    models::KnownModel,
    output::{self, LatentsFile},
    plan::Machine,
    recipe::Recipe,
    run::job::Job,
    sampling::Progress,
};

/// The folder of checkpoints, in the folder of the pictures.
pub const FOLDER: &str = output::HIDDEN_FOLDER;
/// The layout that is written.
const FORMAT: &str = "2";
/// The layout of before there were passes and state: its latents are those of the only pass.
const FORMAT_WITHOUT_PASSES: &str = "1";
/// The metadata that hold the picture's settings, and the model it is by.
const SETTINGS: &str = "settings";
const MODEL: &str = "model";

/// The place of one picture's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    file: PathBuf,
    key: String,
    /// The key that the first version would have given it.
    first_key: String,
    /// What it was computed with, as metadata.
    about: BTreeMap<String, String>,
}

/// A checkpoint of the same settings that is none of this picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// Its file.
    pub file: PathBuf,
    /// What differs.
    pub differing: Vec<String>,
}

/// How far a picture has come.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The pass that is being done, from 0.
    pub pass: usize,
    /// Where it has come to; tensors are on the CPU.
    pub progress: Progress,
}

impl Checkpoint {
    /// The checkpoint of a picture that goes into `folder`: of these settings, by this model on this machine.
    pub fn of(folder: &Path, recipe: &Recipe, model: &KnownModel, machine: &Machine) -> Self {
        let key = identity::checkpoint_key(recipe, model, machine);
        let first_key = identity::first_checkpoint_key(recipe, &model.identity, machine);
        let mut about = BTreeMap::from([own((MODEL, json!(model).to_string()))]);
        let machine = identity::about(machine);
        about.extend(machine.as_object().into_iter().flatten().map(|(name, value)| own((name, text(value)))));
        Self { file: file_of(folder, &key), key, first_key, about }
    }

    /// The file that is there: its own, or that of the first version.
    pub fn existing(&self) -> Option<PathBuf> {
        let first = self.file.with_file_name(format!("{}.safetensors", self.first_key));
        [self.file.clone(), first].into_iter().find(|file| file.exists())
    }

    /// Puts what `reached` says in place of what was there; `size` is that of its pass.
    ///
    /// # Errors
    /// [`Error::Disk`] when the file cannot be written; what was there stays then.
    pub fn save(&self, reached: Reached, size: ImageSize, recipe: &Recipe) -> Result<()> {
        let Reached { pass, progress: Progress { step, latents, state } } = reached;
        let mut metadata = sized(size);
        let settings = serde_json::to_string(recipe).unwrap_or_default();
        let place = [("pass", pass.to_string()), ("step", step.to_string())];
        let said = [("format", FORMAT.to_owned()), (SETTINGS, settings), ("key", self.key.clone())];
        metadata.extend(place.into_iter().chain(said).map(own));
        metadata.extend(self.about.clone());
        let file = LatentsFile { latents, beside: state, metadata };
        // Another process that finishes in this folder may remove it between its creation and our file.
        const ATTEMPTS: usize = 5;
        for _ in 1..ATTEMPTS {
            match file.write(&self.file, true) {
                Err(Error::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                other => return other.map(|_| ()),
            }
        }
        file.write(&self.file, true).map(|_| ())
    }

    /// What an earlier run left of a picture that comes about by these passes; `None` when there is nothing.
    ///
    /// # Errors
    /// In words, why the file that is there cannot be used.
    pub fn load(&self, job: &Job, geometry: &LatentGeometry) -> Result<Option<Reached>, String> {
        let Some(file) = self.existing() else { return Ok(None) };
        let LatentsFile { latents, beside: state, metadata } = match LatentsFile::read(&file) {
            Ok(read) => read,
            Err(Error::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let get = |name: &str| metadata.get(name).map(String::as_str);
        let number = |name: &str| get(name).and_then(|text| text.parse::<usize>().ok());
        let pass = match get("format") {
            Some(FORMAT) => number("pass"),
            Some(FORMAT_WITHOUT_PASSES) => Some(0),
            None => None,
            Some(other) => return Err(format!("{} has format {other}, not {FORMAT}", file.display())),
        };
        let known = pass.and_then(|pass| job.passes().get(pass));
        let fits = known.is_some_and(|pass| latents.dims() == geometry.packed_shape(geometry.tokens(pass.size)));
        let steps = known.map_or(0..0, |pass| pass.first..pass.steps);
        // It was written after a step.
        let step = number("step").filter(|step| step.checked_sub(1).is_some_and(|done| steps.contains(&done)));
        match (pass, step) {
            (Some(pass), Some(step)) if get("key").is_some_and(|key| self.is_key(key)) && fits => {
                Ok(Some(Reached { pass, progress: Progress { step, latents, state } }))
            }
            _ => Err(format!("{} is no checkpoint of this picture", file.display())),
        }
    }

    fn is_key(&self, key: &str) -> bool {
        key == self.key || key == self.first_key
    }

    /// A checkpoint beside it of the same settings, by another model or on another machine.
    pub fn near(&self, recipe: &Recipe, model: &KnownModel) -> Option<Near> {
        let settings = json!(recipe);
        let entries = fs::read_dir(self.file.parent()?).ok()?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "safetensors")).find_map(
            |file| {
                let metadata = LatentsFile::metadata(&file)?;
                let said = |name: &str| serde_json::from_str::<Value>(metadata.get(name)?).ok();
                (said(SETTINGS)? == settings)
                    .then(|| Near { differing: self.differing(&metadata, said(MODEL), model), file })
            },
        )
    }

    /// What a checkpoint that says this was computed with otherwise.
    fn differing(&self, metadata: &BTreeMap<String, String>, said: Option<Value>, model: &KnownModel) -> Vec<String> {
        let mut differing = said.map_or_else(|| vec!["model".to_owned()], |said| model.differences(&said));
        let others = self.about.iter().filter(|(name, value)| *name != MODEL && metadata.get(*name) != Some(*value));
        differing.extend(others.map(|(name, _)| name.replace('_', " ")));
        differing
    }

    /// Removes it, and the folder when it was the last one there.
    pub fn remove(&self) {
        // A checkpoint that stays costs space and nothing else: the next run with --resume tries again.
        while let Some(file) = self.existing() {
            if fs::remove_file(file).is_err() {
                break;
            }
        }
        if let Some(folder) = self.file.parent() {
            remove_folder_if_empty(folder);
        }
    }
}

/// Removes what dead processes left among the checkpoints in the folder of pictures `folder`, and the folder of
/// checkpoints when it is empty.
pub fn clean(folder: &Path) {
    output::remove_stale_files(folder);
    let checkpoints = folder.join(FOLDER);
    output::remove_stale_files(&checkpoints);
    remove_folder_if_empty(&checkpoints);
}

fn file_of(folder: &Path, key: &str) -> PathBuf {
    folder.join(FOLDER).join(format!("{key}.safetensors"))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn remove_folder_if_empty(folder: &Path) {
    // It fails, as it should, when something is in it.
    let _ = fs::remove_dir(folder);
}

/// Metadata that say which picture latents belong to: `height` and `width` in pixels.
pub fn sized(size: ImageSize) -> BTreeMap<String, String> {
    BTreeMap::from([("height", size.height_px.to_string()), ("width", size.width_px.to_string())].map(own))
}

fn own((name, value): (&str, String)) -> (String, String) {
    (name.to_owned(), value)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::sampling::{Denoiser, Euler, State, StepInfo, denoise};
    use crate::{models::Registry, recipe::Wanted};

    const STEPS: usize = 6;

    fn recipe() -> Recipe {
        let (side, steps) = (Some(32), Some(STEPS));
        Recipe::draft(&Wanted { height: side, width: side, steps, ..Wanted::default() }).expect("in range")
    }

    /// FLUX.1's.
    const GEOMETRY: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };

    fn latents() -> Tensor {
        Tensor::arange(0f32, 256.0, &Device::Cpu).and_then(|t| t.reshape((1, 4, 64))).expect("packed")
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|t| t.to_vec1()).expect("f32")
    }

    fn place() -> (tempfile::TempDir, Checkpoint) {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |key: &str| key.to_owned();
        let file = file_of(folder.path(), "key");
        let checkpoint = Checkpoint { file, key: key("key"), first_key: key("first"), about: BTreeMap::new() };
        (folder, checkpoint)
    }

    #[test]
    fn a_checkpoint_of_before_there_were_passes_is_gone_on_with() {
        let (_folder, checkpoint) = place();
        let said = [("format", "1"), ("step", "3"), ("key", "key"), ("settings", "{}")];
        let metadata = said.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let file = LatentsFile { latents: latents(), beside: State::new(), metadata };
        file.write(&checkpoint.file, true).expect("written");
        let Reached { pass, progress } = checkpoint
            .load(&Job::of(&recipe(), &Registry::default().usual()), &GEOMETRY)
            .expect("readable")
            .expect("there");
        assert_eq!((pass, progress.step, progress.state.len()), (0, 3, 0));
        assert_eq!(values(&progress.latents), values(&latents()));
    }

    #[test]
    fn another_picture_pass_or_format_is_refused_in_words() {
        let (folder, checkpoint) = place();
        let job = Job::of(&recipe(), &Registry::default().usual());
        assert!(checkpoint.load(&job, &GEOMETRY).expect("nothing is no error").is_none());
        for (pass, step) in [(1, 1), (0, 0), (0, STEPS + 1)] {
            let progress = Progress { step, ..Progress::start(latents()) };
            checkpoint.save(Reached { pass, progress }, job.passes()[0].size, &recipe()).expect("written");
            assert!(
                checkpoint.load(&job, &GEOMETRY).expect_err("not in the job").contains("no checkpoint of this picture")
            );
        }
        let progress = Progress { step: 1, ..Progress::start(latents()) };
        checkpoint.save(Reached { pass: 0, progress }, job.passes()[0].size, &recipe()).expect("written");
        let other = Checkpoint { key: "other".to_owned(), ..checkpoint.clone() };
        assert!(other.load(&job, &GEOMETRY).expect_err("another key").contains("no checkpoint of this picture"));
        let mut file = LatentsFile::read(&checkpoint.file).expect("readable");
        file.metadata.insert("format".to_owned(), "3".to_owned());
        file.write(&checkpoint.file, true).expect("written");
        assert!(checkpoint.load(&job, &GEOMETRY).expect_err("a later format").contains("format 3, not 2"));
        drop(folder);
    }

    /// Asks for a velocity and takes half of the one before with it: what it gives depends on all steps so far.
    struct Momentum {
        last: Option<Tensor>,
    }

    impl Denoiser for Momentum {
        fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
            let own = (latents.sin()? * (step.t + 0.3))?;
            let velocity = match &self.last {
                Some(last) => (own + (last * 0.5)?)?,
                None => own,
            };
            self.last = Some(velocity.clone());
            Ok(velocity)
        }

        fn state(&self) -> Result<State> {
            let steps = Tensor::new(&[1.0f64 / 3.0], &Device::Cpu)?;
            let last = self.last.iter().map(|last| ("momentum.last".to_owned(), last.clone()));
            Ok(last.chain([("momentum.weight".to_owned(), steps)]).collect())
        }

        fn restore(&mut self, mut state: State) -> Result<()> {
            let weight = state.remove("momentum.weight").map(|weight| weight.to_vec1::<f64>()).transpose()?;
            assert_eq!(weight.unwrap_or(vec![1.0 / 3.0]), [1.0 / 3.0], "f64 stays f64");
            self.last = state.remove("momentum.last");
            Ok(())
        }
    }

    #[test]
    fn what_a_denoiser_carries_survives_the_file_bit_for_bit() {
        let sigmas: Vec<f64> = (0..=STEPS).rev().map(|i| i as f64 / STEPS as f64).collect();
        let (_folder, checkpoint) = place();
        let job = Job::of(&recipe(), &Registry::default().usual());
        let mut ends = vec![];
        let mut saved = vec![];
        let start = Progress::start(latents());
        let whole = denoise(&mut Momentum { last: None }, &mut Euler, &sigmas, start, &mut |after| {
            let reached = Reached { pass: 0, progress: after.progress()? };
            checkpoint.save(reached, job.passes()[0].size, &recipe())?;
            saved.push(checkpoint.load(&job, &GEOMETRY).expect("readable").expect("there"));
            Ok(())
        })
        .expect("runs");
        for Reached { progress, .. } in saved {
            ends.push(
                denoise(&mut Momentum { last: None }, &mut Euler, &sigmas, progress, &mut |_| Ok(())).expect("runs"),
            );
        }
        assert_eq!(ends.len(), STEPS);
        for end in ends {
            assert_eq!(values(&end), values(&whole));
        }
    }
}
