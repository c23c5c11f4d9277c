//! What a run leaves behind: pictures that say how they were made, latents, and nothing half-written.

mod atomic;
mod confirm;
mod elsewhere;
mod exif;
mod format;
mod jpeg;
mod latents;
mod marker;
mod parameters;
mod picture;
mod place;
mod png_text;
mod provenance;
mod temporary;
mod webp;
mod xmp;

use std::path::{Path, PathBuf};

use crate::{base::geometry::ImageSize, error::Result};

pub use atomic::{Naming, check_writable, numbered, write_atomically, write_named};
pub use confirm::{Confirmation, take_unconfirmed};
pub use format::Format;
pub use latents::{AUTOENCODER, LatentsFile, load_latents, save_latents};
pub use marker::{Marker, take_left};
pub use parameters::{NEGATIVE, Parameters, parameters_text};
pub use picture::Picture;
pub use place::{check_place, folder_of, is_stdout, is_stream};
pub use provenance::{PREVIEW, Provenance, is_preview, is_whole, read_parameters, read_provenance};
pub use temporary::{HIDDEN_FOLDER, remove_stale_files, remove_temporary_files};

/// The longest text that a picture may say of itself: a prompt of 1 MiB, escaped, and far more than any settings.
const MOST_TEXT_BYTES: u64 = 8 << 20;

/// Writes a picture with its provenance, in the format its ending names, and returns the path it got:
/// with `overwrite` off an existing file is kept and the new one's name gains `_2`, `_3`, ...
///
/// # Errors
/// [`Error::Request`](crate::Error::Request) when the ending is unknown or the format cannot hold the size;
/// [`Error::Disk`](crate::Error::Disk) when the file cannot be written.
pub fn save(path: &Path, picture: &Picture, provenance: &Provenance, overwrite: bool) -> Result<PathBuf> {
    let naming = Naming { number: 1, overwrite, confirmation: Confirmation::Demanded };
    save_named(path, naming, picture, provenance)
}

/// As [`save`] for the picture that is number `number` of its name. Where it cannot be written there, it is kept elsewhere.
///
/// # Errors
/// As [`save`]; and [`Error::KeptElsewhere`](crate::Error::KeptElsewhere).
pub fn save_or_keep(
    path: &Path,
    number: u64,
    picture: &Picture,
    provenance: &Provenance,
    overwrite: bool,
) -> Result<PathBuf> {
    let write = |path: &Path, naming: Naming| save_named(path, naming, picture, provenance);
    elsewhere::or_keep(path, number, overwrite, Format::from_path(path)?.ending(), write)
}

fn save_named(path: &Path, naming: Naming, picture: &Picture, provenance: &Provenance) -> Result<PathBuf> {
    let format = Format::from_path(path)?;
    format.check_size(ImageSize { height_px: picture.height, width_px: picture.width })?;
    write_named(path, naming, |file| format.encode(picture, provenance, file))
}
