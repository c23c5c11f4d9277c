//! Samplers, schedules and step caches against k-diffusion's, ComfyUI's and diffusers' code.

#[path = "../support/mod.rs"]
mod support;

mod caches;
mod fields;
mod program;
mod runs;
mod schedules;
