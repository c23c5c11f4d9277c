//! The header of a safetensors file.

use std::collections::BTreeMap;

use super::{Outline, Rounding};
use crate::{
    base::safetensors::{self, Entry},
    error::{Error, Result},
};

/// Everything before the numbers.
///
/// # Errors
/// [`Error::Model`] for a tensor in blocks, which such a file has not.
pub(super) fn header(metadata: &BTreeMap<String, String>, tensors: &[Outline]) -> Result<Vec<u8>> {
    if let Some(Outline { name, rounding, .. }) = tensors.iter().find(|one| matches!(one.rounding, Rounding::Blocks(_)))
    {
        let what = format!("tensor {name} is in {rounding}, which a safetensors file has not");
        return Err(Error::model(what, "write a .gguf file instead"));
    }
    let entries = tensors.iter().map(|tensor| Entry {
        name: &tensor.name,
        dtype: tensor.rounding.to_string(),
        shape: &tensor.shape,
        bytes: tensor.bytes() as u64,
    });
    Ok(safetensors::header(metadata, &entries.collect::<Vec<_>>()))
}
