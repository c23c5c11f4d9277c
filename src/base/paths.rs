//! What paths say.

use std::path::Path;

/// The folder that a file lies in: of a bare name the one the program runs in.
pub fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_lies_in_a_folder() {
        for (file, folder) in [("a/b.png", "a"), ("/b.png", "/"), ("./b.png", "."), ("b.png", "."), ("", ".")] {
            assert_eq!(parent(Path::new(file)), Path::new(folder), "{file}");
        }
    }
}
