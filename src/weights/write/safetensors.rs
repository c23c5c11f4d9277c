//! The header of a safetensors file (huggingface/safetensors, `README.md`): the length of a JSON object, and the object.

use serde_json::{Map, Value, json};

use super::{Outline, Rounding};
use crate::error::{Error, Result};

/// Numbers start at multiples of this.
const ALIGNMENT: usize = 8;

/// Everything before the numbers.
///
/// # Errors
/// [`Error::Model`] for a tensor in blocks, which such a file has not.
pub(super) fn header(metadata: &[(String, String)], tensors: &[Outline]) -> Result<Vec<u8>> {
    let mut object = Map::new();
    let texts: Map<String, Value> = metadata.iter().map(|(key, text)| (key.clone(), json!(text))).collect();
    object.insert("__metadata__".to_owned(), texts.into());
    let mut offset = 0;
    for tensor in tensors {
        let Outline { name, shape, rounding } = tensor;
        if matches!(rounding, Rounding::Blocks(_)) {
            let what = format!("tensor {name} is in {rounding}, which a safetensors file has not");
            return Err(Error::model(what, "write a .gguf file instead"));
        }
        let end = offset + tensor.bytes();
        let dtype = rounding.to_string();
        object.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let mut text = Value::from(object).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    Ok(file)
}
