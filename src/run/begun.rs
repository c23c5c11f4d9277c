//! Pictures that were begun by a process that ended without a word: killed when memory ran out, or by a model's file that was
//! cut while it was mapped. The next run tells of them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Item, checkpoint::FOLDER};
use crate::{
    base::memory::Bytes,
    output::{Marker, take_left},
};

const KIND: &str = "begun";

/// How far a picture has come; it is beside its checkpoint as long as it is being made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Said {
    step: usize,
    steps: usize,
    /// The memory that was planned for it.
    planned: u64,
}

/// The mark of a picture that is being made.
pub struct Begun {
    marker: Option<Marker>,
    said: Said,
}

impl Begun {
    /// For a picture whose checkpoint lies in the folder of `folder`'s checkpoints, after this many steps; without a file where
    /// it is to leave none.
    pub fn new(folder: &Path, item: &Item, steps: usize, leaves_files: bool) -> Self {
        let said = Said { step: 0, steps, planned: item.plan.peak_bytes.most() };
        Self { marker: leaves_files.then(|| Marker::new(&folder.join(FOLDER), KIND)).flatten(), said }
    }

    /// Notes that so many steps are done.
    pub fn reached(&mut self, step: usize) {
        self.said.step = step;
        if let Some(marker) = &mut self.marker {
            marker.say(&serde_json::to_string(&self.said).unwrap_or_default());
        }
    }
}

/// What to tell of the pictures in a folder that were begun and left; told once.
pub fn told_of_left(folder: &Path) -> Vec<String> {
    take_left(&folder.join(FOLDER), KIND).iter().map(|said| told(folder, serde_json::from_str(said).ok())).collect()
}

fn told(folder: &Path, said: Option<Said>) -> String {
    let (at, planned) = match said {
        Some(Said { step: 0, planned, .. }) => ("before its first step was done".to_owned(), Some(planned)),
        Some(Said { step, steps, planned }) if step == steps => {
            ("after its last step, decoding".to_owned(), Some(planned))
        }
        Some(Said { step, steps, planned }) => (format!("after step {step} of {steps}"), Some(planned)),
        None => ("at an unknown step".to_owned(), None),
    };
    let less = planned.map_or_else(|| "a lower limit".to_owned(), |bytes| Bytes(bytes / 5 * 4).flag());
    format!(
        "the last run in {} ended without a word {at}: it was killed, as systems do when memory runs out, or a file of the model was \
         cut while in use. --resume goes on from its checkpoint; if memory ran out, try --memory {less} or --weights stream",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_and_what_to_try_are_told() {
        let of = |step| told(Path::new("x"), Some(Said { step, steps: 28, planned: 10_000_000_000 }));
        for (step, words) in [(0, "before its first step"), (3, "after step 3 of 28"), (28, "after its last step")] {
            let text = of(step);
            assert!(text.contains(words) && text.contains("--memory 8.0GB") && text.contains("--resume"), "{text}");
        }
        assert!(told(Path::new("x"), None).contains("at an unknown step"));
    }
}
