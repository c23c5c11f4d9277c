//! Where a file goes: into a folder under its own name, through a symbolic link, or into a stream (stdout, a pipe, a device).

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{atomic, numbered};
use crate::{
    base::paths,
    error::{Error, Result},
};

/// Symbolic links that are followed in a row, as Linux does.
const MOST_LINKS: usize = 40;

/// Whether a path means this process's stdout: `-`, or one of the names that Unix systems have for it.
pub fn is_stdout(path: &Path) -> bool {
    let names = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
    names.iter().any(|name| path == Path::new(name))
}

/// Whether what is written to a path goes to whoever reads it, and stays nowhere: stdout, a named pipe, a device, or an open
/// file of a process (`/dev/fd/63`, as shells name it for `>(command)`).
pub fn is_stream(path: &Path) -> bool {
    is_stdout(path) || is_open_file(path) || fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir())
}

fn is_open_file(path: &Path) -> bool {
    let Some(parent) = path.parent() else { return false };
    cfg!(unix)
        && (path == Path::new("/dev/stderr")
            || parent == Path::new("/dev/fd")
            || (parent.starts_with("/proc") && parent.ends_with("fd")))
}

/// The folder of a file; for a stream the one the program runs in, where what is kept on the way goes.
pub fn folder_of(path: &Path) -> &Path {
    if is_stream(path) { Path::new(".") } else { paths::parent(path) }
}

/// What is written when `path` may be overwritten: where it is a symbolic link, what it points to, there or not.
pub(super) fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if !fs::symlink_metadata(&path).is_ok_and(|data| data.is_symlink()) {
            return Ok(path);
        }
        let target = fs::read_link(&path)?;
        path = path.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
    }
    Err(io::Error::new(ErrorKind::NotFound, "too many symbolic links in a row"))
}

/// Makes sure that a file could get its name, or the first free one behind it, and its folder be written to: worth asking
/// before a run. A missing folder is created; folders in `checked` are known to be writable, and this one comes to them.
///
/// # Errors
/// [`Error::Request`] for a name that the file system cannot have; [`Error::Disk`] when the folder cannot be written to.
pub fn check_place(path: &Path, number: u64, overwrite: bool, checked: &mut HashSet<PathBuf>) -> Result<()> {
    if is_stream(path) {
        return Ok(());
    }
    let path =
        if overwrite { behind_links(path).map_err(|e| Error::disk("cannot write", path, e))? } else { path.into() };
    let parent = paths::parent(&path);
    if !checked.contains(parent) {
        check_name(parent)?;
        atomic::check_writable(parent)?;
        checked.insert(parent.to_path_buf());
    }
    for number in number.. {
        let candidate = numbered(&path, number);
        if !check_name(&candidate)? || overwrite {
            break;
        }
    }
    Ok(())
}

/// What a name and a path may have on most systems.
const NAME_BYTES: usize = 255;
const PATH_BYTES: usize = 4095;

/// Whether something bears this name.
fn check_name(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::InvalidFilename => {
            let name = path.iter().max_by_key(|name| name.len()).unwrap_or_default();
            if name.len() <= NAME_BYTES && path.as_os_str().len() > PATH_BYTES {
                let what = format!("a path of {} bytes is too long (most systems take 4095)", path.as_os_str().len());
                return Err(Error::request(
                    what,
                    "change into one of its folders first, or name it shorter, with --output",
                ));
            }
            let what = format!(
                "the name {} is too long for its file system, with {} bytes (most take 255)",
                shortened(&name.to_string_lossy()),
                name.len()
            );
            Err(Error::request(what, "name it shorter, with --output"))
        }
        Err(_) => Ok(false),
    }
}

/// A name that fills no screen.
fn shortened(name: &str) -> String {
    const SHOWN: usize = 40;
    let start: String = name.chars().take(SHOWN).collect();
    if start.len() < name.len() { format!("{start}...") } else { start }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn streams_are_told_from_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.png");
        for path in
            [&file, &file.join("below"), Path::new("a/-"), Path::new("./-"), Path::new("/dev/shm/x.png"), folder.path()]
        {
            assert!(!is_stream(path), "{}", path.display());
        }
        for path in ["-", "/dev/null", "/dev/stdout", "/dev/fd/63", "/proc/self/fd/63", "/proc/1/fd/2", "/dev/stderr"] {
            assert!(is_stream(Path::new(path)), "{path}");
        }
        symlink("/dev/null", &file).expect("linked");
        assert!(is_stream(&file), "what a link points to counts");
        assert_eq!(folder_of(&file), Path::new("."));
        assert_eq!(folder_of(Path::new("a/b.png")), Path::new("a"));
    }

    #[test]
    fn links_are_followed_to_what_is_not_there_yet_and_never_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        symlink("b", path("a")).expect("linked");
        symlink("c/d.png", path("b")).expect("linked");
        assert_eq!(behind_links(&path("a")).expect("followed"), path("c/d.png"));
        symlink(path("e"), path("f")).expect("linked");
        symlink("f", path("e")).expect("linked");
        assert!(behind_links(&path("e")).is_err());
    }

    #[test]
    fn names_that_no_file_can_have_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let check_place = |path: &Path, number, overwrite| check_place(path, number, overwrite, &mut HashSet::new());
        let named = |length: usize| folder.path().join(format!("{}.png", "x".repeat(length - 4)));
        check_place(&named(255), 1, false).expect("fits");
        check_place(&named(255), 2, true).expect_err("_2 does not fit");
        let error = check_place(&named(256), 1, false).expect_err("too long");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("256 bytes"), "{error}");
        fs::write(named(254), "").expect("written");
        check_place(&named(254), 1, true).expect("its own name");
        check_place(&named(254), 1, false).expect_err("taken, and the next is too long");
        for (path, bytes) in [("a/".repeat(2_100) + "x.png", 4_204), (format!("{}/a.png", "y".repeat(300)), 300)] {
            let error = check_place(Path::new(&path), 1, false).expect_err("too long");
            assert!(error.to_string().contains(&bytes.to_string()) || bytes > 4_095, "{error}");
            assert_eq!((error.exit_code(), error.to_string().contains("a path of")), (2, bytes > 4_095), "{error}");
        }
        let umlauts = folder.path().join(format!("{}.png", "ü".repeat(130)));
        assert!(check_place(&umlauts, 1, false).expect_err("bytes count").to_string().contains("264 bytes"));
        check_place(&named(256).join("x.png"), 1, false).expect_err("folders have names too");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left of it");
    }
}
