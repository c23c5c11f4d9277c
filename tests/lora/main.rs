//! LoRA files against what diffusers, ComfyUI and LyCORIS make of them: `tests/fixtures/lora`.

#[path = "../support/mod.rs"]
mod support;

mod deltas;
mod hub;
#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod hub_server;
mod layers;
mod plain;
mod program;
mod runs;
mod variants;

use dype::testing::{
    Result,
    models::{ModelRequest, flux1::Flux1},
    weights::{Files, lora::LoraFile},
};
use support::fixture;

/// A file of the fixtures.
fn lora(name: &str) -> Result<LoraFile> {
    LoraFile::open(&fixture(&format!("lora/files/{name}.safetensors")), &Files::default())
}

fn tiny_flux() -> Flux1 {
    support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux")
}
