//! Image to image against the reference: the noise of later draws, what is encoded, first and final latents.

#[path = "../support/mod.rs"]
mod support;

mod golden;
