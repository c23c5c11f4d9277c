//! Files by path: those of this disk, and before them those of a repository that are known before they are here.
//!
//! A model of the Hub is recognised, opened and planned from its configs and the headers of its weights, which are small.
//! They stand here under the paths the files will have; whoever opens a model need not know the difference.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use super::{SafetensorsStore, index};
use crate::{
    base::json::{parse_json, read_json},
    error::Result,
};

/// What is known of a file that is not here yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    /// That it will be there.
    Name,
    /// All of it.
    Whole(Vec<u8>),
    /// The beginning of a safetensors file, up to the end of its header or further, and the length it will have.
    Header {
        /// Its first bytes.
        bytes: Vec<u8>,
        /// The length of the whole file in bytes.
        file_bytes: u64,
    },
}

/// The files of this disk, and those known ahead of them.
#[derive(Debug, Clone, Default)]
pub struct Files {
    ahead: Arc<BTreeMap<PathBuf, Ahead>>,
}

impl Files {
    /// The files of this disk and these, which are not on it.
    pub fn with(ahead: BTreeMap<PathBuf, Ahead>) -> Self {
        Self { ahead: Arc::new(ahead) }
    }

    /// What is known of a file that is not here.
    pub(super) fn ahead(&self, path: &Path) -> Option<&Ahead> {
        self.ahead.get(path)
    }

    /// Whether there is, or will be, a file at this path.
    pub fn is_file(&self, path: &Path) -> bool {
        self.ahead.contains_key(path) || path.is_file()
    }

    /// Whether there is, or will be, a folder at this path.
    pub fn is_dir(&self, path: &Path) -> bool {
        self.ahead.keys().any(|file| file != path && file.starts_with(path)) || path.is_dir()
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// As [`read_json`].
    pub fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<T> {
        match self.ahead(path) {
            Some(Ahead::Whole(bytes)) => parse_json(path, bytes),
            _ => read_json(path),
        }
    }

    /// Opens safetensors files, one or several shards of one part. Of a file that is not here there are names, shapes and
    /// number types, and no numbers.
    ///
    /// # Errors
    /// As [`SafetensorsStore::open`].
    pub fn open(&self, paths: &[PathBuf]) -> Result<SafetensorsStore> {
        SafetensorsStore::open_among(paths, self)
    }

    /// Opens the part in `folder`, whichever way it is stored.
    ///
    /// # Errors
    /// As [`super::open_folder`].
    pub fn open_folder(&self, folder: &Path) -> Result<SafetensorsStore> {
        index::open_folder_among(folder, self)
    }
}
