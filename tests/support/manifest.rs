//! A source that knows the names and shapes of a real model and needs none of its memory.
//!
//! It answers with zeros stretched from a single number, and remembers what it was asked for: a test can show that a
//! module asks for exactly the tensors of the real FLUX.1.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error, Result,
    base::json::read_json,
    models::ModelRequest,
    models::flux1::{Flux1, FluxConfig, LATENTS, autoencoder},
    models::parts::{Autoencoder, ModelPart},
    weights::TensorSource,
};

use super::fixture;

/// The real FLUX.1-dev by its dimensions, names and shapes; the text encoders are tiny-flux's.
pub fn flux1() -> Flux1 {
    let tiny = super::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let source = |part| Arc::new(ManifestSource::diffusers(part));
    Flux1 {
        transformer: ModelPart { config: FluxConfig::flux1_dev(), source: source("transformer") },
        vae: Autoencoder {
            part: ModelPart { config: autoencoder(), source: source("vae") },
            latent_rgb: None,
            geometry: LATENTS,
        },
        ..tiny
    }
}

/// Names and shapes without tensors.
pub struct ManifestSource {
    shapes: BTreeMap<String, Vec<usize>>,
    asked: Mutex<BTreeMap<String, usize>>,
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

    /// What a file of the fixtures lists under a key.
    pub fn fixture(file: &str, key: &str) -> Self {
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
        self.asked.lock().expect("no panic while held").keys().cloned().collect()
    }

    /// Each of its tensors was asked for, and none twice.
    pub fn assert_each_asked_once(&self) {
        assert_eq!(self.unasked(), Vec::<String>::new(), "never asked for");
        let asked = self.asked.lock().expect("no panic while held");
        let again: Vec<_> = asked.iter().filter(|(_, times)| **times > 1).collect();
        assert!(again.is_empty(), "asked for again: {again:?}");
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
        *self.asked.lock().expect("no panic while held").entry(name.to_owned()).or_default() += 1;
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
