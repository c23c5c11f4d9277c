//! What every place of tensors answers.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{BlockType, Cut, Float8, lora::Adapter};
use crate::error::{Error, Result};

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

    /// The source that this one decorates under the same names, which answers whatever this one does not itself.
    fn inner(&self) -> Option<&dyn TensorSource> {
        None
    }

    /// The tensor of a file that `name` stands for, and what of it.
    fn stored_as(&self, name: &str) -> Option<(String, Cut)> {
        match self.inner() {
            Some(inner) => inner.stored_as(name),
            None => self.shape(name).map(|_| (name.to_owned(), Cut::Whole)),
        }
    }

    /// Rows `rows` (along the first dimension) of the tensor `name`, converted to `dtype` on `device`.
    ///
    /// # Errors
    /// As [`TensorSource::load`]; and when it has no such rows.
    fn load_rows(&self, name: &str, rows: Range<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.inner() {
            Some(inner) => inner.load_rows(name, rows, dtype, device),
            None => Ok(self.load(name, dtype, device)?.narrow(0, rows.start, rows.len())?),
        }
    }

    /// The narrowest number type that holds `name` exactly, scales apart; `None` when there is no such tensor or candle has no such
    /// type.
    fn file_dtype(&self, name: &str) -> Option<DType> {
        self.inner()?.file_dtype(name)
    }

    /// The kind of blocks that `name` is quantised in, where it is a matrix whose rows are whole blocks.
    fn blocks(&self, name: &str) -> Option<BlockType> {
        self.inner()?.blocks(name)
    }

    /// Rows `rows` of a matrix in [blocks](TensorSource::blocks) as they are stored: bytes [rows, bytes of a row] in the processor's
    /// memory.
    ///
    /// # Errors
    /// As [`TensorSource::load_rows`].
    fn load_blocks(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        match self.inner() {
            Some(inner) => inner.load_blocks(name, rows),
            None => Err(Error::model(format!("{}: tensor {name} is not quantised", self.describe()), "")),
        }
    }

    /// The bytes of `name` where they are stored one after the other as numbers of this type, low byte first; `None` where loading
    /// it changes any.
    fn as_stored(&self, name: &str, dtype: DType) -> Option<&[u8]> {
        self.inner()?.as_stored(name, dtype)
    }

    /// What the number type of `name` is called where it is stored.
    fn type_name(&self, name: &str) -> Option<String> {
        self.inner()?.type_name(name)
    }

    /// The kind of model the source says it was made for, as GGUF files do.
    fn made_for(&self) -> Option<&str> {
        self.inner()?.made_for()
    }

    /// The kind of floats of 8 bits that `name` is stored in, where it is: loaded as [`DType::U8`] it is their codes, without
    /// [scales](TensorSource::scales).
    fn float8(&self, name: &str) -> Option<Float8> {
        self.inner()?.float8(name)
    }

    /// What the stored numbers of `name` are multiplied by: nothing, one number, or one of each row.
    ///
    /// # Errors
    /// [`Error::Model`] when they cannot be read.
    fn scales(&self, name: &str) -> Result<Vec<f32>> {
        self.inner().map_or_else(|| Ok(Vec::new()), |inner| inner.scales(name))
    }

    /// How many [scales](TensorSource::scales) there are.
    fn scale_count(&self, name: &str) -> usize {
        self.inner().map_or(0, |inner| inner.scale_count(name))
    }

    /// Whether `name` exists and is stored in a type that can be converted to f32, bf16 and f16.
    fn is_weight(&self, name: &str) -> bool {
        self.inner().map_or_else(|| self.shape(name).is_some(), |inner| inner.is_weight(name))
    }

    /// Bytes of `name` as it is stored, where the source knows.
    fn bytes(&self, name: &str) -> Option<u64> {
        if let Some(inner) = self.inner() {
            return inner.bytes(name);
        }
        let elements: usize = self.shape(name)?.iter().product();
        Some((elements * self.file_dtype(name)?.size_in_bytes()) as u64)
    }

    /// Hands out bytes of `name` as they are stored: all of them where `whole` asks for it or there are few, else some from its
    /// start, middle and end. Enough to tell contents apart. Nothing where the source has no bytes of its own.
    ///
    /// # Errors
    /// [`Error::Model`] when they are not here yet.
    fn sample(&self, name: &str, whole: bool, to: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.inner().map_or(Ok(()), |inner| inner.sample(name, whole, to))
    }

    /// What LoRA files add to the layer whose weight is `{layer}.weight`.
    fn adapters(&self, layer: &str) -> &[Adapter] {
        self.inner().map_or(&[], |inner| inner.adapters(layer))
    }

    /// Whether anything is added to any layer.
    fn is_adapted(&self) -> bool {
        self.inner().is_some_and(TensorSource::is_adapted)
    }

    /// Every tensor's name, sorted. Empty for a source that cannot list them.
    fn names(&self) -> Vec<String> {
        self.inner().map_or_else(Vec::new, TensorSource::names)
    }

    /// Says that these tensors will not be loaded soon, so that their file's pages can leave memory.
    fn release(&self, names: &[&str]) {
        if let Some(inner) = self.inner() {
            inner.release(names);
        }
    }
}
