//! Users' own folders, as Python's `os.path.expanduser` finds them: the variable first, then the system's list of users.

use std::{env, ffi::OsStr, path::PathBuf};

/// The folder of whoever runs this process: `HOME` (on Windows `USERPROFILE`), else what the system's list of users says; `None`
/// where neither knows one, as for a user of a container that is a bare number.
pub fn folder() -> Option<PathBuf> {
    let is_said = |folder: &PathBuf| !folder.as_os_str().is_empty();
    env::home_dir().filter(is_said).or_else(own).filter(is_said)
}

/// The folder of the user with this name.
pub fn of_user(name: &OsStr) -> Option<PathBuf> {
    system::of_user(name)
}

/// What the system's list of users says of whoever runs this process.
fn own() -> Option<PathBuf> {
    system::own()
}

#[cfg(unix)]
mod system {
    use std::{
        ffi::{CStr, CString, OsStr},
        mem::MaybeUninit,
        os::unix::ffi::OsStrExt,
        path::PathBuf,
        ptr,
    };

    pub fn own() -> Option<PathBuf> {
        // SAFETY: it only tells a number.
        let user = unsafe { libc::geteuid() };
        // SAFETY: entry, text with its length and found are what the call asks for.
        entry(|entry, text, length, found| unsafe { libc::getpwuid_r(user, entry, text, length, found) })
    }

    pub fn of_user(name: &OsStr) -> Option<PathBuf> {
        let name = CString::new(name.as_bytes()).ok()?;
        // SAFETY: as above, and the name is a C string that outlives the call.
        entry(|entry, text, length, found| unsafe { libc::getpwnam_r(name.as_ptr(), entry, text, length, found) })
    }

    /// The folder of the entry that `look` finds and fills, with its text in the buffer it is given.
    fn entry(
        look: impl FnOnce(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
    ) -> Option<PathBuf> {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let (mut text, mut found) = (vec![0; 16 << 10], ptr::null_mut());
        look(entry.as_mut_ptr(), text.as_mut_ptr(), text.len(), &raw mut found);
        if found.is_null() {
            return None;
        }
        // SAFETY: `found` points to the entry, which is filled now; its strings lie in `text`, which is still here.
        let folder = unsafe { CStr::from_ptr((*found).pw_dir) };
        Some(OsStr::from_bytes(folder.to_bytes()).into())
    }
}

#[cfg(not(unix))]
mod system {
    use std::{ffi::OsStr, path::PathBuf};

    pub fn own() -> Option<PathBuf> {
        None
    }

    pub fn of_user(_name: &OsStr) -> Option<PathBuf> {
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_systems_list_knows_root_and_whoever_runs_this() {
        let list = std::fs::read_to_string("/etc/passwd").expect("the list of users");
        let field = |line: &str, at: usize| line.split(':').nth(at).expect("seven fields").to_owned();
        let root = list.lines().find(|line| line.starts_with("root:")).expect("root");
        assert_eq!(of_user(OsStr::new("root")), Some(field(root, 5).into()));
        assert_eq!(of_user(OsStr::new("no-such-user-here")), None);
        // SAFETY: it only tells a number.
        let user = unsafe { libc::geteuid() }.to_string();
        if let Some(line) = list.lines().find(|line| field(line, 2) == user) {
            assert_eq!(own(), Some(field(line, 5).into()));
        }
    }
}
