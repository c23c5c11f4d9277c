//! Parts that a flag gives: a file, a part's folder, or a whole model's folder.

use std::path::{Path, PathBuf};

use super::{PartKind, PartSpec, Place};
use crate::{
    base::paths,
    error::{Error, Result},
    weights::Files,
};

/// Something is at this path.
pub(super) fn exists(path: &Path) -> Result<()> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let hint = "check the path; a model of the Hub is written owner/name";
            Err(Error::model(format!("there is no file or folder {}", path.display()), hint))
        }
        Err(e) => Err(Error::disk("cannot look at", path, e)),
    }
}

/// What a flag gave is there: a path of this disk, since parts of the Hub were found before.
fn given_exists(part: &PartSpec, path: &Path) -> Result<()> {
    if matches!(path.try_exists(), Ok(false)) {
        let what = format!("{}: there is no file or folder {}", part.given_by(), path.display());
        return Err(Error::model(what, "check the path"));
    }
    exists(path)
}

/// Where a part is that a flag gave: a file, a part's folder, or a whole model's folder.
pub(super) fn given(part: &PartSpec, path: &Path) -> Result<Place> {
    given_exists(part, path)?;
    if part.kind == PartKind::Tokenizer {
        return given_tokenizer(part, path);
    }
    if path.is_file() {
        return Ok(path.to_path_buf().into());
    }
    let files = Files::default();
    let folder = part_folder(part, path);
    // A config may lie among files with names of their own.
    if let Some(folder) = folder.as_ref().filter(|folder| !matches!(files.stored(folder), Ok(None))) {
        return Ok(Place::Folder(folder.clone()));
    }
    let file = part.file_in(path, &files)?;
    if let Some(file) = file.map_or_else(|| part.file_by_contents(path, &files), |file| Ok(Some(file)))? {
        return Ok(file.into());
    }
    if let Some(folder) = folder {
        return Ok(Place::Folder(folder));
    }
    let lacking = part.files.first().and_then(|set| set.first()).copied().unwrap_or("config.json");
    let what = format!("{} {} is a folder without {lacking}", part.given_by(), path.display());
    Err(Error::model(what, "give the .safetensors file itself, or a folder in diffusers layout"))
}

/// Where the tokenizer is that a flag gave.
fn given_tokenizer(part: &PartSpec, path: &Path) -> Result<Place> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let sets = || part.files.iter().copied();
    if path.is_file() {
        let known = sets().flatten().any(|file| *file == name);
        // Of a tokenizer in two files either may be given; the folder stands for both.
        if !known || sets().any(|set| set == [name]) {
            return Ok(path.to_path_buf().into());
        }
    }
    let folder = if path.is_file() { paths::parent(path) } else { path };
    part_folder(part, folder).map(Place::Folder).ok_or_else(|| {
        let sets: Vec<_> = sets().map(|set| set.join(" and ")).collect();
        let what =
            format!("{} {} holds no tokenizer (looked for {})", part.given_by(), path.display(), sets.join(" or "));
        Error::model(what, "give a tokenizer.json or the folder of a tokenizer in the format of transformers")
    })
}

/// The part's folder: this one, or the one of its name in it.
fn part_folder(part: &PartSpec, folder: &Path) -> Option<PathBuf> {
    let files = Files::default();
    [folder.to_path_buf(), folder.join(part.name)].into_iter().find(|folder| part.is_in(folder, &files))
}
