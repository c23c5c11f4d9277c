//! Folders around a single file in which its other parts may lie: beside it, in the tree that ComfyUI keeps its models in, and
//! in folders that the user names.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{PartKind, PartSpec};
use crate::{
    error::{Error, Result},
    weights::{Files, has_weights_ending, is_later_part, is_shard},
};

/// How deep below a folder of ComfyUI's files are looked for: people sort them into folders of their own.
const DEPTH: usize = 3;
/// The most files and folders of one such folder that are looked at.
const MOST_ENTRIES: usize = 4096;

/// Where parts are looked for, the nearest first.
#[derive(Debug, Clone, Default)]
pub struct Shelves {
    /// Folders that hold folders of ComfyUI's, parts by their names in diffusers layout, or files.
    trees: Vec<PathBuf>,
}

impl Shelves {
    /// Those around the single file at `model`, whose transformer ComfyUI keeps in one of `folders`; then `dirs`.
    ///
    /// # Errors
    /// [`Error::Model`] when one of `dirs` is no folder.
    pub fn around(model: &Path, folders: &[&str], dirs: &[PathBuf]) -> Result<Self> {
        let mut shelves = Self::of(dirs)?;
        if let Some(tree) = tree_of(model, folders) {
            shelves.trees.retain(|known| *known != tree);
            shelves.trees.insert(0, tree);
        }
        Ok(shelves)
    }

    /// Those in `dirs`.
    ///
    /// # Errors
    /// [`Error::Model`] when one of them is no folder.
    pub fn of(dirs: &[PathBuf]) -> Result<Self> {
        if let Some(odd) = dirs.iter().find(|dir| !dir.is_dir()) {
            let what = format!("--model-dir {}: there is no such folder", odd.display());
            return Err(Error::model(what, "check the path, or the list in DYPE_MODEL_DIR"));
        }
        let mut trees: Vec<PathBuf> = Vec::new();
        for dir in dirs {
            // ComfyUI's own folder, or the one of its models.
            for tree in [dir.clone(), dir.join("models")] {
                if tree.is_dir() && !trees.contains(&tree) {
                    trees.push(tree);
                }
            }
        }
        Ok(Self { trees })
    }

    /// The trees, the nearest first.
    pub fn trees(&self) -> &[PathBuf] {
        &self.trees
    }

    /// Every place of `tree` that may be `part`: files of weights, and folders in diffusers layout; or of a tokenizer, its folder.
    pub fn places(tree: &Path, part: &PartSpec, files: &Files) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        // A folder in diffusers layout, or a copy of the repository that lends the part.
        let named = part.lenders.iter().flat_map(|lender| [lender.repo, after_slash(lender.repo)]);
        for folder in std::iter::once(part.name).chain(named).map(|name| tree.join(name)) {
            if part.is_in(&folder, files) {
                found.insert(folder);
            }
        }
        if part.kind == PartKind::Network {
            found.extend(Self::below(tree, part, files));
        }
        found
    }

    /// The files of weights of `tree` that may hold `part`.
    pub fn files(tree: &Path, part: &PartSpec) -> BTreeSet<PathBuf> {
        let mut found = Self::below(tree, part, &Files::default());
        found.retain(|path| path.is_file());
        found
    }

    /// The files of weights in a tree and in the part's folders there, and folders in diffusers layout in these.
    fn below(tree: &Path, part: &PartSpec, files: &Files) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::from_iter(weights_in(tree, files));
        for folder in children(tree).filter(|folder| is_called(folder, part.folders) && folder.is_dir()) {
            let mut left = MOST_ENTRIES;
            walk(&folder, DEPTH, &mut left, &mut |folder| {
                if part.is_in(folder, files) && matches!(files.stored(folder), Ok(Some(_))) {
                    found.insert(folder.to_path_buf());
                    return false;
                }
                found.extend(weights_in(folder, files));
                true
            });
        }
        found
    }
}

/// What ComfyUI, A1111 and Forge call their folders of LoRA files, in small letters.
const LORAS: [&str; 2] = ["loras", "lora"];

/// The LoRA files called `name` around a model's file and in `dirs`, of the nearest folder that has any, and the folders that were
/// looked through. A name may begin with folders, and may be without its ending.
///
/// # Errors
/// As [`Shelves::around`].
pub fn loras(name: &str, model: &Path, dirs: &[PathBuf]) -> Result<(BTreeSet<PathBuf>, Vec<PathBuf>)> {
    let shelves = Shelves::around(model, PartSpec::TRANSFORMER.folders, dirs)?;
    let wanted = Path::new(name);
    let is_called = |file: &PathBuf| file.ends_with(wanted) || file.with_extension("").ends_with(wanted);
    let mut looked = Vec::new();
    for tree in shelves.trees() {
        let is_loras = |folder: &PathBuf| self::is_called(folder, &LORAS) && folder.is_dir();
        let folders: Vec<PathBuf> = std::iter::once(tree.clone()).chain(children(tree)).filter(is_loras).collect();
        // A folder of LoRA files may have any name.
        let mut found: BTreeSet<PathBuf> = safetensors_in(tree).filter(is_called).collect();
        for folder in &folders {
            let mut left = MOST_ENTRIES;
            walk(folder, DEPTH, &mut left, &mut |folder| {
                found.extend(safetensors_in(folder).filter(is_called));
                true
            });
        }
        if !found.is_empty() {
            return Ok((found, looked));
        }
        looked.extend(if folders.is_empty() { vec![tree.clone()] } else { folders });
    }
    Ok((BTreeSet::new(), looked))
}

fn safetensors_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    children(folder).filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
}

/// The files of weights in a folder itself; no shards, of which none is a part.
pub fn weights_in(folder: &Path, files: &Files) -> impl Iterator<Item = PathBuf> {
    let names = files
        .names_in(folder)
        .into_iter()
        .filter(|name| has_weights_ending(name) && !is_shard(name) && !is_later_part(name));
    names.map(|name| folder.join(name)).collect::<Vec<_>>().into_iter()
}

/// Visits a folder and those below it, down to a depth and while entries are `left` to look at; a visit says whether to go below.
fn walk(folder: &Path, depth: usize, left: &mut usize, visit: &mut dyn FnMut(&Path) -> bool) {
    if !visit(folder) {
        return;
    }
    for child in children(folder) {
        if depth == 0 || *left == 0 {
            return;
        }
        *left -= 1;
        if child.is_dir() {
            walk(&child, depth - 1, left, visit);
        }
    }
}

pub(super) fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children.into_iter()
}

/// Whether a folder has one of these names; A1111 and Forge write some of ComfyUI's large.
fn is_called(folder: &Path, names: &[&str]) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

fn after_slash(repo: &str) -> &str {
    repo.split_once('/').map_or(repo, |(_, name)| name)
}

/// The folder of models around a file that lies in one of ComfyUI's `folders`, or below it.
fn tree_of(model: &Path, folders: &[&str]) -> Option<PathBuf> {
    let model = std::path::absolute(model).ok()?;
    let holder = model.ancestors().skip(1).find(|folder| is_called(folder, folders))?;
    holder.parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_around_the_folder_of_transformers() {
        let tree = |path: &str| tree_of(Path::new(path), &["diffusion_models", "unet"]);
        for file in ["/c/models/unet/a.sft", "/c/models/diffusion_models/flux/dev/a.sft", "/c/models/UNET/a.sft"] {
            assert_eq!(tree(file).as_deref(), Some(Path::new("/c/models")), "{file}");
        }
        assert_eq!(tree("/c/models/a.sft"), None);
        assert_eq!(tree("/unet"), None, "a file is no folder");
    }
}
