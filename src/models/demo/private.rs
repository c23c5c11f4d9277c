//! A folder among everybody's temporary files that is one user's alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Most names that are tried.
const NAMES: u32 = 100;

/// The folder of this user in `parent`, made when it is not there. A name that is taken by anything but a folder that only this
/// user can use (a file, a link, another's folder) is passed over for the next.
pub(super) fn folder(parent: &Path) -> io::Result<PathBuf> {
    for number in 0..NAMES {
        let path = parent.join(system::name(number));
        match system::create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir() && system::is_ours_alone(&data)) {
                    return Ok(path);
                }
            }
            other => return other.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(unix)]
mod system {
    use std::{
        fs::{DirBuilder, Metadata},
        io,
        os::unix::fs::{DirBuilderExt, MetadataExt},
        path::Path,
    };

    fn user() -> u32 {
        // SAFETY: it only tells a number.
        unsafe { libc::geteuid() }
    }

    pub fn name(number: u32) -> String {
        let user = user();
        if number == 0 { format!("dype-{user}") } else { format!("dype-{user}-{number}") }
    }

    pub fn create(path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    pub fn is_ours_alone(data: &Metadata) -> bool {
        data.uid() == user() && data.mode() & 0o077 == 0
    }
}

/// Elsewhere the folder of temporary files is the user's own.
#[cfg(not(unix))]
mod system {
    use std::{
        fs::{self, Metadata},
        io,
        path::Path,
    };

    pub fn name(number: u32) -> String {
        if number == 0 { "dype".into() } else { format!("dype-{number}") }
    }

    pub fn create(path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    pub fn is_ours_alone(_data: &Metadata) -> bool {
        true
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_could_use_is_passed_over() {
        let parent = tempfile::tempdir().expect("a folder");
        let named = |number| parent.path().join(system::name(number));
        fs::write(named(0), "a file").expect("written");
        symlink("/", named(1)).expect("linked");
        fs::create_dir(named(2)).expect("made");
        fs::set_permissions(named(2), fs::Permissions::from_mode(0o777)).expect("opened to all");
        assert_eq!(folder(parent.path()).expect("the next"), named(3));
        assert_eq!(fs::metadata(named(3)).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(folder(parent.path()).expect("again"), named(3), "its own is used again");
        folder(&parent.path().join("missing")).expect_err("no such parent");
    }
}
