//! The files of one part of a model in a folder: a single safetensors file, or shards listed by an index.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Files, STEMS, TensorFiles, TensorSource};
use crate::error::{Error, Result};

/// A `*.safetensors.index.json`: which file holds which tensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ShardIndex {
    /// Tensor name -> file name.
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads and checks an index file.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is no index or names something but plain files.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_among(path, &Files::default())
    }

    fn read_among(path: &Path, files: &Files) -> Result<Self> {
        let index: Self = files.read_json(path)?;
        if index.weight_map.is_empty() {
            let what = format!("{} lists no tensor", path.display());
            return Err(Error::model(what, "delete it and fetch the model again"));
        }
        if let Some(odd) = index.shards().into_iter().find(|name| !is_plain_name(name)) {
            let what = format!("{} names the shard {odd:?}, which is not a file in its folder", path.display());
            return Err(Error::model(what, "the index is damaged or not to be trusted; fetch the model again"));
        }
        Ok(index)
    }

    /// The files it names, each once, in order.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// A file name without any folder: an index comes from elsewhere and must not point out of its folder.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None)) && !name.contains('\\')
}

/// Opens the part in `folder`, whichever way it is stored.
///
/// # Errors
/// [`Error::Model`] when there is neither an index nor a single file, when the index names a missing file, or a shard lacks a
/// tensor its index promises; and as [`TensorFiles::open`].
pub fn open_folder(folder: &Path) -> Result<TensorFiles> {
    open_folder_among(folder, &Files::default())
}

/// [`open_folder`] where some files may be known before they are here.
pub(super) fn open_folder_among(folder: &Path, files: &Files) -> Result<TensorFiles> {
    let stored = files.stored(folder)?.ok_or_else(|| no_weights(folder))?;
    let path = folder.join(&stored.main);
    if !stored.is_sharded {
        return files.open(&[path]);
    }
    let index = ShardIndex::read_among(&path, files)?;
    let store = files.open(&shard_files(folder, &path, &index, files)?)?;
    for (name, shard) in &index.weight_map {
        if store.file_of(name) != Some(folder.join(shard).as_path()) {
            let found = if store.shape(name).is_some() { "it is in another file" } else { "no file has it" };
            let what = format!("{} promises tensor {name} in {shard}, but {found}", path.display());
            return Err(Error::model(what, "index and shards are of different versions; fetch the model again"));
        }
    }
    Ok(store)
}

fn shard_files(folder: &Path, index_path: &Path, index: &ShardIndex, files: &Files) -> Result<Vec<PathBuf>> {
    let shards = index.shards();
    let missing: Vec<_> = shards.iter().filter(|name| !files.is_file(&folder.join(name))).copied().collect();
    if !missing.is_empty() {
        let (found, all) = (missing.len(), shards.len());
        let what = format!("{} names {all} shards, {found} missing: {}", index_path.display(), missing.join(", "));
        let hint = if files.ahead(index_path).is_some() {
            "the repository is incomplete; take another of the same model, or another revision (OWNER/NAME@REVISION)"
        } else {
            "the model is incomplete; fetch the missing files into this folder"
        };
        return Err(Error::model(what, hint));
    }
    Ok(shards.iter().map(|name| folder.join(name)).collect())
}

fn no_weights(folder: &Path) -> Error {
    let looked: Vec<_> = STEMS.iter().map(|stem| format!("{stem}.safetensors[.index.json]")).collect();
    let pickles = std::fs::read_dir(folder).into_iter().flatten().flatten().any(|file| {
        matches!(file.path().extension().and_then(|e| e.to_str()), Some("bin" | "ckpt" | "pt" | "msgpack"))
    });
    let hint = if pickles {
        "only .safetensors files are read; fetch the model in that format"
    } else {
        "the model is incomplete; fetch it again, or give the file of this part itself"
    };
    Error::model(format!("{} holds no weights (looked for {})", folder.display(), looked.join(", ")), hint)
}
