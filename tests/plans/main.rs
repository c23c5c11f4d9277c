//! What is planned: against real runs, against an allocator that counts, and for devices that are not there.

#[path = "../support/counting.rs"]
mod counting;
#[path = "../support/mod.rs"]
mod support;

mod gpu_plan;
mod ladder_memory;
mod narrow_memory;
mod plan;
mod run_memory;
mod transformer_memory;
mod vae_memory;
