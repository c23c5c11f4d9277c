//! The sinusoidal embedding of a number, as diffusion transformers take time and guidance.

use crate::{
    error::Result,
    nn::{Array, Place},
};

/// Channels of the embedding. Source: diffusers, `Timesteps(256)` of FLUX; Z-Image's `frequency_embedding_size`.
pub const SINUSOID_CHANNELS: usize = 256;
/// The slowest period. Source: diffusers, get_timestep_embedding.
const MAX_PERIOD: f64 = 10_000.0;

/// `[cos(x·f), sin(x·f)]`, `f_i = 10000^(-i/128)`: [1, 256].
///
/// In f32, as every model was trained and as the reference computes it: in f64 FLUX.1's velocity differs from the
/// reference's by 3e-5 of its norm instead of 8e-6.
pub fn sinusoid(x: f32, place: &Place) -> Result<Array> {
    let half = SINUSOID_CHANNELS / 2;
    let angles = (0..half).map(|i| x * (-(MAX_PERIOD.ln() as f32) * i as f32 / half as f32).exp());
    place.floats(&[1, SINUSOID_CHANNELS], || angles.clone().map(f32::cos).chain(angles.map(f32::sin)).collect())
}
