//! Links from a page to files beside it, whatever their names.

use std::{
    fmt::Write,
    path::{Component, Path},
};

/// What leads from a page in `folder` to a file, as a browser takes it: relative where there is such a way, so that both can be
/// moved together, else the whole place. Every byte of a name that means something in a link is percent-encoded.
pub fn from_folder(folder: &Path, file: &Path) -> String {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let (folder, file) = (whole(folder), whole(file));
    let (folder, file): (Vec<_>, Vec<_>) = (folder.components().collect(), file.components().collect());
    let shared = folder.iter().zip(&file).take_while(|(one, other)| one == other).count();
    let is_reached = shared > 0 && !folder[shared..].contains(&Component::ParentDir);
    if is_reached {
        let up = std::iter::repeat_n("..".to_owned(), folder.len() - shared);
        return up.chain(file[shared..].iter().map(encoded)).collect::<Vec<_>>().join("/");
    }
    let parts = file.iter().filter(|part| !matches!(part, Component::RootDir));
    format!("file:///{}", parts.map(encoded).collect::<Vec<_>>().join("/"))
}

/// A part of a path; all but unreserved characters (RFC 3986, section 2.3) as `%XX`.
fn encoded(part: &Component<'_>) -> String {
    let mut text = String::new();
    for &byte in part.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_and_both_can_be_moved() {
        for (folder, file, link) in [
            ("x", "x/a.png", "a.png"),
            ("x/", "./x/a b#c?d%e&f\"g'<h>.png", "a%20b%23c%3Fd%25e%26f%22g%27%3Ch%3E.png"),
            ("x", "x/javascript:alert(1).png", "javascript%3Aalert%281%29.png"),
            ("x", "x/höhe 山.png", "h%C3%B6he%20%E5%B1%B1.png"),
            (".", "a.png", "a.png"),
            ("x/y", "x/z/a.png", "../z/a.png"),
            ("/x y/z", "/x y/a.png", "../a.png"),
        ] {
            assert_eq!(from_folder(Path::new(folder), Path::new(file)), link);
        }
        let file = from_folder(Path::new("x/../../y"), Path::new("a b.png"));
        assert!(file.starts_with("file:///") && file.ends_with("/a%20b.png"), "{file}");
    }

    #[cfg(unix)]
    #[test]
    fn names_need_not_be_text() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let file = Path::new(OsStr::from_bytes(b"x/l\xe9.png"));
        assert_eq!(from_folder(Path::new("x"), file), "l%E9.png");
    }
}
