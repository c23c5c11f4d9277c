//! What is written: pictures and files that are whole, batches and sheets of them, the model inside the program.

#[path = "../support/mod.rs"]
mod support;

mod batch;
mod demo;
mod files;
