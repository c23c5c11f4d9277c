//! A file that is still growing: its bytes, its length and its running sha256.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{PlannedFile, cache::create_parent};
use crate::{
    base::hex::{hex, is_sha256},
    error::{Error, Result},
};

/// Read buffer for what an earlier run left.
const BUFFER_BYTES: usize = 1 << 20;

/// The `.incomplete` file of a blob.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    size: u64,
    /// The sha256 the whole must have, where it is known, and that of the bytes so far.
    sha256: Option<(String, Sha256)>,
}

impl Part {
    /// Opens the file, keeping what an earlier run left in it.
    pub(super) fn open(path: PathBuf, planned: &PlannedFile) -> Result<Self> {
        create_parent(&path)?;
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open.map_err(|e| Error::disk("cannot write", &path, e))?;
        let sha256 = is_sha256(&planned.etag).then(|| (planned.etag.clone(), Sha256::new()));
        let mut part = Self { path, file, len: 0, size: planned.size_bytes, sha256 };
        let found = part.file.metadata().map_err(|e| part.failed(e))?.len();
        if found > part.size {
            part.clear()?
        } else {
            part.read_back()?
        }
        Ok(part)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.size
    }

    /// Appends what came; `false`, and nothing appended, when it is more than the file has room for.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<bool> {
        if bytes.len() as u64 > self.size - self.len {
            return Ok(false);
        }
        self.file.write_all(bytes).map_err(|e| self.failed(e))?;
        self.count(bytes);
        Ok(true)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|e| self.failed(e))?;
        self.len = 0;
        if let Some((_, hash)) = &mut self.sha256 {
            hash.reset();
        }
        Ok(())
    }

    /// The sha256 of the full file, if it is not the one it must have.
    pub(super) fn wrong_sha256(&self) -> Option<String> {
        let (expected, hash) = self.sha256.as_ref()?;
        let found = hex(&hash.clone().finalize());
        (found != *expected).then_some(found)
    }

    /// Gives the full and checked file its name.
    pub(super) fn rename(self, to: &Path) -> Result<()> {
        self.file.sync_all().map_err(|e| self.failed(e))?;
        drop(self.file);
        fs::rename(&self.path, to).map_err(|e| Error::disk("cannot write", to, e))
    }

    fn read_back(&mut self) -> Result<()> {
        if self.sha256.is_none() {
            self.len = self.file.seek(SeekFrom::End(0)).map_err(|e| self.failed(e))?;
            return Ok(());
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.file.read(&mut buffer).map_err(|e| self.failed(e))? {
                0 => return Ok(()),
                n => self.count(&buffer[..n]),
            }
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if let Some((_, hash)) = &mut self.sha256 {
            hash.update(bytes);
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::disk("cannot write", &self.path, error)
    }
}
