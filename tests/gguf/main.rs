//! GGUF files: what their tensors hold, what is refused, and whole runs with them against the reference.

mod broken;
#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod hub_server;
mod int8_products;
mod names;
mod runs;
mod split;
#[path = "../support/mod.rs"]
mod support;
mod types;

use std::path::PathBuf;

use dype::testing::weights::TensorFiles;
use support::fixture;

/// A file of the fixtures.
fn path(name: &str) -> PathBuf {
    fixture("gguf").join(name)
}

fn open(name: &str) -> TensorFiles {
    TensorFiles::open(&[path(name)]).expect("opens")
}
