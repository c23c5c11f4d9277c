//! The header of a safetensors file that is written (huggingface/safetensors, `README.md`): the length of a JSON object, and the
//! object. The format's own crate writes metadata in another order every time, and asks for all numbers at once; here the same
//! tensors are the same bytes, which are known before any number is.

use std::collections::BTreeMap;

use serde_json::{Map, json};

/// Numbers start at multiples of this.
const ALIGNMENT: usize = 8;

/// A tensor of the file.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number type, as such files call it: "BF16".
    pub dtype: String,
    /// Its shape, rows first.
    pub shape: &'a [usize],
    /// Bytes of its numbers.
    pub bytes: u64,
}

/// Everything before the numbers of these tensors, which follow in their order without gaps. `metadata` is texts by name.
pub fn header(metadata: &BTreeMap<String, String>, tensors: &[Entry<'_>]) -> Vec<u8> {
    let mut object = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for Entry { name, dtype, shape, bytes } in tensors {
        let start = end;
        end += bytes;
        object.insert((*name).to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let mut text = serde_json::Value::Object(object).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(ALIGNMENT) - text.len()));
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
