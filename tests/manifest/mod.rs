//! A source that knows the names and shapes of a real model and needs none of its memory.
//!
//! It answers with zeros stretched from a single number, and remembers what it was asked for: a test can show that a
//! module asks for exactly the tensors of the real FLUX.1. Use it with `#[path = "manifest/mod.rs"] mod manifest;`.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Mutex,
};

use candle_core::{DType, Device, Tensor};
use dype::{
    Error, Result,
    weights::{TensorSource, read_json},
};

/// Names and shapes without tensors.
pub struct ManifestSource {
    shapes: BTreeMap<String, Vec<usize>>,
    asked: Mutex<BTreeSet<String>>,
}

impl ManifestSource {
    /// These tensors.
    pub fn new(shapes: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        Self { shapes: shapes.into_iter().collect(), asked: Mutex::default() }
    }

    /// A part of the real FLUX.1-dev by diffusers' names: "transformer", "vae", "text_encoder" or "text_encoder_2".
    pub fn diffusers(part: &str) -> Self {
        Self::fixture("flux1_dev_tensors.json", part)
    }

    /// A file of the real FLUX.1-dev by its own names: "flux1-dev.safetensors" or "ae.safetensors".
    pub fn single_file(file: &str) -> Self {
        Self::fixture("flux1_dev_bfl_tensors.json", file)
    }

    fn fixture(file: &str, key: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
        let mut all: BTreeMap<String, BTreeMap<String, Vec<usize>>> = read_json(&path).expect("fixture");
        Self::new(all.remove(key).expect("a part of the fixture"))
    }

    /// Names and shapes.
    pub fn shapes(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.shapes
    }

    /// The names it was asked to load (also in rows).
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.lock().expect("no panic while held").clone()
    }

    /// The names it was never asked to load.
    pub fn unasked(&self) -> Vec<String> {
        let asked = self.asked();
        self.shapes.keys().filter(|name| !asked.contains(*name)).cloned().collect()
    }
}

impl TensorSource for ManifestSource {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shapes.get(name).cloned()
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.shape(name).ok_or_else(|| Error::model(format!("the manifest has no tensor {name}"), ""))?;
        self.asked.lock().expect("no panic while held").insert(name.to_owned());
        Ok(Tensor::zeros((), dtype, device)?.broadcast_as(shape)?)
    }

    fn file_dtype(&self, name: &str) -> Option<DType> {
        self.shapes.get(name).map(|_| DType::BF16)
    }

    fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    fn describe(&self) -> String {
        "the manifest".into()
    }
}
