//! Whether the disk has what was written.
//!
//! Some file systems (SMB, FUSE, shares of virtual machines) cannot say: they answer `fsync` with "not supported" in one word or
//! another. Such a file is as good as the system can make it, and kept; an answer that names a fault of the disk is an error.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// What is asked of the disk before a file counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// That it says the bytes are there, where it can say so at all.
    Demanded,
    /// That it tries: for the copy of last resort, which is worth keeping whatever the disk says.
    Tried,
}

/// What to tell of the first file system of this process that cannot say whether files are on the disk.
static UNCONFIRMED: OnceLock<String> = OnceLock::new();

/// What to tell of the first file that a file system could not confirm; once a process.
pub fn take_unconfirmed() -> Option<String> {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    UNCONFIRMED.get().filter(|_| !IS_TOLD.swap(true, Ordering::Relaxed)).cloned()
}

/// Brings a file of `folder` to the disk.
pub(super) fn confirm(file: &File, folder: &Path, asked: Confirmation) -> io::Result<()> {
    match sync(file) {
        Err(error) if asked == Confirmation::Tried || means_unsupported(&error) => {
            note(folder, &error);
            flush_by_closing(file)
        }
        other => other,
    }
}

fn note(folder: &Path, error: &io::Error) {
    UNCONFIRMED.get_or_init(|| {
        format!(
            "the file system of {} cannot say whether files are on the disk (fsync: {error}); they are kept, and a power cut in the \
             next moments could still take them",
            folder.display()
        )
    });
}

#[cfg(not(target_vendor = "apple"))]
fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// On these systems the library asks the drive to empty its own cache too, which network shares cannot do.
#[cfg(target_vendor = "apple")]
fn sync(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    match file.sync_all() {
        // SAFETY: the descriptor is open as long as the file is.
        Err(error) if means_unsupported(&error) => match unsafe { libc::fsync(file.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
        other => other,
    }
}

/// Whether an answer to `fsync` says that the file system does not do that, not that anything went wrong. ENOTTY is what macOS
/// says of some shares.
fn means_unsupported(error: &io::Error) -> bool {
    let by_number = match error.raw_os_error() {
        #[cfg(unix)]
        Some(number) => [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOTTY].contains(&number),
        // ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED.
        #[cfg(windows)]
        Some(number) => [1, 50].contains(&number),
        _ => false,
    };
    by_number || error.kind() == ErrorKind::Unsupported
}

/// What a file system without `fsync` knows of a full or broken disk, it says when a file is closed: so one more handle is.
#[cfg(unix)]
fn flush_by_closing(file: &File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    let handle = file.try_clone()?.into_raw_fd();
    // SAFETY: the descriptor is ours alone and not used again, whatever the system answers.
    match unsafe { libc::close(handle) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(unix))]
fn flush_by_closing(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_mean_unsupported_are_forgiven() {
        let forgiven = |number| means_unsupported(&io::Error::from_raw_os_error(number));
        for number in [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOTSUP] {
            assert!(forgiven(number), "{number}");
        }
        for number in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EBADF, libc::ESTALE, libc::EPERM] {
            assert!(!forgiven(number), "{number}");
        }
    }
}
