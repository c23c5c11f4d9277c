//! Temporary files: each is removed however the process ends, and gets its name in one step.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::atomic::numbered;

/// Every temporary file of this process. `None` after [`remove_temporary_files`]: then no new one may come.
static TEMPORARY: Mutex<Option<Vec<PathBuf>>> = Mutex::new(Some(Vec::new()));

/// The folder of files that nobody asked for, beside those that were.
pub const HIDDEN_FOLDER: &str = ".dype";

/// Characters of the final name that the temporary one repeats: at most 4 bytes each, far below any system's limit.
const REPEATED_CHARS: usize = 40;

/// Removes every temporary file of this process and lets no new one come: for the end of an interrupted run, from any thread.
pub fn remove_temporary_files() {
    for path in registry().take().unwrap_or_default() {
        // What is gone already needs no removing, and there is nobody left to tell.
        let _ = fs::remove_file(&path);
        // A folder for such files that is empty now goes with them.
        if let Some(folder) = path.parent().filter(|folder| folder.ends_with(HIDDEN_FOLDER)) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Removes the temporary files in a folder whose processes are gone, and returns how many there were.
///
/// A process holds a lock on each temporary file until that file has its name or is gone; the system frees it however the
/// process ends, on this machine or another that shares the folder. Where the file system knows no locks, a temporary file
/// is taken for left behind when nobody has written to it for a day.
pub fn remove_stale_files(folder: &Path) -> usize {
    take_stale(folder, |_| true, |_| ()).len()
}

/// Removes those of them whose names are `wanted`, and returns what `read` makes of each before it goes.
pub(super) fn take_stale<T>(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
    mut read: impl FnMut(&mut File) -> T,
) -> Vec<T> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_ours = |name: &str| is_temporary_name(name) && wanted(name);
    let temporary = entries.flatten().filter(|entry| is_ours(&entry.file_name().to_string_lossy()));
    temporary.filter_map(|entry| take_if_stale(&entry.path(), &mut read)).collect()
}

/// `.NAME.dype-PID-N.tmp`
fn is_temporary_name(name: &str) -> bool {
    let numbers =
        name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).and_then(|n| n.rsplit_once(".dype-"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.and_then(|(_, numbers)| numbers.split_once('-')).is_some_and(|(pid, n)| is_number(pid) && is_number(n))
}

fn take_if_stale<T>(path: &Path, read: &mut impl FnMut(&mut File) -> T) -> Option<T> {
    const LONG_AGO: Duration = Duration::from_secs(24 * 3600);
    let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let is_stale = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > LONG_AGO)
        }
    };
    if !is_stale {
        return None;
    }
    let found = read(&mut file);
    fs::remove_file(path).is_ok().then_some(found)
}

fn registry() -> MutexGuard<'static, Option<Vec<PathBuf>>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file, removed when this goes out of scope.
pub struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<(Self, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name: String = name.chars().take(REPEATED_CHARS).collect();
        // Held over the creation: whoever removes all temporary files misses none.
        let mut registry = registry();
        let Some(paths) = registry.as_mut() else { return Err(io::ErrorKind::Interrupted.into()) };
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".{name}.dype-{}-{count}.tmp", std::process::id()));
            match create_new(&path) {
                // Another process looked for what dead ones left in the moment between creation and lock.
                Ok(file) if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !path.exists() => {}
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
    pub(super) fn replace(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }

    /// Gives the file the name with this number, else the first free one of `path`, `path_2`, ...
    pub(super) fn publish_beside(self, path: &Path, preferred: u64) -> io::Result<PathBuf> {
        for number in std::iter::once(preferred).chain(1..) {
            let candidate = numbered(path, number);
            match self.claim(&candidate) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| candidate),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
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
    fn only_what_a_dead_process_left_is_stale() {
        let folder = tempfile::tempdir().expect("a folder");
        let (alive, file) = Temporary::create(folder.path(), "a.png").expect("created");
        let left = folder.path().join(".a.png.dype-4000000-0.tmp");
        let others = [".a.png.dype-x-0.tmp", "a.png.dype-1-0.tmp", ".hidden.tmp", "a.png"];
        for name in others.iter().map(|name| folder.path().join(name)).chain([left.clone()]) {
            fs::write(name, "half a").expect("written");
        }
        assert_eq!(remove_stale_files(folder.path()), 1);
        assert!(alive.path.exists() && !left.exists());
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
        drop(file);
        assert_eq!(remove_stale_files(folder.path()), 1, "the lock went with the handle");
    }
}
