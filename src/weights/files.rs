//! Files by path: those of this disk, and before them those of a repository that are known before they are here.
//!
//! A model of the Hub is recognised, opened and planned from its configs and the headers of its weights, which are small.
//! They stand here under the paths the files will have; whoever opens a model need not know the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::DType;
use serde::de::DeserializeOwned;

use super::{Expected, Stored, TensorFiles, index};
use crate::{
    base::{
        json::{parse_json, read_json},
        safetensors::{Entry, header},
    },
    error::{Error, Result},
};

/// The names of the files in a folder of this disk. A link to nothing is no file.
pub(crate) fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_file()).filter_map(|entry| entry.file_name().into_string().ok())
}

/// What is known of a file that is not here yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    /// That it will be there.
    Name,
    /// All of it.
    Whole(Vec<u8>),
    /// The beginning of a safetensors or GGUF file, up to the end of its header or further, and the length it will have.
    Header {
        /// Its first bytes.
        bytes: Vec<u8>,
        /// The length of the whole file in bytes.
        file_bytes: u64,
    },
}

impl Ahead {
    /// A safetensors file that holds these tensors, each once, in one number type, as far as anybody can know it who has no numbers.
    pub fn of_tensors(tensors: impl IntoIterator<Item = Expected>, dtype: DType) -> Self {
        let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
        let entries = tensors.iter().map(|(name, shape)| Entry {
            name,
            dtype: dtype.as_str().to_ascii_uppercase(),
            shape,
            bytes: dtype.size_in_bytes() as u64 * shape.iter().map(|side| *side as u64).product::<u64>(),
        });
        let entries: Vec<_> = entries.collect();
        let bytes = header(&BTreeMap::new(), &entries);
        let file_bytes = bytes.len() as u64 + entries.iter().map(|entry| entry.bytes).sum::<u64>();
        Self::Header { bytes, file_bytes }
    }
}

/// The files of this disk, and those known ahead of them.
#[derive(Debug, Clone, Default)]
pub struct Files {
    ahead: Arc<BTreeMap<PathBuf, Ahead>>,
    /// The variant of weights that is opened where it is there.
    variant: Option<String>,
}

impl Files {
    /// The files of this disk and these, which are not on it.
    pub fn with(ahead: BTreeMap<PathBuf, Ahead>) -> Self {
        Self { ahead: Arc::new(ahead), variant: None }
    }

    /// The same files, of which weights are opened in this variant (`fp16`) where they are there in it.
    #[must_use]
    pub fn in_variant(self, variant: Option<String>) -> Self {
        Self { variant, ..self }
    }

    /// These files and those.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let ahead = self.ahead.iter().chain(other.ahead.iter()).map(|(path, ahead)| (path.clone(), ahead.clone()));
        Self { ahead: Arc::new(ahead.collect()), ..self }
    }

    /// The variant of weights that was asked for.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// How the part in `folder` is stored; `None` where it holds no weights.
    ///
    /// # Errors
    /// [`Error::Model`] when they are there in several variants and none of them was asked for.
    pub(crate) fn stored(&self, folder: &Path) -> Result<Option<Stored>> {
        let names = self.names_in(folder);
        Stored::among(names.iter().map(String::as_str), self.variant()).map_err(|variants| {
            let variants: Vec<_> = variants.into_iter().collect();
            let what = format!("{} holds weights in several variants: {}", folder.display(), variants.join(", "));
            Error::model(what, format!("say which with --variant, such as --variant {}", variants[0]))
        })
    }

    /// The names of the files in a folder, those ahead included.
    pub(crate) fn names_in(&self, folder: &Path) -> BTreeSet<String> {
        let ahead = self.ahead.keys().filter(|file| file.parent() == Some(folder));
        let ahead = ahead.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()));
        ahead.chain(names_in(folder)).collect()
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

    /// Opens safetensors or GGUF files, one or several shards of one part. Of a file that is not here there are names, shapes and
    /// number types, and no numbers.
    ///
    /// # Errors
    /// As [`TensorFiles::open`].
    pub fn open(&self, paths: &[PathBuf]) -> Result<TensorFiles> {
        TensorFiles::open_among(paths, self)
    }

    /// Opens the part in `folder`, whichever way it is stored.
    ///
    /// # Errors
    /// As [`super::open_folder`].
    pub fn open_folder(&self, folder: &Path) -> Result<TensorFiles> {
        index::open_folder_among(folder, self)
    }
}
