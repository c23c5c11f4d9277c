//! Files that are whole or not there: written under a temporary name in the same folder, then given their own.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::error::{Error, Result};

/// Every temporary file of this process. `None` after [`remove_temporary_files`]: then no new one may come.
static TEMPORARY: Mutex<Option<Vec<PathBuf>>> = Mutex::new(Some(Vec::new()));

/// Characters of the final name that the temporary one repeats: at most 4 bytes each, far below any system's limit.
const REPEATED_CHARS: usize = 40;

/// Writes a file through `write` and gives it the name `path` when it is complete and on the disk; returns the name it got.
///
/// Without `overwrite` an existing file is kept and the new one becomes `name_2.ending`, `name_3.ending`, ...; of several
/// processes that want one name, each gets its own. A missing folder is created. On any error nothing is left behind.
///
/// # Errors
/// [`Error::Request`] when `path` names no file; [`Error::Disk`] when the file cannot be written.
pub fn write_atomically(
    path: &Path,
    overwrite: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::request(format!("{:?} names no file", path), "add a file name"));
    };
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|e| Error::disk("cannot create", folder, e))?;
    let failed = |error| Error::disk("cannot write", path, error);
    let (temporary, file) = Temporary::create(folder, &name.to_string_lossy()).map_err(failed)?;
    let mut file = BufWriter::new(file);
    write(&mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    drop(file);
    let published = if overwrite { temporary.replace(path) } else { temporary.publish_beside(path) };
    let published = published.map_err(failed)?;
    // So that the name survives a power cut as well. Not every system can do this, and the file itself is safe.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(published)
}

/// Makes sure that files can be written to a folder, and creates it when it is missing: worth asking before a run.
///
/// # Errors
/// [`Error::Disk`] when it cannot be created or written to.
pub fn check_writable(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::create_dir_all(folder).map_err(|e| Error::disk("cannot create the folder", folder, e))?;
    Temporary::create(folder, "probe").map_err(|e| Error::disk("cannot write to the folder", folder, e))?;
    Ok(())
}

/// Removes every temporary file of this process and lets no new one come: for the end of an interrupted run, from any thread.
pub fn remove_temporary_files() {
    for path in registry().take().unwrap_or_default() {
        // What is gone already needs no removing, and there is nobody left to tell.
        let _ = fs::remove_file(path);
    }
}

fn registry() -> MutexGuard<'static, Option<Vec<PathBuf>>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A temporary file, removed when this goes out of scope.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn create(folder: &Path, name: &str) -> io::Result<(Self, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name: String = name.chars().take(REPEATED_CHARS).collect();
        // Held over the creation: whoever removes all temporary files misses none.
        let mut registry = registry();
        let Some(paths) = registry.as_mut() else { return Err(io::ErrorKind::Interrupted.into()) };
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".{name}.dype-{}-{count}.tmp", std::process::id()));
            match create_new(&path) {
                Ok(file) => {
                    paths.push(path.clone());
                    return Ok((Self { path }, file));
                }
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file its name, whatever bore it before.
    fn replace(self, path: &Path) -> io::Result<PathBuf> {
        fs::rename(&self.path, path)?;
        Ok(path.to_path_buf())
    }

    /// Gives the file the first free name of `path`, `path_2`, ...
    fn publish_beside(self, path: &Path) -> io::Result<PathBuf> {
        let mut number = 1;
        loop {
            let candidate = numbered(path, number);
            match self.claim(&candidate) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                other => return other.map(|()| candidate),
            }
        }
    }

    /// Gives the file a name that must be free. A hard link does that in one step; rename would overwrite.
    fn claim(&self, candidate: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, candidate) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && self.path.exists() => {
                self.claim_without_links(candidate)
            }
            other => other,
        }
    }

    /// As [`Temporary::claim`], on file systems without hard links (exFAT, some network shares): an empty file claims the name.
    fn claim_without_links(&self, candidate: &Path) -> io::Result<()> {
        let _no_interruption_between = registry();
        create_new(candidate)?;
        fs::rename(&self.path, candidate).inspect_err(|_| {
            let _ = fs::remove_file(candidate);
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.path);
        if let Some(paths) = registry().as_mut() {
            paths.retain(|path| *path != self.path);
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// `name.ending` for 1, `name_2.ending` for 2, and so on.
fn numbered(path: &Path, number: u64) -> PathBuf {
    if number == 1 {
        return path.to_path_buf();
    }
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!("_{number}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_claimed_once_even_without_hard_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let (first, _) = Temporary::create(folder.path(), "x").expect("created");
        let (second, _) = Temporary::create(folder.path(), "x").expect("created");
        fs::write(&first.path, "first").expect("written");
        first.claim_without_links(&path).expect("free");
        let taken = second.claim_without_links(&path).expect_err("taken");
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "first");
        fs::remove_file(&second.path).expect("removed");
        assert!(second.claim_without_links(&folder.path().join("y")).is_err());
        assert!(!folder.path().join("y").exists(), "a failed claim is taken back");
    }

    #[test]
    fn numbers_go_before_the_ending() {
        for (path, expected) in [("a/b.c.png", "a/b.c_2.png"), ("b", "b_2"), (".png", ".png_2")] {
            assert_eq!(numbered(Path::new(path), 2), Path::new(expected));
        }
    }
}
