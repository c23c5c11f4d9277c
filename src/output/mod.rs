//! What a run leaves behind: pictures that say how they were made, latents, and nothing half-written.

mod atomic;
mod exif;
mod format;
mod jpeg;
mod latents;
mod picture;
mod provenance;
mod webp;
mod xmp;

use std::path::{Path, PathBuf};

use crate::{base::geometry::ImageSize, error::Result};

pub use atomic::{
    check_writable, numbered, remove_stale_files, remove_temporary_files, write_atomically, write_numbered,
};
pub use format::Format;
pub use latents::{LatentsFile, load_latents, save_latents};
pub use picture::Picture;
pub use provenance::{Provenance, is_whole, parameters_text, read_provenance};

/// Writes a picture with its provenance, in the format its ending names, and returns the path it got:
/// with `overwrite` off an existing file is kept and the new one's name gains `_2`, `_3`, ...
///
/// # Errors
/// [`Error::Request`](crate::Error::Request) when the ending is unknown or the format cannot hold the size;
/// [`Error::Disk`](crate::Error::Disk) when the file cannot be written.
pub fn save(path: &Path, picture: &Picture, provenance: &Provenance, overwrite: bool) -> Result<PathBuf> {
    save_numbered(path, 1, picture, provenance, overwrite)
}

/// As [`save`] for the picture that is number `number` of its name, as [`write_numbered`] counts.
///
/// # Errors
/// As [`save`].
pub fn save_numbered(
    path: &Path,
    number: u64,
    picture: &Picture,
    provenance: &Provenance,
    overwrite: bool,
) -> Result<PathBuf> {
    let format = Format::from_path(path)?;
    format.check_size(ImageSize { height_px: picture.height, width_px: picture.width })?;
    write_numbered(path, number, overwrite, |file| format.encode(picture, provenance, file))
}
