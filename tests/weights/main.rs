//! Where weights come from: files, names, whole models, and everything that can be wrong with them.

#[path = "../support/mod.rs"]
mod support;

mod bad_files;
mod bad_models;
mod fuzz;
mod models;
mod names;
mod tensor_files;

use dype::testing::{Error, Result};
use support::{copy_folder, fixture, flux1, manifest, safetensors as file, tiny_flux};

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
