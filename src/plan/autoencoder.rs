//! The autoencoder's parts of a plan: decoding, and encoding where a run begins with a picture.

use candle_core::DType;

use super::{
    Task,
    process::{Process, too_small},
};
use crate::{
    base::{device::DeviceKind, geometry::ImageSize},
    error::{Error, Result},
    models::{Decode, Model, Way, Ways},
};

/// Bytes of a pixel of a picture as it is written.
pub const PIXEL_BYTES: u64 = 3;

/// What is held of a picture that is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encoding {
    /// The most bytes while it is made ready: read, turned, resized.
    pub ready_bytes: u64,
    /// Bytes of it while it is encoded.
    pub picture_bytes: u64,
}

/// A way of working that was chosen, with what is held in it at the most.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The way.
    pub way: Way,
    /// What the stage needs.
    pub need: u64,
    /// Everything that is held.
    pub peak: u64,
}

/// What to say where nothing makes latents of a picture.
pub fn no_encoder() -> Error {
    let what = "this model's files hold no encoder, which makes latents of a picture";
    Error::request(what, "give an autoencoder that has both sides with --vae, or another model")
}

/// Encoding: the way with the least work that fits into `budget` bytes, beside so many that are held for other stages; `None` where
/// no picture is encoded.
///
/// # Errors
/// [`Error::Request`] where the model has no encoder; [`Error::Memory`] when no way fits.
pub(super) fn encode_choice(
    model: &dyn Model,
    task: &Task,
    on: (DeviceKind, DType),
    (process, held): (Process, u64),
    budget: u64,
) -> Result<Option<Chosen>> {
    let Some(Encoding { ready_bytes, picture_bytes }) = task.encoding else { return Ok(None) };
    let encoder = model.encoder().ok_or_else(no_encoder)?;
    let geometry = encoder.geometry();
    let grid = geometry.tokens(task.size);
    // The noise of its sample, what it becomes, and the noise that is added; and what the prompts became.
    let latents_bytes = 3 * 4 * (grid.count() * geometry.token_channels()) as u64;
    let beside = held + latents_bytes + task.prompts as u64 * model.conditioning_bytes(task.text_tokens);
    let held = [beside + ready_bytes, beside + picture_bytes];
    let ways = encoder.ways(on, geometry.latents(grid))?;
    best(&ways, held, process, ("encoding the picture", budget)).map(Some)
}

/// Decoding: the way with the least work that fits into `budget` bytes, with the bytes of the picture, so many a pixel, beside so
/// many that are held for other stages.
///
/// # Errors
/// [`Error::Memory`] when none fits.
pub fn decode_choice(
    decoder: &dyn Decode,
    on: (DeviceKind, DType),
    picture: (ImageSize, u64),
    (process, held): (Process, u64),
    budget: u64,
) -> Result<Chosen> {
    let (ways, picture_bytes) = decode_ways(decoder, on, picture)?;
    best(&ways, [held, held + picture_bytes], process, ("decoding", budget))
}

/// The ways of decoding a picture that is held in so many bytes a pixel, and the bytes of it.
///
/// # Errors
/// [`Error::Model`] when the configuration is not one of a decoder.
pub(super) fn decode_ways(
    decoder: &dyn Decode,
    on: (DeviceKind, DType),
    (size, pixel_bytes): (ImageSize, u64),
) -> Result<(Ways, u64)> {
    let geometry = decoder.geometry();
    let grid = geometry.tokens(size);
    let size = geometry.image(grid);
    Ok((decoder.ways(on, geometry.latents(grid))?, pixel_bytes * (size.height_px * size.width_px) as u64))
}

/// The best way in what is taken of a budget by choice, else in all of it. So much is held before it begins, and so much beside it
/// while it works.
fn best(ways: &Ways, [before, beside]: [u64; 2], process: Process, (what, budget): (&str, u64)) -> Result<Chosen> {
    let room = process.room(budget);
    let within = |budget: u64| ways.best(process.room(budget).saturating_sub(beside));
    let best = within(process.of_choice(budget)).or_else(|| within(budget)).filter(|_| before <= room);
    let least = || too_small(what, least_peak(ways, [before, beside], process), budget);
    let way = best.ok_or_else(least)?.clone();
    let need = need(Some(&way), [before, beside]);
    Ok(Chosen { way, need, peak: process.peak(need) })
}

/// The peak of the way that takes least memory.
pub(super) fn least_peak(ways: &Ways, held: [u64; 2], process: Process) -> u64 {
    process.peak(need(ways.least(), held))
}

/// What a way needs, with what is held before it begins and beside it while it works.
fn need(way: Option<&Way>, [before, beside]: [u64; 2]) -> u64 {
    before.max(beside + way.map_or(0, |way| way.cost.memory_bytes))
}
