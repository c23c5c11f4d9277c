//! Checkpoints: the latents of a picture that is being made, in `.dype/` beside it.
//!
//! Each is a whole file at every moment (written under another name, synced, renamed) and carries a sha256 of its
//! latents, so that a file which a power cut or a full disk has damaged is never taken for good. A file is named by
//! everything that could change its bits: a run with other settings never finds it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Tensor;

use crate::{
    base::geometry::ImageSize,
    error::{Error, Result},
    output::{self, LatentsFile},
    recipe::Recipe,
};

/// The folder of checkpoints, in the folder of the pictures.
pub const FOLDER: &str = ".dype";
/// The layout of a checkpoint; another is not read.
const FORMAT: &str = "1";

/// The place of one picture's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    file: PathBuf,
    key: String,
}

/// Latents after a number of steps.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Steps that are done.
    pub step: usize,
    /// Packed latents [1, N, 64] f32 after them, on the CPU.
    pub latents: Tensor,
}

impl Checkpoint {
    /// The checkpoint with this key of a picture that goes into `folder`.
    pub fn new(folder: &Path, key: String) -> Self {
        Self { file: folder.join(FOLDER).join(format!("{key}.safetensors")), key }
    }

    /// Its file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Puts `latents` in place of what was there.
    ///
    /// # Errors
    /// [`Error::Disk`] when the file cannot be written; what was there stays then.
    pub fn save(&self, step: usize, latents: &Tensor, recipe: &Recipe) -> Result<()> {
        let mut metadata = sized(recipe.size());
        let settings = serde_json::to_string(recipe).unwrap_or_default();
        metadata.extend([("format", FORMAT.to_owned()), ("step", step.to_string()), ("settings", settings)].map(own));
        metadata.insert("key".to_owned(), self.key.clone());
        let file = LatentsFile { latents: latents.clone(), metadata };
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

    /// What an earlier run left; `None` when there is nothing.
    ///
    /// # Errors
    /// In words, why the file that is there cannot be used.
    pub fn load(&self, steps: usize) -> Result<Option<Progress>, String> {
        let LatentsFile { latents, metadata } = match LatentsFile::read(&self.file) {
            Ok(file) => file,
            Err(Error::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let get = |name: &str| metadata.get(name).map(String::as_str);
        let step = get("step").and_then(|step| step.parse().ok()).filter(|step| (1..=steps).contains(step));
        match (get("format"), get("key") == Some(self.key.as_str()), step) {
            (Some(FORMAT), true, Some(step)) => Ok(Some(Progress { step, latents })),
            (Some(FORMAT) | None, ..) => Err(format!("{} is no checkpoint of this picture", self.file.display())),
            (Some(other), ..) => Err(format!("{} has format {other}, not {FORMAT}", self.file.display())),
        }
    }

    /// Removes it, and the folder when it was the last one there.
    pub fn remove(&self) {
        // A checkpoint that stays costs space and nothing else: the next run with --resume tries again.
        let _ = fs::remove_file(&self.file);
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
