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

use crate::{error::Result, geometry::ImageSize};

pub use atomic::{check_writable, remove_temporary_files, write_atomically};
pub use format::Format;
pub use latents::{load_latents, save_latents};
pub use picture::Picture;
pub use provenance::{Provenance, parameters_text, read_provenance};

/// Writes a picture with its provenance, in the format its ending names, and returns the path it got:
/// with `overwrite` off an existing file is kept and the new one's name gains `_2`, `_3`, ...
///
/// # Errors
/// [`Error::Request`](crate::Error::Request) when the ending is unknown or the format cannot hold the size;
/// [`Error::Disk`](crate::Error::Disk) when the file cannot be written.
pub fn save(path: &Path, picture: &Picture, provenance: &Provenance, overwrite: bool) -> Result<PathBuf> {
    let format = Format::from_path(path)?;
    format.check_size(ImageSize { height_px: picture.height, width_px: picture.width })?;
    write_atomically(path, overwrite, |file| format.encode(picture, provenance, file))
}

/// The name the reference's `run_dype.py` gives a picture. `dy_` marks a method that DyPE drives; `base` has nothing to drive.
pub fn reference_name(seed: u64, method: &str, dype: bool, size: ImageSize) -> String {
    let dynamic = if dype && method != "base" { "dy_" } else { "" };
    format!("seed_{seed}_method_{dynamic}{method}_res_{}x{}.png", size.height_px, size.width_px)
}
