//! Rows of a table by their numbers: token embeddings.

use std::collections::{BTreeSet, HashMap};

use candle_core::DType;

use super::{Array, Parameters};
use crate::error::{Error, Result};

/// The rows of an embedding table `weight` [rows, width] for each list of ids, in f32: one [N, width] per list.
///
/// Each row is read once for all lists; the rest of the table (T5's has 32128 rows of 4096) is never converted.
///
/// # Errors
/// [`Error::Model`] when an id is beyond the table, or the table is missing or has another shape; when the device fails.
pub fn embedding_rows(parameters: &Parameters, table: [usize; 2], id_lists: &[Vec<u32>]) -> Result<Vec<Array>> {
    let [rows, width] = table;
    if let Some(id) = id_lists.iter().flatten().find(|id| **id as usize >= rows) {
        let what = format!("token id {id} is beyond the embedding table of {rows} rows");
        return Err(Error::model(what, "the tokenizer belongs to another model than the text encoder"));
    }
    let (parameters, place) = (parameters.with_dtype(DType::F32), parameters.place());
    parameters.note("weight", &table);
    let wanted: BTreeSet<u32> = id_lists.iter().flatten().copied().collect();
    let read = place.zeros(&[wanted.len(), width], DType::F32)?; // [wanted, width]
    for (at, id) in wanted.iter().enumerate() {
        read.slice_set(&parameters.row("weight", table, *id as usize)?, 0, at)?;
    }
    let places: HashMap<u32, u32> = wanted.into_iter().zip(0..).collect();
    let gather = |ids: &Vec<u32>| {
        let places = place.indices(&[ids.len()], || ids.iter().map(|id| places[id]).collect())?;
        read.index_select(&places, 0) // [N, width]
    };
    id_lists.iter().map(gather).collect()
}
