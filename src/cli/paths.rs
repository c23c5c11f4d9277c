//! Paths as scripts get them: exactly, also where they are not text.

use std::path::Path;

use serde_json::Value;

/// Adds `path_bytes` to a JSON object whose `path` cannot say this path exactly, for it is not UTF-8: the bytes of the path, as
/// numbers. Most objects have none.
pub fn add_bytes(json: &mut Value, path: &Path) {
    if path.to_str().is_none() {
        json["path_bytes"] = path.as_os_str().as_encoded_bytes().into();
    }
}

/// Whether a path ends in a separator.
pub fn ends_in_separator(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().last();
    last.is_some_and(|byte| std::path::is_separator(char::from(*byte)))
}

#[cfg(all(test, unix))]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_no_text_has_bytes_too() {
        let mut json = json!({ "path": "a.png" });
        add_bytes(&mut json, Path::new("a.png"));
        assert_eq!(json, json!({ "path": "a.png" }));
        let path = Path::new(OsStr::from_bytes(b"l\xe9/"));
        add_bytes(&mut json, path);
        assert_eq!(json["path_bytes"], json!([108, 233, 47]));
        assert!(ends_in_separator(path) && !ends_in_separator(Path::new("a")) && !ends_in_separator(Path::new("")));
    }
}
