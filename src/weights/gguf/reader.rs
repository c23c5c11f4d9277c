//! The bytes of a GGUF header, value by value: no length is believed that the rest of the file does not hold.

use std::{fmt, path::Path};

use super::super::header::damaged;
use crate::error::{Error, Result};

// Types of values. Source: ggml, docs/gguf.md, `gguf_metadata_value_type`.
pub(in crate::weights) const U32: u32 = 4;
pub(in crate::weights) const I32: u32 = 5;
pub(in crate::weights) const F32: u32 = 6;
const BOOL: u32 = 7;
pub(in crate::weights) const STRING: u32 = 8;
pub(in crate::weights) const ARRAY: u32 = 9;
pub(super) const U64: u32 = 10;
pub(super) const I64: u32 = 11;
const F64: u32 = 12;

/// Bytes of a value of this type, where all have as many.
pub(super) fn width_of(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | BOOL => Some(1),
        2 | 3 => Some(2),
        U32 | I32 | F32 => Some(4),
        U64 | I64 | F64 => Some(8),
        _ => None,
    }
}

/// A header on its way from its first byte to its last.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    file: &'a [u8],
    pub(super) at: usize,
    /// Whether it asked for more than is there.
    pub(super) is_short: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, file: &'a [u8]) -> Self {
        Self { path, file, at: 0, is_short: false }
    }

    pub(super) fn broken(&self, found: impl fmt::Display) -> Error {
        damaged(self.path, found)
    }

    /// Bytes that are left.
    fn left(&self) -> u64 {
        (self.file.len() - self.at) as u64
    }

    pub(super) fn take(&mut self, bytes: u64) -> Result<&'a [u8]> {
        if bytes > self.left() {
            self.is_short = true;
            let (at, all) = (self.at, self.file.len());
            return Err(self.broken(format!("its header asks for {bytes} bytes at {at}, the file ends at {all}")));
        }
        let start = self.at;
        self.at += bytes as usize;
        Ok(&self.file[start..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things of at least so many bytes each, which the rest of the file can hold.
    pub(super) fn count(&mut self, what: &str, least: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > self.left() / least {
            self.is_short = true;
            let left = self.left();
            return Err(self.broken(format!("its header announces {count} {what}, but only {left} bytes follow")));
        }
        Ok(count)
    }

    pub(super) fn string(&mut self) -> Result<&'a str> {
        let bytes = self.u64()?;
        let text = self.take(bytes)?;
        std::str::from_utf8(text).map_err(|_| self.broken(format!("the name before byte {} is not UTF-8", self.at)))
    }

    /// A value that is a whole number, not below 0.
    pub(super) fn whole(&mut self, key: &str, kind: u32) -> Result<u64> {
        let width = width_of(kind).filter(|_| !matches!(kind, F32 | F64 | BOOL));
        let Some(width) = width else { return Err(self.broken(format!("its {key} is no whole number (type {kind})"))) };
        let mut bytes = [0; 8];
        // A negative one is more than anything is counted to.
        bytes[..width as usize].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, key: &str, kind: u32) -> Result<()> {
        match kind {
            STRING => self.skip_string(),
            ARRAY => {
                let kind = self.u32()?;
                match width_of(kind) {
                    Some(width) => {
                        let count = self.count("values", width)?;
                        self.take(count * width).map(drop)
                    }
                    None if kind == STRING => {
                        let count = self.count("texts", 8)?;
                        (0..count).try_for_each(|_| self.skip_string())
                    }
                    None if kind == ARRAY => Err(self.broken(format!("its key {key:?} is an array of arrays"))),
                    None => Err(self.broken(format!("its key {key:?} is an array of the unknown type {kind}"))),
                }
            }
            _ => match width_of(kind) {
                Some(width) => self.take(width).map(drop),
                None => Err(self.broken(format!("its key {key:?} has the unknown type {kind}"))),
            },
        }
    }

    /// Tokens of a vocabulary need not be UTF-8.
    fn skip_string(&mut self) -> Result<()> {
        let bytes = self.u64()?;
        self.take(bytes).map(drop)
    }
}
