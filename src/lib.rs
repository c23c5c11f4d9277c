//! dype: ultra-high-resolution pictures with FLUX.1 and DyPE.
//!
//! FLUX is a rectified-flow transformer: at time t (1 = pure noise, 0 = picture) it predicts a velocity for every token, and
//! an Euler loop follows it along a decreasing list of sigmas. A token's place enters by a rotary embedding: on each axis,
//! pair i of the D rotary channels turns by `position · inv_freq[i]`, `inv_freq[i] = theta^(-2i/D)`. Beyond the L patches of
//! the training resolution those angles are new to the model. A [`methods::PositionScaler`] replaces the frequencies of an
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
//! | [`lab`] | pictures and methods looked at: measures, sheets, plots |
//! | [`convert`] | a network as a file in another number type |
//! | [`run`] | pictures in a row: checkpoints, resuming, previews |
//! | [`plan`] | what a run will need, before it loads anything |
//! | [`sampling`] | sigmas, noise, the Euler loop, what leads it |
//! | [`models`] | the families, and the parts they share |
//! | [`nn`] | what networks are made of, and the kernels that compute it |
//! | [`methods`] | the method: base, NTK, YaRN, and the DyPE schedule; pure f64, no tensors |
//! | [`recipe`] | what a picture is made with: settings, files of prompts, seeds |
//! | [`weights`], [`hub`] | tensors by name behind a memory map; the Hub |
//! | [`output`] | pictures with their provenance |
//! | [`input`] | pictures that somebody gives: read, turned, resized |
//! | [`base`], [`error`] | what everybody speaks of |
//!
//! # Shapes
//!
//! B batch, N tokens, T text tokens, H heads, D channels of a head, C channels, h x w latent rows and columns, H x W pixels.
//! Height comes before width.
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "these pages are for who works on it: they are built with private items"
)]

mod base;
mod cli;
mod convert;
mod error;
mod hub;
mod input;
mod lab;
mod methods;
mod models;
mod nn;
mod output;
mod plan;
mod recipe;
mod run;
mod sampling;
pub mod testing;
mod weights;

pub use base::allocator::Allocator;
pub use cli::main;
use error::Error;
