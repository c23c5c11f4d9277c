//! Image to image: what the reference computes, what pictures are read, and the program that makes pictures of them.

#[path = "../support/mod.rs"]
mod support;

mod families;
mod golden;
mod program;
mod reading;
mod refused;
