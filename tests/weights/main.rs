//! Where weights come from: files, names, whole models, and everything that can be wrong with them.

#[path = "../manifest/mod.rs"]
mod manifest;

mod bad_files;
mod bad_models;
mod fuzz;
mod models;
mod names;
mod store;

use std::{
    fs,
    path::{Path, PathBuf},
};

use dype::{Error, Result};

/// A path below tests/fixtures.
fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// A safetensors file of this header and this many zero bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Copies a folder with everything in it.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("entry").path();
        let target = to.join(path.file_name().expect("name"));
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).expect("copy") }
    }
}

/// A copy of tiny-flux that may be broken.
fn tiny_flux() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    copy_folder(&fixture("tiny-flux"), folder.path());
    folder
}

/// The message and the hint of an error about a model, with exit code 1.
fn refused<T>(result: Result<T>) -> (String, String) {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(e @ Error::Model { .. }) => {
            assert_eq!(e.exit_code(), 1);
            (e.to_string(), e.hint().expect("every error about a model has advice"))
        }
        Err(other) => panic!("not an error about a model: {other}"),
    }
}

/// It is refused with a message that holds all of these words.
fn refused_with<T>(result: Result<T>, words: &[&str]) {
    let (what, hint) = refused(result);
    for word in words {
        assert!(what.contains(word) || hint.contains(word), "{word:?} is not in:\n  {what}\n  hint: {hint}");
    }
}
