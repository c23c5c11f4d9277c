//! The autoencoder's parts of a plan: decoding, and encoding where a run begins with a picture.

use candle_core::DType;

use super::{Kept, Task, process_bytes, too_small};
use crate::{
    base::{device::DeviceKind, geometry::ImageSize},
    error::{Error, Result},
    models::{Decode, Model, Way},
};

/// What is held of a picture that is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encoding {
    /// The most bytes while it is made ready: read, turned, resized.
    pub ready_bytes: u64,
    /// Bytes of it while it is encoded.
    pub picture_bytes: u64,
}

/// What to say where nothing makes latents of a picture.
pub fn no_encoder() -> Error {
    let what = "this model's files hold no encoder, which makes latents of a picture";
    Error::request(what, "give an autoencoder that has both sides with --vae, or another model")
}

/// Encoding: the way with the least work that fits into `budget` bytes, and its peak with all that is held beside it; `None`
/// where no picture is encoded.
///
/// # Errors
/// [`Error::Request`] where the model has no encoder; [`Error::Memory`] when no way fits.
pub(super) fn encode_choice(
    model: &dyn Model,
    task: &Task,
    on: (DeviceKind, DType),
    kept: Kept,
    budget: u64,
) -> Result<Option<(Way, u64)>> {
    let Some(encoding) = task.encoding else { return Ok(None) };
    let encoder = model.encoder().ok_or_else(no_encoder)?;
    let geometry = encoder.geometry();
    let grid = geometry.tokens(task.size);
    // The noise of its sample, what it becomes, and the noise that is added; and what the prompts became.
    let latents_bytes = 3 * 4 * (grid.count() * geometry.token_channels()) as u64;
    let beside = latents_bytes + task.prompts as u64 * model.conditioning_bytes(task.text_tokens);
    let need = |way: &Way| beside + encoding.ready_bytes.max(encoding.picture_bytes + way.cost.memory_bytes);
    let peak = |way: &Way| process_bytes(on.0) + kept.with(need(way));
    let ways = encoder.ways(on, geometry.latents(grid))?;
    let room = kept.most(budget.saturating_sub(process_bytes(on.0))).saturating_sub(beside);
    let best = ways.best(room.saturating_sub(encoding.picture_bytes)).filter(|_| encoding.ready_bytes <= room);
    let least = || too_small("encoding the picture", ways.least().map_or(beside, peak), budget);
    best.map(|way| Some((way.clone(), peak(way)))).ok_or_else(least)
}

/// Decoding: the way with the least work that fits into `budget` bytes, and its peak with the picture's own bytes
/// and what the allocator keeps.
///
/// # Errors
/// [`Error::Memory`] when none fits.
pub fn decode_choice(
    decoder: &dyn Decode,
    on: (DeviceKind, DType),
    size: ImageSize,
    kept: Kept,
    budget: u64,
) -> Result<(Way, u64)> {
    decode_choice_of(decoder, on, (size, 3), kept, budget)
}

/// The same for a picture that is held in so many bytes a pixel.
pub(super) fn decode_choice_of(
    decoder: &dyn Decode,
    on: (DeviceKind, DType),
    (size, pixel_bytes): (ImageSize, u64),
    kept: Kept,
    budget: u64,
) -> Result<(Way, u64)> {
    let geometry = decoder.geometry();
    let grid = geometry.tokens(size);
    let size = geometry.image(grid);
    let picture = pixel_bytes * (size.height_px * size.width_px) as u64;
    let ways = decoder.ways(on, geometry.latents(grid))?;
    let peak = |way: &Way| process_bytes(on.0) + kept.with(picture + way.cost.memory_bytes);
    let best = ways.best(kept.most(budget.saturating_sub(process_bytes(on.0))).saturating_sub(picture));
    let least = || too_small("decoding", ways.least().map_or(picture, peak), budget);
    best.map(|way| (way.clone(), peak(way))).ok_or_else(least)
}
