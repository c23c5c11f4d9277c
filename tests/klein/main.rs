//! FLUX.2 [klein] against the reference: text, transformer, autoencoder, positions, whole runs; what its loaders ask for, and
//! what it plans.

#[path = "../support/mod.rs"]
mod support;

mod autoencoder;
mod files;
mod lora;
mod plan;
mod positions;
mod runs;
mod transformer;

use std::{collections::HashMap, path::PathBuf};

use candle_core::{Device, Tensor};
use dype::testing::{
    Result,
    models::{ModelRequest, Registry, flux2::Flux2},
};

/// A path below the family's fixtures.
fn fixture(path: &str) -> PathBuf {
    support::fixture("flux2-klein").join(path)
}

/// The tensors of a file of expected values.
fn expected(name: &str) -> HashMap<String, Tensor> {
    let file = fixture(&format!("expected/{name}.safetensors"));
    candle_core::safetensors::load(file, &Device::Cpu).expect("golden")
}

/// The model that a request finds.
fn open(request: &ModelRequest) -> Result<Flux2> {
    let (family, found) = Registry::default().find(request)?;
    assert_eq!(family.name(), "FLUX.2 [klein]");
    Flux2::open(found)
}

fn tiny() -> Flux2 {
    open(&ModelRequest::new(fixture("tiny"))).expect("the tiny model")
}

/// The tiny model as a base variant, which is not distilled.
fn tiny_base() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    support::copy_folder(&fixture("tiny"), folder.path());
    std::fs::copy(fixture("model_index.base.json"), folder.path().join("model_index.json")).expect("copied");
    folder
}

/// ‖a - b‖ / ‖b‖
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    support::relative_error(&support::values(a), &support::values(b))
}
