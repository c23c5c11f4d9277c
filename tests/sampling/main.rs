//! From noise to latents: noise and sigmas against PyTorch and diffusers, whole runs against the reference.

#[path = "../support/mod.rs"]
mod support;

mod noise;
mod runs;
mod schedule;
