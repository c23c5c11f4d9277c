//! A source of tensors whose layers LoRA files change.

use std::{collections::HashMap, sync::Arc};

use candle_core::{DType, Device, Tensor};

use super::{super::TensorSource, change::Adapter};
use crate::error::Result;

/// A source whose tensors are as they were, and that tells what is added to its layers.
pub struct Adapted {
    inner: Arc<dyn TensorSource>,
    adapters: HashMap<String, Vec<Adapter>>,
}

impl Adapted {
    /// `inner` with these changes of its layers, by their names.
    pub fn new(inner: Arc<dyn TensorSource>, adapters: HashMap<String, Vec<Adapter>>) -> Self {
        Self { inner, adapters }
    }
}

impl TensorSource for Adapted {
    fn inner(&self) -> Option<&dyn TensorSource> {
        Some(&*self.inner)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(name)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.inner.load(name, dtype, device)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn adapters(&self, layer: &str) -> &[Adapter] {
        self.adapters.get(layer).map_or(&[], Vec::as_slice)
    }

    fn is_adapted(&self) -> bool {
        !self.adapters.is_empty()
    }

    fn release(&self, names: &[&str]) {
        self.inner.release(names);
        let layers = names.iter().filter_map(|name| name.strip_suffix(".weight"));
        layers.flat_map(|layer| self.adapters(layer)).for_each(Adapter::release);
    }
}
