//! What was computed and cannot be written to its place is kept in another: no finished computation is thrown away.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{Confirmation, Naming, is_stream};
use crate::{
    base::cache,
    error::{Error, Result},
};

/// The folder of such files in the program's cache.
const FOLDER: &str = "kept";
/// Characters of a name that are kept of it: the name itself may be what was wrong.
const NAME_CHARS: usize = 40;

/// Writes a file through `write`, which is given where and how; where that fails, in the program's cache or the system's folder
/// for temporary files. There a disk that cannot confirm the file will do, when no other is found.
///
/// # Errors
/// What `write` fails with; [`Error::KeptElsewhere`] where the file is there, and not where it should be.
pub fn or_keep(
    path: &Path,
    number: u64,
    overwrite: bool,
    ending: &str,
    write: impl Fn(&Path, Naming) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let error = match write(path, Naming { number, overwrite, confirmation: Confirmation::Demanded }) {
        Err(error @ Error::Disk { .. }) => error,
        other => return other,
    };
    let name = name(path, ending);
    for confirmation in [Confirmation::Demanded, Confirmation::Tried] {
        for folder in folders() {
            let naming = Naming { number: 1, overwrite: false, confirmation };
            if let Ok(kept) = write(&folder.join(&name), naming) {
                return Err(Error::KeptElsewhere { error: Box::new(error), kept });
            }
        }
    }
    Err(error)
}

fn folders() -> impl Iterator<Item = PathBuf> {
    cache::folder().map(|cache| cache.join(FOLDER)).into_iter().chain([std::env::temp_dir()])
}

/// The start of a file's own name, with this ending.
fn name(path: &Path, ending: &str) -> OsString {
    let own = path.file_stem().filter(|_| !is_stream(path)).unwrap_or(OsStr::new("picture")).to_string_lossy();
    let start: String = own.chars().take(NAME_CHARS).filter(|c| c.is_alphanumeric() || "-_. ".contains(*c)).collect();
    format!("{start}.{ending}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_any_file_system_takes() {
        let long = format!("{}.png", "ü".repeat(200));
        assert_eq!(name(Path::new(&long), "png"), OsString::from(format!("{}.png", "ü".repeat(40))));
        assert_eq!(name(Path::new("a/b:c?.d.png"), "png"), "bc.d.png");
        assert_eq!(name(Path::new("-"), "png"), "picture.png");
        assert_eq!(name(Path::new("x.jpg"), "jpg"), "x.jpg");
    }
}
