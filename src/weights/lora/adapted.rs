//! A source of tensors whose layers LoRA files change.

use std::{collections::HashMap, ops::Range, sync::Arc};

use candle_core::{DType, Device, Tensor};

use super::{
    super::{BlockType, Float8, TensorSource},
    Layer, LayerKind, Merge,
    change::Adapter,
    merge,
};
use crate::error::Result;

/// A source that tells what is added to its linear layers, whose tensors are as they were, and adds to others as they are read.
pub struct Adapted {
    inner: Arc<dyn TensorSource>,
    /// By the layer's name.
    adapters: HashMap<String, Vec<Adapter>>,
    /// By the tensor's name.
    sums: HashMap<String, Sum>,
}

/// A tensor of no linear layer, and what is added to it.
struct Sum {
    what: What,
    adapters: Arc<[Adapter]>,
}

enum What {
    Weight,
    /// Of so many numbers.
    Bias(usize),
}

impl Adapted {
    /// `inner` with these changes of the layers that are among `layers`, by their names.
    pub fn new(inner: Arc<dyn TensorSource>, mut adapters: HashMap<String, Vec<Adapter>>, layers: &[Layer]) -> Self {
        let mut sums = HashMap::new();
        for layer in layers.iter().filter(|layer| layer.kind != LayerKind::Linear) {
            let Some(added) = adapters.remove(&layer.name) else { continue };
            let added: Arc<[Adapter]> = added.into();
            if added.iter().any(|adapter| adapter.change.is_some()) {
                sums.insert(layer.weight(), Sum { what: What::Weight, adapters: Arc::clone(&added) });
            }
            if layer.has_bias && added.iter().any(|adapter| adapter.bias.is_some()) {
                sums.insert(format!("{}.bias", layer.name), Sum { what: What::Bias(layer.outputs), adapters: added });
            }
        }
        Self { inner, adapters, sums }
    }
}

impl Sum {
    /// Rows of the tensor `name` with what is added to them, in f32.
    fn rows(&self, source: &dyn TensorSource, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let own = |rows| source.load_rows(name, rows, DType::F32, &Device::Cpu);
        if let What::Bias(count) = self.what {
            let sum = merge::bias(&self.adapters, count, Some(|| own(0..count)))?;
            return Ok(sum.narrow(0, rows.start, rows.len())?);
        }
        let weight = own(rows.clone())?;
        let Some(merge) = Merge::of(&self.adapters)? else { return Ok(weight) };
        let matrix = weight.reshape((rows.len(), ()))?; // [rows, in]
        Ok(merge.onto(&matrix, rows)?.reshape(weight.shape())?)
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
        let rows = self.shape(name).and_then(|shape| shape.first().copied());
        match (self.sums.get(name), rows) {
            (Some(_), Some(rows)) => self.load_rows(name, 0..rows, dtype, device),
            _ => self.inner.load(name, dtype, device),
        }
    }

    fn load_rows(&self, name: &str, rows: Range<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.sums.get(name) {
            // Converted before it travels: a kernel launched here would stand in the way of one that computes.
            Some(sum) => Ok(sum.rows(&*self.inner, name, rows)?.to_dtype(dtype)?.to_device(device)?),
            None => self.inner.load_rows(name, rows, dtype, device),
        }
    }

    fn blocks(&self, name: &str) -> Option<BlockType> {
        self.inner.blocks(name).filter(|_| !self.sums.contains_key(name))
    }

    fn float8(&self, name: &str) -> Option<Float8> {
        self.inner.float8(name).filter(|_| !self.sums.contains_key(name))
    }

    fn as_stored(&self, name: &str, dtype: DType) -> Option<&[u8]> {
        self.inner.as_stored(name, dtype).filter(|_| !self.sums.contains_key(name))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn adapters(&self, layer: &str) -> &[Adapter] {
        self.adapters.get(layer).map_or(&[], Vec::as_slice)
    }

    fn is_adapted(&self) -> bool {
        !(self.adapters.is_empty() && self.sums.is_empty())
    }

    fn release(&self, names: &[&str]) {
        self.inner.release(names);
        let layers = names.iter().filter_map(|name| name.strip_suffix(".weight"));
        let of_layers = layers.flat_map(|layer| self.adapters(layer));
        let of_sums = names.iter().filter_map(|name| self.sums.get(*name)).flat_map(|sum| sum.adapters.iter());
        of_layers.chain(of_sums).for_each(Adapter::release);
    }
}
