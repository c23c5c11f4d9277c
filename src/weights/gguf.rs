//! The header of a GGUF file, read strictly: counts and lengths are held against the file before anything is made of them.
//!
//! Layout (ggml-org/ggml, `docs/gguf.md`), little-endian: "GGUF", the version (u32), how many tensors and keys (u64); the keys, each
//! a string, the type of its value (u32) and the value; the tensors, each a string, its dimensions, innermost first, its type (u32)
//! and where it lies (u64), counted from the first multiple of `general.alignment` behind the header.

mod reader;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use self::reader::{I64, Reader, U64, width_of};
use super::{
    header::{Entry, Header, check_cut, damaged},
    number::NumberType,
    split::Split,
};
use crate::error::{Error, Result};

pub(super) use reader::{ARRAY, F32, I32, STRING, U32};

/// How such a file begins.
pub(super) const MAGIC: &[u8] = b"GGUF";
/// Most bytes of a header that are fetched before the rest of the file: a language model's vocabulary takes a tenth of it.
const MOST_BYTES: u64 = 64 << 20;
/// Where numbers start, in multiples of this, where a file does not say.
pub(super) const USUAL_ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor. Source: ggml, `GGML_MAX_DIMS`; more are of another library.
pub(super) const MOST_DIMS: u32 = 4;
/// Least bytes of a key: an empty name, a type, one byte of value.
const LEAST_KEY: u64 = 8 + 4 + 1;
/// Least bytes of a tensor's description: an empty name, no dimension, a type and an offset.
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;

/// Where ComfyUI's converters keep a tensor's shape that they stored in rows of another length.
const TRUE_SHAPE: &str = "comfy.gguf.orig_shape.";

/// The keys that say into how many files a model was split, which of them this is, from 0, and how many tensors all of them hold.
/// Source: ggml-org/llama.cpp, `tools/gguf-split`.
const SPLIT_COUNT: &str = "split.count";
const SPLIT_NUMBER: &str = "split.no";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// The key that says what kind of model a file was made for.
pub(crate) const MADE_FOR: &str = "general.architecture";

/// Reads the header of a file of `file_len` bytes (called `path` in messages) that begins with `file`. Bytes behind the header
/// need not be there.
///
/// # Errors
/// [`Error::Model`] for anything but a whole GGUF file.
pub(super) fn read_header(path: &Path, file: &[u8], file_len: usize) -> Result<Header> {
    let mut reader = Reader::new(path, file);
    let (tensors, keys) = reader.begin()?;
    let said = reader.keys(keys)?;
    let (mut described, mut seen) = (Vec::new(), HashSet::new());
    for _ in 0..tensors {
        let tensor = reader.tensor()?;
        if !seen.insert(tensor.name) {
            return Err(reader.broken(format!("tensor {} comes twice", tensor.name)));
        }
        described.push(tensor);
    }
    let is_split = said.split.count > 1;
    // The first of several files may hold nothing but keys.
    if described.is_empty() && !is_split {
        return Err(reader.broken("it holds no tensor"));
    }
    let alignment = said.alignment.unwrap_or(USUAL_ALIGNMENT);
    let data = (reader.at as u64).next_multiple_of(alignment);
    let mut entries = Vec::with_capacity(described.len());
    for tensor in described {
        let shape = said.shapes.get(tensor.name);
        entries.push(tensor.check(path, data, alignment, shape.map(Vec::as_slice))?);
    }
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    let overlap = entries.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end);
    if let Some([before, entry]) = overlap {
        return Err(reader.broken(format!("tensor {} overlaps {}", entry.name, before.name)));
    }
    check_cut(path, entries.last().map_or(0, |last| last.bytes.end), file_len)?;
    let Said { mut split, shapes, made_for, .. } = said;
    let elsewhere = shapes.into_iter().filter(|(name, _)| is_split && !seen.contains(name));
    split.shapes =
        elsewhere.map(|(name, shape)| (name.to_owned(), shape.into_iter().map(|dim| dim as usize).collect())).collect();
    let metadata = made_for.map(|said| (MADE_FOR.to_owned(), said)).into_iter().collect();
    Ok(Header { entries, metadata, split: is_split.then_some(split) })
}

/// What the keys say that matters here.
#[derive(Default)]
struct Said<'a> {
    made_for: Option<String>,
    alignment: Option<u64>,
    /// Where this file stands among those of its model.
    split: Split,
    /// The true shapes of tensors that are stored in another.
    shapes: HashMap<&'a str, Vec<u64>>,
}

/// A tensor as the header describes it.
struct Described<'a> {
    name: &'a str,
    /// Innermost first.
    dims: Vec<u64>,
    numbers: u32,
    offset: u64,
}

impl Described<'_> {
    fn check(self, path: &Path, data: u64, alignment: u64, shape: Option<&[u64]>) -> Result<Entry> {
        let Self { name, dims, numbers, offset } = self;
        let broken = |what: String| damaged(path, format!("tensor {name} {what}"));
        let dtype = NumberType::of_ggml(numbers).ok_or_else(|| {
            let what = format!("{}: tensor {name} has the number type {numbers}, which is not known", path.display());
            Error::model(what, "it may be new, or one that ggml has removed; give the model in Q8_0 or Q4_K")
        })?;
        let count = |dims: &[u64]| {
            let count = dims.iter().try_fold(1_u64, |n, &dim| n.checked_mul(dim)).filter(|n| *n > 0)?;
            usize::try_from(count).ok()
        };
        let elements = count(&dims).ok_or_else(|| broken(format!("has an impossible shape {dims:?}")))?;
        let row = dims.first().copied().unwrap_or(1);
        if row % dtype.numbers() as u64 != 0 {
            let unit = dtype.numbers();
            return Err(broken(format!("has rows of {row} in {dtype}, whose blocks are of {unit} numbers")));
        }
        let size = dtype.bytes_of(elements).ok_or_else(|| broken(format!("has an impossible shape {dims:?}")))?;
        if offset % alignment != 0 {
            return Err(broken(format!("lies at {offset}, no multiple of the alignment, {alignment}")));
        }
        let place = |at: u64| usize::try_from(at).ok();
        let start = data.checked_add(offset).and_then(place);
        let bytes = start.and_then(|start| Some(start..start.checked_add(size)?));
        let bytes = bytes.ok_or_else(|| broken(format!("lies at an impossible offset, {offset}")))?;
        let shape = match shape {
            Some(shape) if count(shape) == Some(elements) => shape.to_vec(),
            Some(shape) => return Err(broken(format!("holds {elements} numbers, but its true shape is {shape:?}"))),
            None => dims.into_iter().rev().collect(),
        };
        // Their product fits.
        let shape = shape.into_iter().map(|dim| dim as usize).collect();
        Ok(Entry { name: name.to_owned(), dtype, shape, bytes })
    }
}

impl<'a> Reader<'a> {
    /// The first fields: how many tensors and keys there are.
    fn begin(&mut self) -> Result<(u64, u64)> {
        if self.take(MAGIC.len() as u64)? != MAGIC {
            return Err(self.broken("this is no GGUF file"));
        }
        let version = self.u32()?;
        if !matches!(version, 2 | 3) {
            let found = match version.swap_bytes() {
                1..=99 if version > 99 => "it is big-endian".to_owned(),
                _ => format!("its version is {version}"),
            };
            let what = format!("{}: this is a GGUF file, but {found}", self.path.display());
            return Err(Error::model(
                what,
                "versions 2 and 3 are read, little-endian; fetch or convert the model anew",
            ));
        }
        let tensors = self.count("tensors", LEAST_TENSOR)?;
        Ok((tensors, self.count("keys", LEAST_KEY)?))
    }

    fn keys(&mut self, count: u64) -> Result<Said<'a>> {
        let (mut said, mut seen) = (Said::default(), HashSet::new());
        for _ in 0..count {
            let key = self.string()?;
            if !seen.insert(key) {
                return Err(self.broken(format!("its key {key:?} comes twice")));
            }
            let kind = self.u32()?;
            match (key, key.strip_prefix(TRUE_SHAPE)) {
                (MADE_FOR, _) => said.made_for = Some(self.text(key, kind)?),
                ("general.alignment", _) => said.alignment = Some(self.alignment(key, kind)?),
                (SPLIT_COUNT, _) => said.split.count = self.whole(key, kind)?,
                (SPLIT_NUMBER, _) => said.split.number = Some(self.whole(key, kind)?),
                (SPLIT_TENSORS, _) => said.split.tensors = Some(self.whole(key, kind)?),
                (_, Some(tensor)) => {
                    said.shapes.insert(tensor, self.shape(key, kind)?);
                }
                _ => self.skip(key, kind)?,
            }
        }
        Ok(said)
    }

    fn text(&mut self, key: &str, kind: u32) -> Result<String> {
        if kind != STRING {
            return Err(self.broken(format!("its {key} is no text (type {kind})")));
        }
        self.string().map(str::to_owned)
    }

    fn alignment(&mut self, key: &str, kind: u32) -> Result<u64> {
        if kind != U32 {
            return Err(self.broken(format!("its {key} is no number of 32 bits (type {kind})")));
        }
        let alignment = self.u32()?;
        if !alignment.is_power_of_two() {
            return Err(self.broken(format!("its {key} is {alignment}, no power of two")));
        }
        Ok(alignment.into())
    }

    /// An array of few integers.
    fn shape(&mut self, key: &str, kind: u32) -> Result<Vec<u64>> {
        let kind = if kind == ARRAY { self.u32()? } else { kind };
        let Some(width) = width_of(kind).filter(|_| matches!(kind, U32 | I32 | U64 | I64)) else {
            return Err(self.broken(format!("its {key} is no array of integers (type {kind})")));
        };
        let count = self.count("dimensions", width)?;
        if count > u64::from(MOST_DIMS) {
            return Err(self.broken(format!("its {key} has {count} dimensions")));
        }
        let dim = |reader: &mut Self| match kind {
            U32 => reader.u32().map(u64::from),
            // A negative one is more than any file holds.
            I32 => reader.u32().map(|dim| dim as i32 as u64),
            _ => reader.u64(),
        };
        (0..count).map(|_| dim(self)).collect()
    }

    fn tensor(&mut self) -> Result<Described<'a>> {
        let name = self.string()?;
        let dims = self.u32()?;
        if dims > MOST_DIMS {
            return Err(self.broken(format!("tensor {name} has {dims} dimensions, expected at most {MOST_DIMS}")));
        }
        let dims = (0..dims).map(|_| self.u64()).collect::<Result<_>>()?;
        Ok(Described { name, dims, numbers: self.u32()?, offset: self.u64()? })
    }
}

/// Bytes from the start of a file to the end of its header, where it is a GGUF file; more than there are, where its first bytes are
/// too few to tell.
pub(super) fn header_bytes(file: &[u8]) -> Option<u64> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let mut reader = Reader::new(Path::new(""), file);
    let walked = reader.begin().and_then(|(tensors, keys)| {
        reader.keys(keys)?;
        (0..tensors).try_for_each(|_| reader.tensor().map(drop))
    });
    match walked {
        Ok(()) => Some(reader.at as u64),
        Err(_) if reader.is_short => Some(4 * file.len() as u64).filter(|more| *more <= MOST_BYTES),
        // Whoever reads it says what is wrong.
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of one key, an array of texts of 1000 bytes each, and no tensor.
    fn header(texts: u64) -> Vec<u8> {
        let mut file = [MAGIC, &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        file.extend(1_u64.to_le_bytes());
        file.extend(b"a");
        file.extend([ARRAY, STRING].into_iter().flat_map(u32::to_le_bytes));
        file.extend(texts.to_le_bytes());
        for _ in 0..texts {
            file.extend(1000_u64.to_le_bytes());
            file.extend([b'x'; 1000]);
        }
        file
    }

    #[test]
    fn one_of_several_files_may_hold_keys_alone() {
        for (count, is_split) in [(2_u16, true), (1, false)] {
            let mut file = [MAGIC, &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
            file.extend((SPLIT_COUNT.len() as u64).to_le_bytes());
            file.extend(SPLIT_COUNT.as_bytes());
            // A whole number of 16 bits.
            file.extend(2_u32.to_le_bytes());
            file.extend(count.to_le_bytes());
            let found = read_header(Path::new("x.gguf"), &file, file.len());
            let split = found.map(|header| header.split.map(|split| (split.number, split.count, split.tensors)));
            match split {
                Ok(split) => assert!(is_split && split == Some((None, 2, None)), "{split:?}"),
                Err(error) => assert!(!is_split && error.to_string().contains("it holds no tensor"), "{error}"),
            }
        }
    }

    #[test]
    fn a_header_that_is_not_there_yet_asks_for_more_and_a_broken_one_does_not() {
        let whole = header(300);
        let length = whole.len() as u64;
        let with_more = [whole.as_slice(), &[0; 99]].concat();
        assert_eq!((header_bytes(&whole), header_bytes(&with_more)), (Some(length), Some(length)));
        for cut in [4, 5, 30, 1000, whole.len() - 1] {
            assert_eq!(header_bytes(&whole[..cut]), Some(4 * cut as u64), "{cut}");
        }
        let mut broken = whole.clone();
        broken[4] = 9;
        assert_eq!((header_bytes(&broken), header_bytes(b"GGUX")), (None, None));
        // What announces more than any header has is not followed for ever.
        let endless = header(70_000);
        assert_eq!(header_bytes(&endless[..17 << 20]), None);
    }
}
