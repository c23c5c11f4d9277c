//! Where this program keeps what it can make again: speeds it measured, the model inside it.

use std::path::PathBuf;

/// `DYPE_CACHE`, else `dype` in the user's cache folder; `None` where there is neither.
pub fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DYPE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("dype")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/dype")))
}
