//! Latents of a file, and the size of the picture they are.

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;

use crate::{
    base::geometry::{ImageSize, LatentGeometry},
    error::{Error, Result},
    output::LatentsFile,
    sampling,
};

/// The latents of a file that was read, packed [1, N, C], for a model of this geometry, and their picture's size: the height and
/// width that are `asked` for, else what the file says, else a square's.
///
/// # Errors
/// [`Error::Request`] when nothing says the size, or there are not so many tokens; [`Error::Model`] when they are another
/// model's.
pub fn of_model(
    path: &Path,
    file: &LatentsFile,
    asked: Option<(usize, usize)>,
    geometry: &LatentGeometry,
) -> Result<(Tensor, ImageSize)> {
    let latents = match file.latents.dims().len() {
        4 => sampling::pack(&file.latents, geometry)?,
        _ => file.latents.clone(),
    }; // [1, N, C·P·P]
    let channels = geometry.token_channels();
    if latents.dim(2)? != channels {
        let what = format!("{}: latents of {} channels, expected {channels}", path.display(), latents.dim(2)?);
        return Err(Error::model(what, "give latents of the same kind of model"));
    }
    let size = size(path, (&file.metadata, latents.dim(1)?), asked, geometry)?;
    Ok((latents, size))
}

/// `said` is the file's metadata, and how many tokens there are.
fn size(
    file: &Path,
    said: (&BTreeMap<String, String>, usize),
    asked: Option<(usize, usize)>,
    geometry: &LatentGeometry,
) -> Result<ImageSize> {
    let (metadata, tokens) = said;
    let number = |name: &str| metadata.get(name).and_then(|text| text.parse::<usize>().ok());
    let side = tokens.isqrt();
    let (height, width) = match (asked, number("height").zip(number("width"))) {
        (Some(asked), _) => asked,
        (None, Some(said)) => said,
        (None, None) if side * side == tokens => (side * geometry.px_per_token(), side * geometry.px_per_token()),
        (None, None) => {
            let what = format!("{} does not say its size, and its {tokens} tokens are no square", file.display());
            return Err(Error::request(what, "give --height and --width"));
        }
    };
    let size = ImageSize::new(height, width)?;
    let asked = geometry.tokens(size).count();
    if asked == tokens {
        return Ok(size);
    }
    let what = format!("{} holds {tokens} tokens, and {height} x {width} px are {asked}", file.display());
    Err(Error::request(what, "give the --height and --width the latents were made with"))
}
