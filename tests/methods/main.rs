//! Methods of positions: their tables against the reference, those that look at latents or at text, and one of the tests' own.

#[path = "../support/mod.rs"]
mod support;

mod position;
mod spectra;
mod toy_method;
