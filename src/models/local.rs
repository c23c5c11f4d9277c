//! Models in folders that the user names: ComfyUI's, those of files, and those in diffusers layout.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Family, Inventory, ModelRequest, PartKind, inventory,
    repository::PIPELINE_INDEX,
    shelves::{Shelves, children},
};
use crate::error::Result;

/// How deep below a named folder models in diffusers layout are looked for: `owner/name`, as the Hub calls them.
const DEPTH: usize = 2;

/// A model that can be run once its other parts are there.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalModel {
    /// Its file or folder.
    pub path: PathBuf,
    /// What it holds.
    pub holds: Inventory,
}

/// The models of these families in these folders, in the order of their paths.
///
/// # Errors
/// [`crate::Error::Model`] when one of `dirs` is no folder.
pub(super) fn models(dirs: &[PathBuf], families: &[&'static dyn Family]) -> Result<Vec<LocalModel>> {
    let denoisers = families.iter().flat_map(|family| family.parts()).filter(|part| part.kind == PartKind::Denoiser);
    // Families whose transformers lie in the same folders are looked for once.
    let denoisers: BTreeMap<_, _> = denoisers.map(|part| (part.folders, part)).collect();
    let mut paths = Vec::new();
    for tree in Shelves::of(dirs)?.trees() {
        folders(tree, DEPTH, &mut paths);
        denoisers.values().for_each(|part| paths.extend(Shelves::files(tree, part)));
    }
    paths.sort();
    paths.dedup();
    let seen = |path: PathBuf| {
        // What cannot be read is no model that could be run.
        let holds = inventory::of(&ModelRequest::new(&path), families).ok()?;
        holds.is_model().then_some(LocalModel { path, holds })
    };
    Ok(paths.into_iter().filter_map(seen).collect())
}

/// Folders in diffusers layout.
fn folders(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join(PIPELINE_INDEX).is_file() {
        found.push(folder.to_path_buf());
    } else if depth > 0 {
        children(folder).filter(|child| child.is_dir()).for_each(|child| folders(&child, depth - 1, found));
    }
}
