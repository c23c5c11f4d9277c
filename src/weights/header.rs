//! The header of a safetensors file, read strictly: every byte of the file belongs to exactly one tensor.
//!
//! Layout (huggingface/safetensors, README "Format"): 8 bytes little-endian N, N bytes of JSON, then the tensors' bytes,
//! each at `data_offsets` counted from the end of the header.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
    path::Path,
};

use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor, value::StrDeserializer},
};

use super::{gguf, human_bytes, magic::kind_of_bytes, number::NumberType, split::Split};
use crate::error::{Error, Result};

/// Bytes of the number N in front of the header.
const LENGTH_BYTES: usize = 8;
/// Longest header a reader accepts. Source: huggingface/safetensors, `MAX_HEADER_SIZE`.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What to do about a file that is not what it should be.
const FETCH_AGAIN: &str = "the file is damaged; delete it and run again, so that it is fetched anew";

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: NumberType,
    pub(super) shape: Vec<usize>,
    /// Where its bytes lie, counted from the start of the file.
    pub(super) bytes: Range<usize>,
}

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    /// The tensors in the order of their bytes.
    pub(super) entries: Vec<Entry>,
    /// The texts of `__metadata__`, which say what they like.
    pub(super) metadata: BTreeMap<String, String>,
    /// Where the file stands among those of a model in several.
    pub(super) split: Option<Split>,
}

/// Reads the header of a file of `file_len` bytes (called `path` in messages) that begins with `file`. Bytes behind the header
/// need not be there.
///
/// # Errors
/// [`Error::Model`] for anything but a whole, gapless safetensors file.
pub(super) fn read_header(path: &Path, file: &[u8], file_len: usize) -> Result<Header> {
    let json = header_json(path, file)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let raw = RawHeader::deserialize(&mut deserializer)
        .and_then(|raw| deserializer.end().map(|()| raw))
        .map_err(|e| damaged(path, format!("its header is not a list of tensors: {e}")))?;
    let data = LENGTH_BYTES + json.len();
    let mut entries =
        raw.entries.into_iter().map(|(name, raw)| raw.check(path, name, data)).collect::<Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    check_cover(path, &entries, data, file_len)?;
    Ok(Header { entries, metadata: raw.metadata, split: None })
}

/// Bytes from the start of a safetensors or GGUF file to the end of its header, where the file's first bytes announce one; more than
/// there are, where they are too few to tell.
pub fn header_bytes(file: &[u8]) -> Option<u64> {
    if file.starts_with(gguf::MAGIC) {
        return gguf::header_bytes(file);
    }
    let (length, _) = file.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u64::from_le_bytes(*length);
    (length <= MAX_HEADER_BYTES).then_some(LENGTH_BYTES as u64 + length)
}

/// The JSON text between the length and the first tensor.
fn header_json<'a>(path: &Path, file: &'a [u8]) -> Result<&'a [u8]> {
    if let Some(kind) = kind_of_bytes(file) {
        return Err(Error::model(format!("{}: {}", path.display(), kind.what), kind.hint));
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        let found = format!("it has only {} bytes, too few for a safetensors file", file.len());
        return Err(damaged(path, found));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        let hint = "give a .safetensors file; if this should be one, delete it and run again";
        let what = format!(
            "{}: not a safetensors file (its first 8 bytes announce a header of {length} bytes)",
            path.display()
        );
        return Err(Error::model(what, hint));
    }
    // Below 10^8, so it fits any usize.
    let length = length as usize;
    rest.get(..length).ok_or_else(|| {
        let found = format!("its header of {length} bytes reaches beyond the end of the file, at {} bytes", file.len());
        damaged(path, found)
    })
}

/// Every byte after the header belongs to exactly one tensor. `entries` are sorted by their first byte.
fn check_cover(path: &Path, entries: &[Entry], data: usize, file_len: usize) -> Result<()> {
    let mut end = data;
    for (i, entry) in entries.iter().enumerate() {
        let before = i.checked_sub(1).map_or("the header", |i| entries[i].name.as_str());
        if entry.bytes.start < end {
            return Err(damaged(path, format!("tensor {} overlaps {before}", entry.name)));
        }
        if entry.bytes.start > end {
            let gap = entry.bytes.start - end;
            return Err(damaged(
                path,
                format!("{gap} bytes between {before} and tensor {} belong to nothing", entry.name),
            ));
        }
        end = entry.bytes.end;
    }
    check_cut(path, end, file_len)?;
    if end < file_len {
        return Err(damaged(
            path,
            format!("{} after the last tensor belong to no tensor", human_bytes((file_len - end) as u64)),
        ));
    }
    Ok(())
}

/// A file whose last tensor ends at `end` was not cut short.
pub(super) fn check_cut(path: &Path, end: usize, file_len: usize) -> Result<()> {
    if end <= file_len {
        return Ok(());
    }
    let (found, whole) = (human_bytes(file_len as u64), human_bytes(end as u64));
    let exact = found == whole || end < 1000;
    let ends = if exact { format!("{file_len} of {end} bytes") } else { format!("{found} of {whole}") };
    let what = format!("{} ends at {ends}", path.display());
    Err(Error::model(what, "the download or copy was cut short; delete the file and run again"))
}

/// A file that is not what it says it is.
pub(super) fn damaged(path: &Path, found: impl fmt::Display) -> Error {
    Error::model(format!("{}: {found}", path.display()), FETCH_AGAIN)
}

/// A tensor as the JSON describes it, unchecked.
#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl RawEntry {
    fn check(self, path: &Path, name: String, data: usize) -> Result<Entry> {
        let Self { dtype: dtype_name, shape, data_offsets: (start, end) } = self;
        let dtype = parse_dtype(&dtype_name).ok_or_else(|| {
            let what = format!("{}: tensor {name} has the unknown number type {dtype_name}", path.display());
            Error::model(what, "give a file in F32, BF16, F16 or F8_E4M3")
        })?;
        let size = byte_size(&shape, dtype)
            .ok_or_else(|| damaged(path, format!("tensor {name} has an impossible shape {shape:?}")))?;
        let absolute = |offset: usize| data.checked_add(offset);
        let (Some(first), Some(last)) = (absolute(start), absolute(end)) else {
            return Err(damaged(path, format!("tensor {name} lies at impossible offsets {start}..{end}")));
        };
        if first.checked_add(size) != Some(last) {
            let what = format!(
                "tensor {name} {shape:?} in {dtype_name} takes {size} bytes, but its offsets are {start}..{end}"
            );
            return Err(damaged(path, what));
        }
        Ok(Entry { name, dtype: NumberType::Plain(dtype), shape, bytes: first..last })
    }
}

/// Bytes of a tensor, `None` when no file could hold it.
fn byte_size(shape: &[usize], dtype: Dtype) -> Option<usize> {
    let elements = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    (bits % 8 == 0).then_some(bits / 8)
}

fn parse_dtype(name: &str) -> Option<Dtype> {
    Dtype::deserialize(StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}

/// The JSON object of a header; unlike a map of serde's it refuses a name that comes twice.
struct RawHeader {
    entries: Vec<(String, RawEntry)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
        let mut seen = HashSet::new();
        let (mut entries, mut metadata) = (Vec::new(), BTreeMap::new());
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name} comes twice")));
            }
            if name == "__metadata__" {
                Texts(metadata) = map.next_value()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(RawHeader { entries, metadata })
    }
}

/// The texts of an object, and nothing of whatever else stands there: a header may be large.
#[derive(Default)]
struct Texts(BTreeMap<String, String>);

/// A text, or anything else.
struct Loose(Option<String>);

/// Reads a text, or the texts of an object's entries; of all else nothing.
struct LooseVisitor;

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor).map(|(text, _)| Self(text))
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor).map(|(_, texts)| texts)
    }
}

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = (Option<String>, Texts);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok((Some(text.to_owned()), Texts::default()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut texts = Texts::default();
        while let Some((key, Loose(text))) = map.next_entry()? {
            texts.0.extend(text.map(|text| (key, text)));
        }
        Ok((None, texts))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Default::default())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(Default::default())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(Default::default())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(Default::default())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(Default::default())
    }

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<Self::Value, E> {
        Ok(Default::default())
    }
}
