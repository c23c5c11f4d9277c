//! Models in several GGUF files, as llama.cpp's `gguf-split` cuts them: `x-00001-of-00003.gguf` and so on. The first holds the
//! keys of the whole; each holds some of the tensors and says where it stands among how many.
//!
//! Source: ggml-org/llama.cpp, `tools/gguf-split` and `llama_split_path`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::Files;
use crate::{
    base::paths,
    error::{Error, Result},
};

/// What a file says of the model it is a part of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Its place among the files, from 0, where it says so.
    pub(super) number: Option<u64>,
    /// How many files there are, more than one.
    pub(super) count: u64,
    /// How many tensors there are in all of them, where it says so.
    pub(super) tensors: Option<u64>,
    /// True shapes of tensors that lie in other files, stored in rows of another length.
    pub(super) shapes: HashMap<String, Vec<usize>>,
}

impl Split {
    /// All files of the model that the file at `path` says this of, in order.
    ///
    /// # Errors
    /// [`Error::Model`] when its name does not lead to the others, or some of them are not there.
    pub(super) fn files(&self, path: &Path, files: &Files) -> Result<Vec<PathBuf>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbered = Numbered::of(name).filter(|numbered| self.is_said_by(numbered));
        let what = |is: &str| {
            let place =
                self.number.map_or_else(|| "one".to_owned(), |number| format!("number {}", number.saturating_add(1)));
            format!("{}: this is {place} of {} files that a model was split into, {is}", path.display(), self.count)
        };
        let Some(numbered) = numbered else {
            let number = self.number.unwrap_or(0).saturating_add(1);
            let example = Numbered { stem: "NAME", number, count: self.count, ending: ENDING };
            let hint = format!("call them as llama.cpp does, this one {}, in one folder", example.name());
            return Err(Error::model(what("but its name does not lead to the others"), hint));
        };
        let folder = paths::parent(path);
        let all = (1..=self.count).map(|number| folder.join(Numbered { number, ..numbered }.name()));
        let (here, missing): (Vec<PathBuf>, Vec<PathBuf>) = all.partition(|path| files.is_file(path));
        if missing.is_empty() {
            return Ok(here);
        }
        let names: Vec<_> = missing.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        let is = format!("{} missing: {}", names.len(), some_of(&names));
        let hint = match files.ahead(path) {
            Some(_) => "the repository is incomplete; take another of the same model".to_owned(),
            None => format!("fetch what is missing into {}", folder.display()),
        };
        Err(Error::model(what(&is), hint))
    }

    /// Whether a name says the same.
    fn is_said_by(&self, name: &Numbered<'_>) -> bool {
        name.count == self.count && self.number.is_none_or(|number| name.number == number.saturating_add(1))
    }

    /// Holds what the file at `path`, which stands at `number`, says against what its model's first file does.
    ///
    /// # Errors
    /// [`Error::Model`] when it belongs to another model.
    pub(super) fn check(&self, path: &Path, number: u64, said: Option<&Self>) -> Result<()> {
        let is_it = |said: &Self| {
            said.count == self.count && said.number.is_none_or(|found| found == number) && said.tensors == self.tensors
        };
        if said.is_some_and(is_it) {
            return Ok(());
        }
        let found = said.map_or_else(
            || "a whole model".to_owned(),
            |said| format!("number {} of {} of a model", said.number.unwrap_or(number).saturating_add(1), said.count),
        );
        let what = format!("{}: this is {found}, expected number {} of {}", path.display(), number + 1, self.count);
        Err(Error::model(what, MIXED))
    }

    /// Holds the number of tensors against what the model's first file says.
    ///
    /// # Errors
    /// [`Error::Model`] when they differ.
    pub(super) fn check_tensors(&self, path: &Path, found: usize) -> Result<()> {
        match self.tensors.filter(|said| *said != found as u64) {
            None => Ok(()),
            Some(said) => {
                let what = format!("{} and its other files hold {found} tensors, but say {said}", path.display());
                Err(Error::model(what, MIXED))
            }
        }
    }
}

const ENDING: &str = ".gguf";
/// Digits of a number in a name.
const DIGITS: usize = 5;
/// What to do about files that do not belong together.
const MIXED: &str = "the folder mixes files of two models; fetch it again";
/// Most files that an error names.
const MOST_NAMED: usize = 12;

/// Whether the file of this name is one of a split model, and not its first, which stands for it.
pub(crate) fn is_later_part(name: &str) -> bool {
    Numbered::of(name).is_some_and(|numbered| numbered.number > 1)
}

/// The paths of all files of the model that the file at `path` is named as one of, with `/`; itself where it is named as none.
fn parts_of(path: &str) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
    let Some(numbered) = Numbered::of(name) else { return vec![path.to_owned()] };
    let join = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
    (1..=numbered.count).map(|number| join(Numbered { number, ..numbered }.name())).collect()
}

/// All files of the model that the file at `path` of a repository is named as one of.
///
/// # Errors
/// Those that its `listing` lacks, in words.
pub(crate) fn all_parts(path: &str, listing: &[String]) -> Result<Vec<String>, String> {
    let (here, missing): (Vec<_>, Vec<_>) = parts_of(path).into_iter().partition(|path| listing.contains(path));
    match missing.as_slice() {
        [] => Ok(here),
        missing => {
            let (absent, all) = (missing.len(), here.len() + missing.len());
            Err(format!("{absent} of the {all} files of {path} missing: {}", some_of(missing)))
        }
    }
}

/// The first of these files that a local copy of the repository lacks.
pub(crate) fn missing_part(snapshot: &Path, path: &str) -> Option<String> {
    parts_of(path).into_iter().find(|path| !snapshot.join(path).is_file())
}

/// Some names in a row.
fn some_of(names: &[String]) -> String {
    let more = if names.len() > MOST_NAMED { ", .." } else { "" };
    format!("{}{more}", names[..names.len().min(MOST_NAMED)].join(", "))
}

/// The name of one of several files, taken apart: `STEM-00001-of-00003.gguf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbered<'a> {
    stem: &'a str,
    /// From 1.
    number: u64,
    count: u64,
    /// `.gguf`, in whatever case.
    ending: &'a str,
}

impl<'a> Numbered<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (rest, ending) = name.split_at_checked(name.len().checked_sub(ENDING.len())?)?;
        let number =
            |text: &str| text.parse().ok().filter(|_| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit()));
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, first) = rest.rsplit_once('-')?;
        let (number, count) = (number(first)?, number(count)?);
        let is_one = ending.eq_ignore_ascii_case(ENDING) && !stem.is_empty() && (1..=count).contains(&number);
        is_one.then_some(Self { stem, number, count, ending })
    }

    fn name(&self) -> String {
        let Self { stem, number, count, ending } = self;
        format!("{stem}-{number:0DIGITS$}-of-{count:0DIGITS$}{ending}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_put_together() {
        for (name, expected) in [
            ("a-00001-of-00003.gguf", Some((1, 3))),
            ("a-b-Q4_K-00012-of-00012.GGUF", Some((12, 12))),
            ("a-00004-of-00003.gguf", None),
            ("a-00000-of-00003.gguf", None),
            ("a-1-of-3.gguf", None),
            ("a-+0001-of-00003.gguf", None),
            ("-00001-of-00003.gguf", None),
            ("a-00001-of-00003.safetensors", None),
            ("a.gguf", None),
            ("gguf", None),
        ] {
            let found = Numbered::of(name);
            assert_eq!(found.map(|found| (found.number, found.count)), expected, "{name}");
            assert!(found.is_none_or(|found| found.name() == name), "{name}");
        }
        assert_eq!(["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"].map(is_later_part), [false, true]);
    }

    #[test]
    fn a_listing_has_all_of_them_or_says_what_it_lacks() {
        let listing = ["d/a-00001-of-00002.gguf", "d/a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "b.gguf"];
        let listing = listing.map(str::to_owned);
        assert_eq!(all_parts("d/a-00002-of-00002.gguf", &listing), Ok(listing[..2].to_vec()));
        assert_eq!(all_parts("b.gguf", &listing), Ok(vec!["b.gguf".to_owned()]));
        let lacks = all_parts("a-00001-of-00002.gguf", &listing).expect_err("one of two");
        assert_eq!(lacks, "1 of the 2 files of a-00001-of-00002.gguf missing: a-00002-of-00002.gguf");
    }
}
