//! Memory-mapped safetensors files, one or many shards, read tensor by tensor.

use std::{collections::HashMap, fs::File, path::PathBuf};

use candle_core::{DType, Device, Tensor, safetensors::Load};
use memmap2::Mmap;
use safetensors::SafeTensors;

use super::TensorSource;
use crate::error::{Error, Result};

/// Tensors of one or several safetensors files, by name.
pub struct SafetensorsStore {
    shards: Vec<(PathBuf, Mmap)>,
    index: HashMap<String, (usize, Vec<usize>)>,
}

impl SafetensorsStore {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`Error::Disk`] when a file cannot be opened, [`Error::Model`] when it is not a safetensors file.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut store = Self { shards: Vec::new(), index: HashMap::new() };
        for path in paths {
            let file = File::open(path).map_err(|e| Error::disk("cannot open", path, e))?;
            // SAFETY: the map is read-only; a file that another process truncates meanwhile ends this one with SIGBUS.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::disk("cannot map", path, e))?;
            let (_, metadata) = SafeTensors::read_metadata(&map)
                .map_err(|e| Error::model(format!("{}: not a safetensors file: {e}", path.display()), ""))?;
            for (name, info) in metadata.tensors() {
                store.index.insert(name, (store.shards.len(), info.shape.clone()));
            }
            store.shards.push((path.clone(), map));
        }
        Ok(store)
    }
}

impl TensorSource for SafetensorsStore {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.index.get(name).map(|(_, shape)| shape.clone())
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let (shard, _) = self
            .index
            .get(name)
            .ok_or_else(|| Error::model(format!("{} has no tensor {name}", self.describe()), ""))?;
        let tensors = SafeTensors::deserialize(&self.shards[*shard].1)
            .map_err(|e| Error::model(format!("{}: {e}", self.shards[*shard].0.display()), ""))?;
        let view = tensors.tensor(name).map_err(|e| Error::model(format!("{name}: {e}"), ""))?;
        Ok(view.load(device)?.to_dtype(dtype)?)
    }

    fn describe(&self) -> String {
        self.shards.first().map_or_else(|| "no file".into(), |(path, _)| path.display().to_string())
    }
}
