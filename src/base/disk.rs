//! The room on a disk.

use std::path::Path;

/// Bytes free for this user on the disk that holds `path` or will hold it; `None` where the system does not say.
pub fn free_bytes_at(path: &Path) -> Option<u64> {
    free_bytes(existing(path))
}

/// The path itself, or the nearest folder above it that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."))
}

/// Whether two paths are, or will be, on the same disk; `false` where the system does not say.
pub fn is_same_disk(one: &Path, other: &Path) -> bool {
    matches!((disk_of(one), disk_of(other)), (Some(one), Some(other)) if one == other)
}

#[cfg(unix)]
fn disk_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::metadata(existing(path)).ok()?.dev())
}

#[cfg(not(unix))]
fn disk_of(_path: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
#[allow(clippy::unnecessary_cast, reason = "these fields are narrower than u64 on some systems")]
fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string and `stat` has room for what statvfs writes; both outlive the call.
    let failed = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0;
    if failed {
        return None;
    }
    // SAFETY: statvfs succeeded, so it has filled the whole structure.
    let stat = unsafe { stat.assume_init() };
    Some((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn free_space_is_known_before_the_folder_exists() {
        let free = free_bytes_at(Path::new("/no/such/folder/yet")).expect("a number");
        assert!(free > 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_path_that_is_not_there_yet_is_on_the_disk_of_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(is_same_disk(folder.path(), &folder.path().join("a/b.gguf")));
        assert!(is_same_disk(Path::new("b.gguf"), Path::new(".")));
        assert!(!is_same_disk(folder.path(), Path::new("/proc/b.gguf")));
    }
}
