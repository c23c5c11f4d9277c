//! Where this program keeps what it can make again: speeds it measured, the model inside it.

use std::{ffi::OsString, path::PathBuf};

use super::home;

/// `DYPE_CACHE`, else `dype` in the user's cache folder (`XDG_CACHE_HOME`, else `.cache` in the user's own); `None` where there is
/// neither.
pub fn folder() -> Option<PathBuf> {
    of(|name| std::env::var_os(name), home::folder)
}

/// [`folder`] with other variables and another user.
fn of(variable: impl Fn(&str) -> Option<OsString>, home: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DYPE_CACHE")
        // One that depends on where the program runs is to be ignored, says the XDG specification.
        .or_else(|| variable("XDG_CACHE_HOME").filter(|cache| cache.is_absolute()).map(|cache| cache.join("dype")))
        .or_else(|| home().map(|home| home.join(".cache").join("dype")))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Variables, the user's own folder, and where the cache is then.
    type Case = (&'static [(&'static str, &'static str)], Option<&'static str>, Option<&'static str>);

    #[test]
    fn the_nearest_of_variables_and_home_says_it() {
        let cases: [Case; 6] = [
            (&[("DYPE_CACHE", "c"), ("XDG_CACHE_HOME", "/x")], Some("/u"), Some("c")),
            (&[("DYPE_CACHE", ""), ("XDG_CACHE_HOME", "/x")], Some("/u"), Some("/x/dype")),
            (&[("XDG_CACHE_HOME", "x")], Some("/u"), Some("/u/.cache/dype")),
            (&[], Some("/u"), Some("/u/.cache/dype")),
            (&[], None, None),
            (&[("XDG_CACHE_HOME", "/x")], None, Some("/x/dype")),
        ];
        for (variables, home, expected) in cases {
            let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            assert_eq!(of(variable, || home.map(PathBuf::from)), expected.map(PathBuf::from), "{variables:?} {home:?}");
        }
    }
}
