//! How fast this machine was the last time: what turns operations into an estimate of seconds.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::base::cache;

/// Operations a second of one device and number type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Of denoising steps.
    pub denoise_flops_per_s: f64,
    /// Of decoding.
    pub decode_flops_per_s: f64,
}

impl Speed {
    /// Seconds for this much work.
    pub fn time(&self, denoise_flops: u128, decode_flops: u64) -> Duration {
        let s = denoise_flops as f64 / self.denoise_flops_per_s + decode_flops as f64 / self.decode_flops_per_s;
        Duration::try_from_secs_f64(s).unwrap_or_default()
    }
}

/// Speeds by device and number type, kept in a small file between runs. It only serves estimates: a file that cannot be
/// read or written is no error.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedBook {
    file: Option<PathBuf>,
    speeds: BTreeMap<String, Speed>,
}

impl SpeedBook {
    /// The book in [`cache::folder`].
    pub fn open() -> Self {
        Self::at(cache::folder().map(|folder| folder.join("speed.json")))
    }

    /// The book in this file.
    pub fn at(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let speeds = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { file, speeds }
    }

    /// The speed of a device and number type, such as "cpu f32", where it was measured.
    pub fn get(&self, machine: &str) -> Option<Speed> {
        let is_usable = |speed: &Speed| speed.denoise_flops_per_s > 0.0 && speed.decode_flops_per_s > 0.0;
        self.speeds.get(machine).copied().filter(is_usable)
    }

    /// Notes a measured speed.
    pub fn note(&mut self, machine: &str, speed: Speed) {
        self.speeds.insert(machine.to_owned(), speed);
        let Some(file) = &self.file else { return };
        let Ok(text) = serde_json::to_string_pretty(&self.speeds) else { return };
        // Estimates are a courtesy: a read-only home must not fail a run.
        let _ = file.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(file, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_speed_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("deep/speed.json"));
        let speed = Speed { denoise_flops_per_s: 2e11, decode_flops_per_s: 1e11 };
        SpeedBook::at(file.clone()).note("cpu f32", speed);
        let book = SpeedBook::at(file);
        assert_eq!(book.get("cpu f32"), Some(speed));
        assert_eq!(book.get("cuda bf16"), None);
        assert_eq!(speed.time(400_000_000_000, 100_000_000_000), Duration::from_secs(3));
    }

    #[test]
    fn a_damaged_book_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("speed.json");
        std::fs::write(&file, "{\"cpu f32\": 3").expect("written");
        assert_eq!(SpeedBook::at(Some(file)).get("cpu f32"), None);
    }
}
