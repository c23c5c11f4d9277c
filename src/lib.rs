//! dype: ultra-high-resolution pictures with FLUX.1 and DyPE.
//!
//! FLUX is a rectified-flow transformer: at time t (1 = pure noise, 0 = picture) it predicts a velocity for every token, and
//! an Euler loop follows it along a decreasing list of sigmas. A token's place enters by a rotary embedding: on each axis,
//! pair i of the D rotary channels turns by `position · inv_freq[i]`, `inv_freq[i] = theta^(-2i/D)`. Beyond the L patches of
//! the training resolution those angles are new to the model. A [`position::PositionScaler`] replaces the frequencies of an
//! axis of L' > L patches, s = L'/L; DyPE (arXiv 2510.20766v2) makes that replacement depend on t:
//!
//! ```text
//! kappa(t) = lambda_s · t^lambda_t                             (Eq. 13)
//! DY-NTK    theta' = theta · s^(D/(D-2) · kappa)               never below theta
//! DY-YaRN   the ramps' thresholds beta and gamma times kappa   amplitude 0.1·ln(s) + 1
//! ```
//!
//! # The map
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | flags, commands, and the only writer to the terminal |
//! | [`run`] | pictures in a row: checkpoints, resuming, previews |
//! | [`batch`], [`compare`], [`preview`] | files of prompts, contact sheets, latents seen without the autoencoder |
//! | [`pipeline`] | encode, denoise, decode: the one place that knows the order |
//! | [`plan`] | what a run will need, before it loads anything |
//! | [`position`] | the method: base, NTK, YaRN, and the DyPE schedule; pure f64, no tensors |
//! | [`flux`] | the transformer |
//! | [`flash`] | attention by FlashAttention-2, where built in |
//! | [`vae`] | the autoencoder's decoder, in exact bands of rows |
//! | [`text`] | CLIP and T5 |
//! | [`sampling`] | sigmas, noise, the Euler loop |
//! | [`model`] | which files make up a model |
//! | [`weights`] | tensors by name behind a memory map; the Hub |
//! | [`demo`] | the model inside the binary, as a folder |
//! | [`output`] | pictures with their provenance |
//! | [`settings`], [`geometry`], [`memory`], [`cache`], [`progress`], [`error`] | what everybody speaks of |
//!
//! # Shapes
//!
//! B batch, N tokens, T text tokens, H heads, D channels of a head, C channels, h x w latent rows and columns, H x W pixels.
//! Height comes before width.

pub mod batch;
pub mod cache;
pub mod cli;
pub mod compare;
pub mod demo;
pub mod draw;
pub mod error;
pub mod flash;
pub mod flux;
pub mod geometry;
pub mod memory;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod plan;
pub mod position;
pub mod preview;
pub mod progress;
pub mod run;
pub mod sampling;
pub mod settings;
pub mod text;
pub mod vae;
pub mod weights;

pub use error::{Error, Result};
