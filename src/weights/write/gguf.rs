//! The header of a GGUF file (ggml-org/ggml, `docs/gguf.md`), version 3.

use super::Outline;
use crate::{
    error::{Error, Result},
    weights::{
        gguf::{ARRAY, F32, I32, MAGIC, MOST_DIMS, STRING, U32, USUAL_ALIGNMENT},
        number::NumberType,
    },
};

/// Where numbers start, in multiples of this: no key need say so.
pub(super) const ALIGNMENT: usize = USUAL_ALIGNMENT as usize;
const VERSION: u32 = 3;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// A text.
    Text(String),
    /// A whole number.
    Count(u32),
    /// A number.
    Number(f32),
    /// Whole numbers.
    Counts(Vec<i32>),
}

/// Everything before the numbers.
///
/// # Errors
/// [`Error::Model`] for a tensor of more dimensions than ggml has, or in a type it has not.
pub(super) fn header(keys: &[(String, Key)], tensors: &[Outline]) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((keys.len() as u64).to_le_bytes());
    for (name, value) in keys {
        text(&mut file, name);
        value.write(&mut file);
    }
    let mut offset = 0;
    for tensor in tensors {
        describe(&mut file, tensor, offset as u64)?;
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    Ok(file)
}

fn describe(file: &mut Vec<u8>, tensor: &Outline, offset: u64) -> Result<()> {
    let Outline { name, shape, rounding } = tensor;
    let unfit = |why: String| Error::model(format!("tensor {name} {why}"), "write a .safetensors file instead");
    if shape.len() > MOST_DIMS as usize {
        return Err(unfit(format!("has {} dimensions; a GGUF file takes {MOST_DIMS}", shape.len())));
    }
    let number =
        NumberType::from(*rounding).in_ggml().ok_or_else(|| unfit(format!("is in {rounding}, which ggml has not")))?;
    text(file, name);
    file.extend((shape.len() as u32).to_le_bytes());
    // Innermost first.
    shape.iter().rev().for_each(|dim| file.extend((*dim as u64).to_le_bytes()));
    file.extend(number.to_le_bytes());
    file.extend(offset.to_le_bytes());
    Ok(())
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

impl Key {
    fn write(&self, file: &mut Vec<u8>) {
        match self {
            Self::Text(value) => {
                file.extend(STRING.to_le_bytes());
                text(file, value);
            }
            Self::Count(value) => [U32, *value].iter().for_each(|word| file.extend(word.to_le_bytes())),
            Self::Number(value) => {
                file.extend(F32.to_le_bytes());
                file.extend(value.to_le_bytes());
            }
            Self::Counts(values) => {
                [ARRAY, I32].iter().for_each(|word| file.extend(word.to_le_bytes()));
                file.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| file.extend(value.to_le_bytes()));
            }
        }
    }
}
