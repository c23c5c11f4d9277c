//! A source of tensors whose layers LoRA files change.

use std::{collections::HashMap, ops::Range, sync::Arc};

use candle_core::{DType, Device, Tensor};

use super::{
    super::{BlockType, Cut, Float8, TensorSource},
    change::Adapter,
};
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
    fn adapters(&self, layer: &str) -> &[Adapter] {
        self.adapters.get(layer).map_or(&[], Vec::as_slice)
    }

    fn is_adapted(&self) -> bool {
        !self.adapters.is_empty()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(name)
    }

    fn stored_as(&self, name: &str) -> Option<(String, Cut)> {
        self.inner.stored_as(name)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.inner.load(name, dtype, device)
    }

    fn load_rows(&self, name: &str, rows: Range<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        self.inner.load_rows(name, rows, dtype, device)
    }

    fn file_dtype(&self, name: &str) -> Option<DType> {
        self.inner.file_dtype(name)
    }

    fn blocks(&self, name: &str) -> Option<BlockType> {
        self.inner.blocks(name)
    }

    fn load_blocks(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        self.inner.load_blocks(name, rows)
    }

    fn type_name(&self, name: &str) -> Option<String> {
        self.inner.type_name(name)
    }

    fn made_for(&self) -> Option<&str> {
        self.inner.made_for()
    }

    fn float8(&self, name: &str) -> Option<Float8> {
        self.inner.float8(name)
    }

    fn scales(&self, name: &str) -> Result<Vec<f32>> {
        self.inner.scales(name)
    }

    fn scale_count(&self, name: &str) -> usize {
        self.inner.scale_count(name)
    }

    fn is_weight(&self, name: &str) -> bool {
        self.inner.is_weight(name)
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.inner.bytes(name)
    }

    fn sample(&self, name: &str, whole: bool, to: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.inner.sample(name, whole, to)
    }

    fn names(&self) -> Vec<String> {
        self.inner.names()
    }

    fn release(&self, names: &[&str]) {
        self.inner.release(names);
        let layers = names.iter().filter_map(|name| name.strip_suffix(".weight"));
        layers.flat_map(|layer| self.adapters(layer)).for_each(Adapter::release);
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
