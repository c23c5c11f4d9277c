//! Files that are whole or not there: written under a temporary name in the same folder, then given their own.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{
    confirm::{Confirmation, confirm},
    place::{behind_links, is_stdout, is_stream},
    temporary::Temporary,
};
use crate::{
    base::paths::parent,
    error::{Error, Result},
};

/// How a file comes to its name.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    /// Which of its name it is: 1 is the name itself, 2 is `name_2`, ...
    pub number: u64,
    /// Whether what bears that name is replaced; else a taken name is left, for the first free one of `name`, `name_2`, ...
    pub overwrite: bool,
    /// What is asked of the disk.
    pub confirmation: Confirmation,
}

/// Writes a file through `write` and gives it the name `path` when it is complete and on the disk; returns the name it got.
///
/// Without `overwrite` an existing file is kept and the new one becomes `name_2.ending`, `name_3.ending`, ...; of several
/// processes that want one name, each gets its own. With it, a symbolic link stays and what it points to is replaced. A missing
/// folder is created. On any error nothing is left behind. A stream ([`is_stream`]) gets the bytes as they come.
///
/// # Errors
/// [`Error::Request`] when `path` names no file; [`Error::Disk`] when the file cannot be written.
pub fn write_atomically(
    path: &Path,
    overwrite: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<PathBuf> {
    write_named(path, Naming { number: 1, overwrite, confirmation: Confirmation::Demanded }, write)
}

/// As [`write_atomically`], for a file that comes to its name in this way.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_named(
    path: &Path,
    naming: Naming,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<PathBuf> {
    let failed = |error| Error::disk("cannot write", path, error);
    if is_stream(path) {
        write_stream(path, write).map_err(failed)?;
        return Ok(path.to_path_buf());
    }
    let Naming { number, overwrite, confirmation } = naming;
    let asked = numbered(path, number);
    let place = if overwrite { behind_links(&asked).map_err(failed)? } else { path.to_path_buf() };
    let Some(name) = place.file_name() else {
        return Err(Error::request(format!("{:?} names no file", path), "add a file name"));
    };
    let folder = parent(&place);
    fs::create_dir_all(folder).map_err(|e| Error::disk("cannot create", folder, e))?;
    let (temporary, file) = Temporary::create(folder, &name.to_string_lossy()).map_err(failed)?;
    let mut file = BufWriter::new(file);
    write(&mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    confirm(&file, folder, confirmation).map_err(failed)?;
    let published =
        if overwrite { temporary.replace(&place).map(|()| asked) } else { temporary.publish_beside(&place, number) };
    let published = published.map_err(failed)?;
    // Only now may another process take the temporary name for one that a dead process left.
    drop(file);
    // So that the name survives a power cut as well. Not every system can do this, and the file itself is safe.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(published)
}

fn write_stream(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let stream: &mut dyn Write = if is_stdout(path) {
        &mut io::stdout().lock()
    } else {
        // A named pipe waits here for its reader.
        &mut OpenOptions::new().write(true).open(path)?
    };
    let mut stream = BufWriter::new(stream);
    write(&mut stream)?;
    stream.flush()
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

/// `name.ending` for 1, `name_2.ending` for 2, and so on.
pub fn numbered(path: &Path, number: u64) -> PathBuf {
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
    fn a_numbered_file_gets_its_name_or_the_first_free_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.png");
        let write = |number, overwrite| {
            let naming = Naming { number, overwrite, confirmation: Confirmation::Demanded };
            let made = write_named(&path, naming, |file| file.write_all(&[0]));
            made.expect("written").file_name().map(|name| name.to_string_lossy().into_owned())
        };
        for (number, overwrite, name) in [
            (3, false, "a_3.png"),
            (3, false, "a.png"),
            (1, false, "a_2.png"),
            (3, true, "a_3.png"),
            (1, true, "a.png"),
        ] {
            assert_eq!(write(number, overwrite).as_deref(), Some(name));
        }
    }

    #[test]
    fn numbers_go_before_the_ending() {
        for (path, expected) in [("a/b.c.png", "a/b.c_2.png"), ("b", "b_2"), (".png", ".png_2")] {
            assert_eq!(numbered(Path::new(path), 2), Path::new(expected));
        }
    }
}
