//! One safetensors or GGUF file: its bytes behind a memory map, and the header they begin with.

use std::{
    borrow::Cow,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use super::{
    Ahead, Files, gguf,
    header::{Header, damaged, read_header},
    magic::kind_of_bytes,
};
use crate::error::{Error, Result};

/// One file of tensors.
pub(super) struct Shard {
    path: PathBuf,
    bytes: Bytes,
}

/// Where a file's bytes are.
enum Bytes {
    Mapped(Mmap),
    Held(Cow<'static, [u8]>),
    /// Not here yet, beyond the header.
    Awaited,
}

impl Bytes {
    /// The bytes, where they are here.
    fn here(&self) -> Option<&[u8]> {
        match self {
            Self::Mapped(map) => Some(map),
            Self::Held(bytes) => Some(bytes),
            Self::Awaited => None,
        }
    }
}

impl Shard {
    /// Maps a file, unless it is known before it is here, and reads its header.
    pub(super) fn open(path: &Path, files: &Files) -> Result<(Self, Header)> {
        let Some(ahead) = files.ahead(path) else { return Self::over(path.to_owned(), map(path)?) };
        let (bytes, file_len): (&[u8], usize) = match ahead {
            Ahead::Name => (&[], 0),
            Ahead::Whole(bytes) => (bytes, bytes.len()),
            // What would not fit an address could not be mapped either.
            Ahead::Header { bytes, file_bytes } => (bytes, usize::try_from(*file_bytes).unwrap_or(usize::MAX)),
        };
        let header = header_of(path, bytes, file_len)?;
        Ok((Self { path: path.to_owned(), bytes: Bytes::Awaited }, header))
    }

    /// A file that is in memory already, called `name` in messages.
    pub(super) fn held(name: &str, bytes: Cow<'static, [u8]>) -> Result<(Self, Header)> {
        Self::over(name.into(), Bytes::Held(bytes))
    }

    fn over(path: PathBuf, bytes: Bytes) -> Result<(Self, Header)> {
        let whole = bytes.here().unwrap_or_default();
        let header = header_of(&path, whole, whole.len())?;
        Ok((Self { path, bytes }, header))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is called a GGUF file, of which several are read as their first.
    pub(super) fn is_gguf(&self) -> bool {
        is_called_gguf(&self.path)
    }

    /// Bytes of the tensor `name` as they are in the file.
    pub(super) fn stored(&self, name: &str, range: Range<usize>) -> Result<&[u8]> {
        let Some(bytes) = self.bytes.here() else {
            let path = self.path.display();
            let what = format!("{path}: only the header is here, not the numbers of tensor {name}");
            return Err(Error::model(what, "fetch the model first"));
        };
        // The header's reader has checked that every range lies in its file.
        Ok(bytes.get(range).unwrap_or_default())
    }

    /// Lets the pages of a range go, which come back when they are read again.
    pub(super) fn release(&self, range: &Range<usize>) {
        if let Bytes::Mapped(map) = &self.bytes {
            release_range(map, range);
        }
    }
}

fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(|e| Error::disk("cannot open", path, e))?;
    let metadata = file.metadata().map_err(|e| Error::disk("cannot read", path, e))?;
    if metadata.is_dir() {
        let hint = "give a .safetensors or .gguf file";
        return Err(Error::model(format!("{} is a folder, not a file of tensors", path.display()), hint));
    }
    if metadata.len() == 0 {
        // An empty file cannot be mapped everywhere; the header's reader says that it is empty.
        return Ok(Bytes::Held(Cow::Borrowed(&[])));
    }
    // SAFETY: the map is read-only; a file that another process truncates meanwhile ends this one with SIGBUS.
    Ok(Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(|e| Error::disk("cannot map", path, e))?))
}

/// The header of a file of `file_len` bytes that begins with these.
fn header_of(path: &Path, file: &[u8], file_len: usize) -> Result<Header> {
    if file.starts_with(gguf::MAGIC) {
        return gguf::read_header(path, file, file_len);
    }
    if is_called_gguf(path) && kind_of_bytes(file).is_none() {
        let found: Vec<_> = file.iter().take(gguf::MAGIC.len()).map(|byte| format!("{byte:02x}")).collect();
        return Err(damaged(path, format!("this is no GGUF file: it begins with {}", found.join(" "))));
    }
    read_header(path, file, file_len)
}

fn is_called_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

/// Lets the pages of a range go. Only ever advice: errors are of no consequence.
#[cfg(unix)]
fn release_range(map: &Mmap, range: &Range<usize>) {
    // SAFETY: the map is read-only and backed by a file, so dropped pages come back unchanged when read again.
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
}

#[cfg(not(unix))]
fn release_range(_: &Mmap, _: &Range<usize>) {}
