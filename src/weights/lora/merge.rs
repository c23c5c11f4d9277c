//! What LoRA files add to one layer, made and added to its weight itself, for files that are written. In f32, some rows at a time.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Adapter, change::Change, made::kronecker_rows};
use crate::error::Result;

/// What is added to a layer's weight [out, in].
pub struct Merge {
    gain: Option<Tensor>,
    changes: Vec<Arrays>,
}

/// The arrays of a change, made.
enum Arrays {
    LowRank { down: Tensor, up: Tensor },
    Kronecker { first: Tensor, second: Tensor, start: usize },
    Dense { weight: Tensor, strength: f64 },
}

impl Merge {
    /// All that these add; `None` where they leave the weight as it is.
    ///
    /// # Errors
    /// What reading their files may fail with.
    pub fn of(adapters: &[Adapter]) -> Result<Option<Self>> {
        let changes = adapters.iter().filter_map(|adapter| adapter.change.as_ref()).map(Arrays::of);
        let changes = changes.collect::<Result<Vec<_>>>()?;
        let gain = gain(adapters)?;
        Ok((gain.is_some() || !changes.is_empty()).then_some(Self { gain, changes }))
    }

    /// Rows `rows` of the weight [rows, in] f32, with what is added to them.
    ///
    /// # Errors
    /// When shapes do not fit: a bug of the caller.
    pub fn onto(&self, weight: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        let mut sum = weight.clone();
        if let Some(gain) = &self.gain {
            sum = sum.broadcast_mul(&gain.narrow(0, rows.start, rows.len())?.unsqueeze(1)?)?;
        }
        for change in &self.changes {
            sum = (sum + change.rows(&rows)?)?;
        }
        Ok(sum)
    }
}

impl Arrays {
    fn of(change: &Change) -> Result<Self> {
        Ok(match change {
            Change::LowRank { down, up } => Self::LowRank { down: down.make()?, up: up.make()? },
            Change::Kronecker { first, second, rows } => {
                Self::Kronecker { first: first.make()?, second: second.make()?, start: rows.start }
            }
            Change::Dense { weight, strength } => Self::Dense { weight: weight.make()?, strength: *strength },
        })
    }

    /// Rows of what is added: [rows, in] f32.
    fn rows(&self, rows: &Range<usize>) -> Result<Tensor> {
        match self {
            Self::LowRank { down, up } => Ok(up.narrow(0, rows.start, rows.len())?.matmul(down)?),
            Self::Kronecker { first, second, start } => {
                kronecker_rows(first, second, start + rows.start..start + rows.end)
            }
            Self::Dense { weight, strength } => {
                Ok((weight.narrow(0, rows.start, rows.len())?.to_dtype(DType::F32)? * *strength)?)
            }
        }
    }
}

/// What each row of the weight itself is multiplied by, \[out\] f32: each of several counts from the weight as it is, so that it is
/// their sum, less the weights that are counted twice.
///
/// # Errors
/// What reading their files may fail with.
pub fn gain(adapters: &[Adapter]) -> Result<Option<Tensor>> {
    let mut gains = adapters.iter().filter_map(|adapter| adapter.gain.as_ref());
    let Some(first) = gains.next() else { return Ok(None) };
    let mut total = first.make()?;
    for gain in gains {
        total = ((total + gain.make()?)? - 1.0)?;
    }
    Ok(Some(total))
}

/// A bias \[out\] f32 with what these add to it; `bias` gives the layer's own, where it has one.
///
/// # Errors
/// What reading may fail with.
pub fn bias(adapters: &[Adapter], outputs: usize, own: Option<impl FnOnce() -> Result<Tensor>>) -> Result<Tensor> {
    let mut sum = own.map_or_else(|| Ok(Tensor::zeros(outputs, DType::F32, &Device::Cpu)?), |own| own())?;
    for added in adapters.iter().filter_map(|adapter| adapter.bias.as_ref()) {
        sum = (sum + added.make()?)?;
    }
    Ok(sum)
}
