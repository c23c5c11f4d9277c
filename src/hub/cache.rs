//! The folder layout shared with Python's `huggingface_hub`:
//!
//! ```text
//! models--owner--name/refs/main                 the commit a branch or tag pointed to
//! models--owner--name/snapshots/<commit>/<path> links to ../../blobs/<etag>
//! models--owner--name/blobs/<etag>              the contents, named by their sha256 (large files) or git blob id
//! .locks/models--owner--name/<etag>.lock        held while a blob is being fetched
//! ```

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io,
    path::{Component, Path, PathBuf},
};

use super::{PlannedFile, copies::CopyOf, model_id::HubModel, model_id::is_commit};
use crate::error::{Error, Result};

/// The place of one repository in the cache.
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, model: &HubModel) -> Self {
        let folder = format!("models--{}--{}", model.owner(), model.name());
        Self { locks: cache_dir.join(".locks").join(&folder), root: cache_dir.join(folder) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a blob grows. The name is our own: Python's `<etag>.incomplete` may be written out of order.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.dype.incomplete"))
    }

    /// The commit that the revision is or last pointed to, as far as this machine knows. As in git, a branch or tag goes before
    /// a commit whose name begins like it.
    pub(super) fn known_commit(&self, model: &HubModel) -> Option<(String, CopyOf)> {
        if let Some(commit) = model.commit() {
            return Some((commit.to_ascii_lowercase(), CopyOf::Commit));
        }
        if let Ok(text) = fs::read_to_string(self.root.join("refs").join(model.revision())) {
            return Some((text.trim().to_owned(), CopyOf::Revision)).filter(|(commit, _)| is_commit(commit));
        }
        let short = model.short_commit()?.to_ascii_lowercase();
        let mut found = self.commits().into_iter().filter(|commit| commit.starts_with(&short));
        Some((found.next()?, CopyOf::Commit)).filter(|_| found.next().is_none())
    }

    /// The commits of which there is something, the latest first.
    pub(super) fn commits(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("snapshots")).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.file_name().into_string().ok()?)))
            .filter(|(_, name)| is_commit(name))
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, commit)| commit).collect()
    }

    /// Whether there is anything of it.
    pub(super) fn is_begun(&self) -> bool {
        let holds =
            |folder: &str| fs::read_dir(self.root.join(folder)).is_ok_and(|mut entries| entries.next().is_some());
        holds("snapshots") || holds("blobs")
    }

    /// Whether files of `commit` can be added.
    pub(super) fn is_writable(&self, commit: &str) -> bool {
        [self.locks.clone(), self.root.join("blobs"), self.snapshot(commit)].iter().all(|folder| is_writable(folder))
    }

    /// Notes what `revision` points to, once its snapshot is complete.
    pub(super) fn remember_commit(&self, model: &HubModel, commit: &str) -> Result<()> {
        let is_itself = model.short_commit().is_some_and(|short| commit.starts_with(&short.to_ascii_lowercase()));
        if model.commit().is_some() || is_itself {
            return Ok(());
        }
        let path = self.root.join("refs").join(model.revision());
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit) {
            return Ok(());
        }
        create_parent(&path)?;
        fs::write(&path, commit).map_err(|e| Error::disk("cannot write", &path, e))
    }

    /// Whether `file` stands in the snapshot of `commit`, with its size.
    pub(super) fn in_snapshot(&self, commit: &str, file: &PlannedFile) -> bool {
        has_size(&self.snapshot(commit).join(&file.path), file.size_bytes)
    }

    /// Whether the blob of `file` is there, with its size.
    pub(super) fn has_blob(&self, file: &PlannedFile) -> bool {
        has_size(&self.blob(&file.etag), file.size_bytes)
    }

    /// Bytes of `file` that an earlier, interrupted fetch left.
    pub(super) fn bytes_begun(&self, file: &PlannedFile) -> u64 {
        let begun = fs::metadata(self.incomplete(&file.etag)).map_or(0, |m| m.len());
        if begun > file.size_bytes { 0 } else { begun }
    }

    /// The files of a snapshot that is on this machine, in the order of their paths.
    pub(super) fn list(&self, commit: &str) -> Result<Vec<PlannedFile>> {
        let root = self.snapshot(commit);
        let planned = |name: String| {
            let path = root.join(&name);
            let size_bytes = fs::metadata(&path).ok()?.len();
            let etag =
                fs::read_link(&path).ok().and_then(|to| to.file_name().and_then(OsStr::to_str).map(str::to_owned));
            Some(PlannedFile { path: name, size_bytes, cached: true, etag: etag.unwrap_or_default() })
        };
        Ok(paths_below(&root)?.into_iter().filter_map(planned).collect())
    }

    /// Makes the blob of `file` appear in the snapshot of `commit`.
    pub(super) fn link(&self, commit: &str, file: &PlannedFile) -> Result<()> {
        let pointer = self.snapshot(commit).join(&file.path);
        create_parent(&pointer)?;
        let ups = "../".repeat(file.path.split('/').count() + 1);
        let target = PathBuf::from(format!("{ups}blobs/{}", file.etag));
        let blob = self.blob(&file.etag);
        let placed = place(&blob, &target, &pointer, symlink).or_else(|_| {
            // Another process may have been quicker; else what stands there is a link to a blob that is gone, or a
            // file of the wrong size.
            if self.in_snapshot(commit, file) {
                return Ok(());
            }
            fs::remove_file(&pointer)?;
            place(&blob, &target, &pointer, symlink)
        });
        match placed {
            Err(_) if self.in_snapshot(commit, file) => Ok(()),
            result => result.map_err(|e| Error::disk("cannot write", &pointer, e)),
        }
    }

    /// Tries to become the only one, among this program and `huggingface_hub`, that fetches the blob `etag`. `None`:
    /// another process is at it. The lock ends with the returned file.
    pub(super) fn try_lock(&self, etag: &str) -> Result<Option<File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| Error::disk("cannot write", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Some network drives have no locks; the sha256 still guards the contents there.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(Some(file)),
            Err(TryLockError::Error(e)) => Err(Error::disk("cannot lock", &path, e)),
        }
    }
}

/// Makes the folder that will hold `path`.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(|e| Error::disk("cannot make the folder", parent, e)),
        None => Ok(()),
    }
}

/// Whether files can be made in this folder, or in the one that it will be made in.
fn is_writable(folder: &Path) -> bool {
    let existing = folder.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok());
    existing.is_some_and(|folder| folder.is_dir() && may_write(folder))
}

#[cfg(unix)]
fn may_write(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: `path` is a C string that outlives the call.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

#[cfg(not(unix))]
fn may_write(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|meta| !meta.permissions().readonly())
}

/// Whether a path from a repository stays inside the folder it is put into.
pub(super) fn is_inside(path: &str) -> bool {
    let plain = |component| matches!(component, Component::Normal(_));
    !path.is_empty() && !path.contains('\\') && Path::new(path).components().all(plain)
}

fn has_size(path: &Path, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size_bytes)
}

/// The files in a folder and those in it, with `/` from there, in their order.
///
/// # Errors
/// [`Error::Disk`] when a folder cannot be read.
pub fn paths_below(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|e| Error::disk("cannot read", &folder, e))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.extend(repo_path(root, &path));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// `path` below `root` with `/` between its parts.
fn repo_path(root: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(root).ok()?.components();
    let parts: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
    Some(parts?.join("/"))
}

/// Lets `blob` appear at `pointer`: by a link to `target`; where links are not possible by a second name for the same
/// file, else by moving it there, as `huggingface_hub` does.
fn place(
    blob: &Path,
    target: &Path,
    pointer: &Path,
    symlink: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let taken = |e: &io::Error| e.kind() == io::ErrorKind::AlreadyExists;
    match symlink(target, pointer) {
        Err(e) if !taken(&e) => match fs::hard_link(blob, pointer) {
            // A rename would replace what is there, and take the blob from those who link to it.
            Err(e) if !taken(&e) => fs::rename(blob, pointer),
            linked => linked,
        },
        linked => linked,
    }
}

#[cfg(unix)]
fn symlink(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(windows)]
fn symlink(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, pointer)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _pointer: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, RepoCache) {
        let folder = tempfile::tempdir().expect("a folder");
        let model: HubModel = "owner/name@refs/pr/1".parse().expect("a model");
        let cache = RepoCache::new(folder.path(), &model);
        (folder, cache)
    }

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[cfg(unix)]
    #[test]
    fn snapshots_link_to_blobs_as_python_links_them() {
        let (folder, cache) = cache();
        let file = PlannedFile { path: "vae/config.json".into(), size_bytes: 2, cached: false, etag: "ab".into() };
        create_parent(&cache.blob("ab")).expect("a folder");
        fs::write(cache.blob("ab"), "{}").expect("a blob");
        assert!(cache.has_blob(&file) && !cache.in_snapshot(COMMIT, &file));
        cache.link(COMMIT, &file).expect("a link");
        let pointer = folder.path().join("models--owner--name/snapshots").join(COMMIT).join("vae/config.json");
        assert_eq!(fs::read_link(&pointer).expect("a link"), Path::new("../../../blobs/ab"));
        assert!(cache.in_snapshot(COMMIT, &file));
        let listed = PlannedFile { cached: true, ..file };
        assert_eq!(cache.list(COMMIT).expect("a listing"), [listed]);
    }

    #[test]
    fn without_links_the_blob_itself_comes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (blob, pointer) = (folder.path().join("blob"), folder.path().join("pointer"));
        fs::write(&blob, "x").expect("a blob");
        let refuse = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
        place(&blob, Path::new("blob"), &pointer, refuse).expect("a placed file");
        assert_eq!(fs::read_to_string(&pointer).expect("a file"), "x");
        assert!(!fs::symlink_metadata(&pointer).expect("a file").is_symlink());
    }

    #[test]
    fn a_ref_with_slashes_is_remembered() {
        let (folder, cache) = cache();
        let model: HubModel = "owner/name@refs/pr/1".parse().expect("a model");
        assert_eq!(cache.known_commit(&model), None);
        cache.remember_commit(&model, COMMIT).expect("a ref");
        assert_eq!(cache.known_commit(&model), Some((COMMIT.to_owned(), CopyOf::Revision)));
        assert!(folder.path().join("models--owner--name/refs/refs/pr/1").is_file());
        fs::write(folder.path().join("models--owner--name/refs/refs/pr/1"), "../..").expect("a forged ref");
        assert_eq!(cache.known_commit(&model), None);
    }

    #[test]
    fn a_lock_excludes_a_second_holder_until_it_ends() {
        let (_folder, cache) = cache();
        let held = cache.try_lock("ab").expect("a lock");
        assert!(held.is_some());
        assert!(cache.try_lock("ab").expect("a refusal").is_none());
        assert!(cache.try_lock("cd").expect("another lock").is_some());
        drop(held);
        assert!(cache.try_lock("ab").expect("a lock").is_some());
    }

    #[test]
    fn paths_that_leave_the_snapshot_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a\\..\\x"] {
            assert!(!is_inside(path), "{path:?}");
        }
        assert!(is_inside("model_index.json") && is_inside("vae/config.json"));
    }
}
