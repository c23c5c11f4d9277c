//! Pictures that are there already: what `--resume` need not make.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use super::identity::{Said, Sought};
use crate::output;

/// A picture on the disk that has the settings of one that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is the picture, and whole.
    Whole(PathBuf),
    /// It is the picture, and its file is cut: it may be replaced.
    Damaged(PathBuf),
    /// It was made with another model; these parts of it differ.
    OfAnotherModel(PathBuf, Vec<String>),
}

/// The pictures of the folders that were asked about so far.
#[derive(Debug, Default)]
pub struct Existing {
    /// Files of a folder by their names without the `_2` that made them unique.
    folders: HashMap<PathBuf, HashMap<OsString, Vec<OsString>>>,
    /// What files say they are; `None` for those that are no picture of dype's.
    said: HashMap<PathBuf, Option<Said>>,
}

impl Existing {
    /// The picture under the name `path`, or that name with `_2`, `_3`, ...; else one that differs in its model alone.
    pub fn find(&mut self, path: &Path, sought: &Sought<'_>) -> Option<Found> {
        let folder = output::folder_of(path);
        let names = self.folders.entry(folder.to_path_buf()).or_insert_with(|| files_by_name(folder));
        let candidates = names.get(path.file_name()?)?;
        let (mut damaged, mut near) = (None, None);
        for file in candidates.iter().map(|name| path.with_file_name(name)) {
            let said = self.said.entry(file.clone()).or_insert_with(|| said_by(&file));
            match said.as_ref().and_then(|said| sought.differences(said)) {
                None => {}
                Some(differing) if !differing.is_empty() => {
                    near.get_or_insert(Found::OfAnotherModel(file, differing));
                }
                Some(_) if output::is_whole(&file).unwrap_or(false) => return Some(Found::Whole(file)),
                Some(_) => {
                    damaged.get_or_insert(Found::Damaged(file));
                }
            }
        }
        damaged.or(near)
    }
}

fn said_by(file: &Path) -> Option<Said> {
    Said::of(&output::read_provenance(file).ok().flatten()?)
}

/// The files of a folder, each under its own name and under that name without a trailing `_N`.
fn files_by_name(folder: &Path) -> HashMap<OsString, Vec<OsString>> {
    let mut names: HashMap<OsString, Vec<OsString>> = HashMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return names };
    let mut files: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    files.sort();
    for name in files {
        if let Some(plain) = without_number(&name) {
            names.entry(plain).or_default().push(name.clone());
        }
        names.entry(name.clone()).or_default().push(name);
    }
    names
}

/// `a_12.png` to `a.png`; `None` for a name without number.
fn without_number(name: &OsStr) -> Option<OsString> {
    let path = Path::new(name);
    // What follows the last "_" is text of its own, whatever stands before it.
    let stem = path.file_stem()?.as_encoded_bytes();
    let at = stem.iter().rposition(|byte| *byte == b'_')?;
    let (length, number) = (at, &stem[at + 1..]);
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut plain = cut(path.file_stem()?, length);
    if let Some(ending) = path.extension() {
        plain.push(".");
        plain.push(ending);
    }
    Some(plain)
}

/// The first `length` bytes of a name, which end before an ASCII character.
fn cut(name: &OsStr, length: usize) -> OsString {
    // SAFETY: the bytes come from a name and are cut at an ASCII character, as the encoding allows.
    unsafe { OsStr::from_encoded_bytes_unchecked(&name.as_encoded_bytes()[..length]) }.to_os_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_end_of_a_name_are_told_from_the_name() {
        let cases =
            [("a_12.png", Some("a.png")), ("a.png", None), ("a_b.png", None), ("a_2", Some("a")), ("_2", Some(""))];
        for (name, plain) in cases {
            assert_eq!(without_number(OsStr::new(name)).as_deref(), plain.map(OsStr::new), "{name}");
        }
    }
}
