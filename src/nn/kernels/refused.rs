//! What kernels failed the check that they are put to before they are trusted with a picture.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kernels that are not used again by this process.
pub struct Refused<T>(Mutex<Vec<T>>);

impl<T: PartialEq> Refused<T> {
    /// None so far.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Says that it is not to be used.
    pub fn add(&self, kernel: T) {
        self.list().push(kernel);
    }

    /// Whether that was said of it.
    pub fn has(&self, kernel: &T) -> bool {
        self.list().contains(kernel)
    }

    fn list(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
