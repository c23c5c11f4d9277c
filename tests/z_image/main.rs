//! Z-Image: its forward pass, tables, schedule, autoencoder and whole runs against the reference, its loaders against the real
//! model's tensors, and its plans.

mod loading;
mod lora;
mod plans;
mod position;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod transformer;
mod vae;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    models::{ModelRequest, On, Registry, z_image::ZImage},
    nn::WeightsMode,
};

/// A path below the family's fixtures.
fn golden(path: &str) -> PathBuf {
    support::fixture("z-image").join(path)
}

fn tensors(path: &str) -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(golden(path), &Device::Cpu).expect("golden")
}

/// The model at a path.
fn open(path: &Path) -> ZImage {
    let (family, found) = Registry::default().find(&ModelRequest::new(path)).expect("a model");
    assert_eq!(family.name(), "Z-Image");
    ZImage::open(found).expect("opens")
}

fn tiny() -> ZImage {
    open(&golden("tiny"))
}

const CPU_F32: On = On::new(Device::Cpu, DType::F32);
const MODES: [WeightsMode; 2] = [WeightsMode::Resident, WeightsMode::Stream];
