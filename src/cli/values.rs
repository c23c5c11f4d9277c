//! Parsers of flag values: each says what it wanted when it refuses.

use super::device::DeviceChoice;
use crate::{
    base::{memory::Bytes, processor::MOST_THREADS},
    recipe::{self, Kind, LoraList, Loras, SIDE_PX, Shard},
};

/// A side of the picture in pixels.
pub fn side_px(text: &str) -> Result<usize, String> {
    SIDE_PX.parse(text)
}

/// The device.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    text.parse()
}

/// A list of seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

/// A list of seeds, such as 1,2,5-8.
pub fn seeds(text: &str) -> Result<Seeds, String> {
    recipe::parse_seeds(text).map(Seeds).map_err(|e| with_hint(&e))
}

/// One part of a batch.
pub fn shard(text: &str) -> Result<Shard, String> {
    text.parse().map_err(|e| with_hint(&e))
}

/// How many times as large a picture becomes.
pub fn factor(text: &str) -> Result<f64, String> {
    let is_factor = |number: &f64| (1.0..=64.0).contains(number);
    text.parse().ok().filter(is_factor).ok_or_else(|| "a number from 1 to 64 is wanted, such as 2 or 4".into())
}

/// A whole number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number >= 1).ok_or_else(|| "a whole number of 1 or more is wanted".into())
}

/// How many threads compute.
pub fn threads(text: &str) -> Result<usize, String> {
    let is_some = |count: &usize| (1..=MOST_THREADS).contains(count);
    let wanted = || format!("a whole number from 1 to {MOST_THREADS} is wanted, such as 8");
    text.parse().ok().filter(is_some).ok_or_else(wanted)
}

fn with_hint(error: &crate::Error) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

/// The name of a variant of weights.
pub fn variant(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_name = !text.is_empty() && text.chars().all(plain);
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("a word such as fp16 is wanted, as in model.fp16.safetensors".into())
    }
}

/// A LoRA with its strength.
pub fn lora(text: &str) -> Result<Loras, String> {
    LoraList.parse(text)
}

/// An amount of memory.
pub fn bytes(text: &str) -> Result<Bytes, String> {
    text.parse()
}
