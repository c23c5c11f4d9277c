//! Where tensors come from: safetensors files behind a memory map, under the names and shapes a model asks for.

pub mod hub;
mod json;
mod store;

use std::{fmt::Display, sync::Arc};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

pub use json::read_json;
pub use store::SafetensorsStore;

/// A place that holds tensors by name.
pub trait TensorSource: Send + Sync {
    /// Shape of the tensor `name`, if there is one.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The tensor `name`, converted to `dtype` on `device`.
    ///
    /// # Errors
    /// [`Error::Model`] when there is no such tensor or its bytes cannot be read.
    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor>;

    /// What to call this source in messages: a file or folder.
    fn describe(&self) -> String;
}

/// A view of a [`TensorSource`] below a name prefix, with the number type and device its tensors arrive in.
#[derive(Clone)]
pub struct Weights {
    source: Arc<dyn TensorSource>,
    prefix: String,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// The whole of a source.
    pub fn new(source: Arc<dyn TensorSource>, dtype: DType, device: Device) -> Self {
        Self { source, prefix: String::new(), dtype, device }
    }

    /// The view one name segment further down: `weights.pp("transformer_blocks").pp(3)`.
    pub fn pp(&self, segment: impl Display) -> Self {
        Self { prefix: self.full_name(&segment.to_string()), ..self.clone() }
    }

    /// The same view with tensors of another number type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// The number type tensors arrive in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device tensors arrive on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether `name` exists below this prefix.
    pub fn contains(&self, name: &str) -> bool {
        self.source.shape(&self.full_name(name)).is_some()
    }

    /// The tensor `name` below this prefix, of exactly this shape.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing, has another shape, or cannot be read.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.check(name, shape)?;
        self.source.load(&self.full_name(name), self.dtype, &self.device)
    }

    /// Checks, without reading it, that the tensor `name` is there and of exactly this shape.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing or has another shape.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let full = self.full_name(name);
        let hint = "the file does not fit the model's config.json; check that both come from one model";
        match self.source.shape(&full) {
            None => {
                let what = format!("{} has no tensor {full} {shape:?}", self.source.describe());
                Err(Error::model(what, hint))
            }
            Some(found) if found != shape => {
                let what = format!("{}: tensor {full} has shape {found:?}, expected {shape:?}", self.source.describe());
                Err(Error::model(what, hint))
            }
            Some(_) => Ok(()),
        }
    }

    fn full_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
