//! Where a picture goes: a file, a folder, or the reference's name in `outputs/`.

use std::path::{Path, PathBuf};

use super::paths;
use crate::{
    base::geometry::ImageSize,
    error::Result,
    output::Format,
    recipe::{self, Recipe},
};

/// The folder of pictures that are given no place. Source: the reference's `run_dype.py`.
const DEFAULT_FOLDER: &str = "outputs";

/// Where pictures go, as asked with `--output`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Into this folder, under the reference's name.
    Folder(PathBuf),
    /// Into this file.
    File(PathBuf),
}

impl Target {
    /// From `--output`: a path that ends in a separator, or is a folder, is a folder; any other is a file. `-` is stdout.
    pub fn new(output: Option<&Path>) -> Self {
        match output {
            None => Self::Folder(DEFAULT_FOLDER.into()),
            Some(path) if path.is_dir() || paths::ends_in_separator(path) => Self::Folder(path.to_path_buf()),
            Some(path) => Self::File(path.to_path_buf()),
        }
    }

    /// Checks, before anything is loaded, that a picture of this size fits the format.
    ///
    /// # Errors
    /// [`crate::Error::Request`] for a format that is unknown or too small for the size.
    pub fn check(&self, size: ImageSize) -> Result<()> {
        match self {
            Self::File(file) => Format::from_path(file)?.check_size(size),
            Self::Folder(_) => Ok(()),
        }
    }

    /// The file of a picture, before `_2`, `_3`, ... make it unique.
    pub fn file(&self, recipe: &Recipe) -> PathBuf {
        match self {
            Self::File(file) => file.clone(),
            Self::Folder(folder) => {
                let method = recipe.method.to_string();
                folder.join(recipe::reference_name(recipe.seed, &method, recipe.dype, recipe.size()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_separator_makes_a_folder() {
        assert_eq!(Target::new(Some(Path::new("walls/"))), Target::Folder("walls/".into()));
        assert_eq!(Target::new(Some(Path::new("a.png"))), Target::File("a.png".into()));
        assert_eq!(Target::new(None), Target::Folder("outputs".into()));
        assert_eq!(Target::new(Some(Path::new("."))), Target::Folder(".".into()));
    }

    #[test]
    fn an_unknown_ending_is_refused_before_anything_is_loaded() {
        let size = ImageSize { height_px: 64, width_px: 64 };
        let error = Target::new(Some(Path::new("a.tiff"))).check(size).expect_err("no such format");
        assert_eq!(error.exit_code(), 2);
    }
}
