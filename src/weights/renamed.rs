//! A source under other names: each name stands for a part of one tensor of another source.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};

use super::{BlockType, Float8, TensorSource, no_tensor};
use crate::error::Result;

/// What of a stored tensor a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// All of it.
    Whole,
    /// These rows (its first dimension).
    Rows(Range<usize>),
    /// Its second half of rows, then its first.
    SwappedHalves,
    /// A `[C, D, 1, 1]` convolution as the `[C, D]` matrix it is.
    Matrix,
    /// These rows of one.
    MatrixRows(Range<usize>),
    /// A `[C, 1, ..]` norm as the vector \[C\] it is.
    Vector,
    /// The last frame of a `[C, D, T, H, W]` convolution, as the `[C, D, H, W]` one it is for a first frame.
    LastFrame,
}

/// A source under other names.
pub struct Renamed {
    inner: Arc<dyn TensorSource>,
    /// New name -> (stored name, what of it).
    table: BTreeMap<String, (String, Cut)>,
}

/// The name that a table of (stored, new) names gives for a stored one.
pub fn lookup(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(stored, _)| *stored == name).map(|&(_, new)| new)
}

/// The stored name that a table of (stored, new) names gives for a new one.
pub fn reverse(table: &[(&'static str, &str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(_, new)| *new == name).map(|&(stored, _)| stored)
}

impl Renamed {
    /// Gives `inner` the names of `table`: new name, stored name, what of it.
    pub fn new(inner: Arc<dyn TensorSource>, table: impl IntoIterator<Item = (String, String, Cut)>) -> Self {
        Self { inner, table: table.into_iter().map(|(new, stored, cut)| (new, (stored, cut))).collect() }
    }

    /// Names every stored tensor below `prefix` that `names` knows.
    pub fn by(inner: &Arc<dyn TensorSource>, prefix: &str, names: impl Fn(&str) -> Option<Vec<(String, Cut)>>) -> Self {
        let mut table = Vec::new();
        for stored in inner.names() {
            let Some(new_names) = stored.strip_prefix(prefix).and_then(&names) else { continue };
            table.extend(new_names.into_iter().map(|(new, cut)| (new, stored.clone(), cut)));
        }
        Self::new(Arc::clone(inner), table)
    }

    /// The stored tensors that no name stands for.
    pub fn unused(&self) -> Vec<String> {
        let used: BTreeSet<&str> = self.table.values().map(|(stored, _)| stored.as_str()).collect();
        self.inner.names().into_iter().filter(|name| !used.contains(name.as_str())).collect()
    }

    /// The stored name a name stands for, and what of it.
    pub fn stored(&self, name: &str) -> Option<(&str, &Cut)> {
        self.table.get(name).map(|(stored, cut)| (stored.as_str(), cut))
    }

    fn entry(&self, name: &str) -> Result<(&str, &Cut)> {
        self.stored(name).ok_or_else(|| no_tensor(&self.describe(), name, None))
    }

    /// The stored names behind some names, each once: fused tensors stand behind several.
    fn stored_names(&self, names: &[&str]) -> Vec<&str> {
        let stored: BTreeSet<_> = names.iter().filter_map(|name| self.stored(name)).map(|(stored, _)| stored).collect();
        stored.into_iter().collect()
    }
}

impl TensorSource for Renamed {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (stored, cut) = self.stored(name)?;
        let mut shape = self.inner.shape(stored)?;
        match cut {
            Cut::Whole | Cut::SwappedHalves => {}
            Cut::Rows(rows) => *shape.first_mut()? = rows.len(),
            Cut::Matrix => shape.truncate(2),
            Cut::MatrixRows(rows) => {
                *shape.first_mut()? = rows.len();
                shape.truncate(2);
            }
            Cut::Vector => shape.truncate(1),
            Cut::LastFrame if shape.len() == 5 => {
                shape.remove(2);
            }
            Cut::LastFrame => {}
        }
        Some(shape)
    }

    fn stored_as(&self, name: &str) -> Option<(String, Cut)> {
        let (stored, cut) = self.stored(name)?;
        match (self.inner.stored_as(stored)?, cut) {
            ((stored, Cut::Whole), cut) => Some((stored, cut.clone())),
            (within, Cut::Whole) => Some(within),
            // Of a part of a part nobody asks.
            _ => None,
        }
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let (stored, cut) = self.entry(name)?;
        match cut {
            Cut::Whole => self.inner.load(stored, dtype, device),
            Cut::Rows(rows) => self.inner.load_rows(stored, rows.clone(), dtype, device),
            Cut::SwappedHalves => {
                let rows = self.shape(name).and_then(|shape| shape.first().copied()).unwrap_or(0);
                let second = self.inner.load_rows(stored, rows / 2..rows, dtype, device)?;
                let first = self.inner.load_rows(stored, 0..rows / 2, dtype, device)?;
                Ok(Tensor::cat(&[second, first], 0)?)
            }
            Cut::Matrix | Cut::Vector => {
                let shape = self.shape(name).unwrap_or_default();
                Ok(self.inner.load(stored, dtype, device)?.reshape(shape)?) // [C, D], [C]
            }
            Cut::MatrixRows(rows) => {
                let shape = self.shape(name).unwrap_or_default();
                Ok(self.inner.load_rows(stored, rows.clone(), dtype, device)?.reshape(shape)?) // [C', D]
            }
            Cut::LastFrame => {
                let all = self.inner.load(stored, dtype, device)?; // [C, D, T, H, W]
                match *all.dims() {
                    [_, _, frames, _, _] if frames > 0 => Ok(all.narrow(2, frames - 1, 1)?.squeeze(2)?.contiguous()?),
                    _ => Ok(all),
                }
            }
        }
    }

    fn load_rows(&self, name: &str, rows: Range<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.entry(name)? {
            (stored, Cut::Whole) => self.inner.load_rows(stored, rows, dtype, device),
            (stored, Cut::Rows(own)) if rows.start <= rows.end && rows.end <= own.len() => {
                self.inner.load_rows(stored, own.start + rows.start..own.start + rows.end, dtype, device)
            }
            _ => Ok(self.load(name, dtype, device)?.narrow(0, rows.start, rows.len())?),
        }
    }

    fn blocks(&self, name: &str) -> Option<BlockType> {
        match self.stored(name)? {
            // Convolutions, and norms beside them, are kept as numbers.
            (_, Cut::Matrix | Cut::MatrixRows(_) | Cut::Vector | Cut::LastFrame) => None,
            (stored, _) => self.inner.blocks(stored),
        }
    }

    fn load_blocks(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let (stored, cut) = self.entry(name)?;
        match cut {
            Cut::Whole | Cut::Matrix | Cut::MatrixRows(_) | Cut::Vector | Cut::LastFrame => {
                self.inner.load_blocks(stored, rows)
            }
            Cut::Rows(own) => {
                let end = own.end.min(own.start.saturating_add(rows.end));
                self.inner.load_blocks(stored, own.start.saturating_add(rows.start)..end)
            }
            Cut::SwappedHalves => {
                let all = self.shape(name).and_then(|shape| shape.first().copied()).unwrap_or(0);
                let half = |rows| self.inner.load_blocks(stored, rows);
                let swapped = Tensor::cat(&[half(all / 2..all)?, half(0..all / 2)?], 0)?;
                Ok(swapped.narrow(0, rows.start, rows.len())?)
            }
        }
    }

    fn as_stored(&self, name: &str, dtype: DType) -> Option<&[u8]> {
        let (stored, cut) = self.stored(name)?;
        let bytes = self.inner.as_stored(stored, dtype)?;
        match cut {
            Cut::Whole | Cut::Matrix | Cut::Vector => Some(bytes),
            Cut::Rows(rows) | Cut::MatrixRows(rows) => {
                let row = bytes.len() / self.inner.shape(stored)?.first().copied().filter(|rows| *rows > 0)?;
                bytes.get(rows.start.checked_mul(row)?..rows.end.checked_mul(row)?)
            }
            Cut::SwappedHalves | Cut::LastFrame => None,
        }
    }

    fn type_name(&self, name: &str) -> Option<String> {
        self.inner.type_name(self.stored(name)?.0)
    }

    fn made_for(&self) -> Option<&str> {
        self.inner.made_for()
    }

    fn file_dtype(&self, name: &str) -> Option<DType> {
        self.inner.file_dtype(self.stored(name)?.0)
    }

    fn float8(&self, name: &str) -> Option<Float8> {
        self.inner.float8(self.stored(name)?.0)
    }

    fn scales(&self, name: &str) -> Result<Vec<f32>> {
        let Some((stored, cut)) = self.stored(name) else { return Ok(Vec::new()) };
        let mut scales = self.inner.scales(stored)?;
        if scales.len() > 1 {
            match cut {
                Cut::Rows(rows) | Cut::MatrixRows(rows) => {
                    scales = scales.get(rows.clone()).unwrap_or_default().to_vec();
                }
                Cut::SwappedHalves => {
                    let half = scales.len() / 2;
                    scales.rotate_left(half);
                }
                Cut::Whole | Cut::Matrix | Cut::Vector | Cut::LastFrame => {}
            }
        }
        Ok(scales)
    }

    fn scale_count(&self, name: &str) -> usize {
        match self.stored(name) {
            Some((stored, Cut::Rows(rows) | Cut::MatrixRows(rows))) => self.inner.scale_count(stored).min(rows.len()),
            Some((stored, _)) => self.inner.scale_count(stored),
            None => 0,
        }
    }

    fn is_weight(&self, name: &str) -> bool {
        self.stored(name).is_some_and(|(stored, _)| self.inner.is_weight(stored))
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        let (stored, cut) = self.stored(name)?;
        let bytes = self.inner.bytes(stored)?;
        match cut {
            Cut::Rows(rows) | Cut::MatrixRows(rows) => {
                let all = *self.inner.shape(stored)?.first()? as u64;
                Some(bytes / all.max(1) * rows.len() as u64)
            }
            _ => Some(bytes),
        }
    }

    fn names(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    fn release(&self, names: &[&str]) {
        self.inner.release(&self.stored_names(names));
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
