//! One file of a repository: `owner/name[@revision]:path`.

use std::{fmt, path::Path, str::FromStr};

use super::{FileSet, HubModel, cache::is_inside, model_id::is_commit};
use crate::{
    error::{Error, Result},
    weights::{all_parts, missing_part},
};

/// Most files that an error names.
const MOST_NAMED: usize = 12;

/// A file or folder of a model's repository, or the repository itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubFile {
    /// The repository.
    pub model: HubModel,
    /// The path in it, with `/`; `None` for the repository itself.
    pub path: Option<String>,
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)?;
        self.path.iter().try_for_each(|path| write!(f, ":{path}"))
    }
}

impl FromStr for HubFile {
    type Err = Error;

    /// `owner/name[@revision][:path]`; a commit may also stand behind the path, as pictures say it. The address of its page on the
    /// Hub means the same.
    fn from_str(text: &str) -> Result<Self> {
        let of_page = of_page(text);
        let text = of_page.as_deref().unwrap_or(text);
        if text.contains("://") {
            let what = format!("{text:?} is an address, and none of a repository or a file of huggingface.co");
            return Err(Error::request(what, "download the file and give its path, or a Hub id: OWNER/NAME[:FILE]"));
        }
        let Some((repo, path)) = text.split_once(':') else { return Ok(Self { model: text.parse()?, path: None }) };
        let (path, commit) = match path.rsplit_once('@').filter(|(_, commit)| is_commit(commit)) {
            Some((path, commit)) if !repo.contains('@') => (path, Some(commit)),
            _ => (path, None),
        };
        let model = commit.map_or_else(|| repo.to_owned(), |commit| format!("{repo}@{commit}")).parse()?;
        if !is_inside(path) {
            let what = format!("{text:?}: {path:?} is no path of a file in a repository");
            return Err(Error::request(what, "write it as OWNER/NAME:FOLDER/FILE"));
        }
        Ok(Self { model, path: Some(path.to_owned()) })
    }
}

/// What the address of a page of the Hub means: `https://huggingface.co/OWNER/NAME`, with `/blob/REVISION/PATH` or the like behind it.
fn of_page(text: &str) -> Option<String> {
    let text = ["https://", "http://"].iter().find_map(|start| text.strip_prefix(start)).unwrap_or(text);
    let rest = ["huggingface.co/", "www.huggingface.co/", "hf.co/"].iter().find_map(|host| text.strip_prefix(host))?;
    let rest = rest.split(['?', '#']).next().unwrap_or(rest).trim_end_matches('/');
    let mut words = rest.splitn(5, '/');
    let (owner, name) = (words.next()?, words.next()?);
    let revision = match words.next() {
        Some("blob" | "resolve" | "tree" | "raw") => Some(words.next()?),
        Some(_) => return None,
        None => None,
    };
    let revision = revision.filter(|revision| *revision != "main").map_or_else(String::new, |it| format!("@{it}"));
    let path = words.next().map_or_else(String::new, |path| format!(":{}", path.replace("%20", " ")));
    Some(format!("{owner}/{name}{revision}{path}"))
}

/// One file of a repository, with those that belong to it where a model was split into several, and nothing else of it.
pub struct OneFile(pub String);

impl FileSet for OneFile {
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String> {
        if listing.contains(&self.0) {
            return all_parts(&self.0, listing);
        }
        let ending = Path::new(&self.0).extension();
        let mut alike = listing.iter().filter(|path| Path::new(path).extension() == ending);
        let named: Vec<&str> = alike.by_ref().take(MOST_NAMED).map(String::as_str).collect();
        let more = if alike.next().is_some() { ", .." } else { "" };
        Err(match named.as_slice() {
            [] => format!("no file {}", self.0),
            named => format!("no file {} (it has {}{more})", self.0, named.join(", ")),
        })
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        missing_part(snapshot, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_repository_and_a_path() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let parse = |text: &str| text.parse::<HubFile>().expect(text);
        let of = |file: HubFile| (file.model.repo(), file.model.revision().to_owned(), file.path.unwrap_or_default());
        let words = |repo: &str, revision: &str, path: &str| (repo.to_owned(), revision.to_owned(), path.to_owned());
        assert_eq!(of(parse("a/b:c.gguf")), words("a/b", "main", "c.gguf"));
        assert_eq!(of(parse("a/b@v1:d/c.gguf")), words("a/b", "v1", "d/c.gguf"));
        assert_eq!(of(parse(&format!("a/b:c@{commit}"))), words("a/b", commit, "c"));
        assert_eq!(of(parse("a/b:c@x")), words("a/b", "main", "c@x"));
        assert_eq!(of(parse("a/b")), words("a/b", "main", ""));
        let file = parse(&format!("a/b:c@{commit}"));
        assert_eq!((parse(&file.to_string()), file.to_string()), (file, format!("a/b@{commit}:c")));
    }

    #[test]
    fn the_address_of_a_page_means_what_it_shows() {
        for (address, id) in [
            ("https://huggingface.co/a/b", "a/b"),
            ("http://hf.co/a/b/", "a/b"),
            ("huggingface.co/a/b/tree/main", "a/b"),
            ("https://huggingface.co/a/b/tree/v1", "a/b@v1"),
            ("https://huggingface.co/a/b/blob/main/c.gguf", "a/b:c.gguf"),
            ("https://huggingface.co/a/b/resolve/v1/d/e%20f.safetensors?download=true", "a/b@v1:d/e f.safetensors"),
        ] {
            assert_eq!(address.parse::<HubFile>().expect(address), id.parse().expect(id), "{address}");
        }
        for address in ["https://civitai.com/models/1", "https://huggingface.co/datasets/a/b", "file:///x.safetensors"]
        {
            let error = address.parse::<HubFile>().expect_err(address);
            assert!(error.exit_code() == 2 && error.to_string().contains("is an address"), "{error}");
        }
    }

    #[test]
    fn paths_that_leave_the_repository_are_refused() {
        for text in ["a/b:../c", "a/b:", "a/b:/etc/passwd", "C:\\x", "b:c", "a/b/c:d"] {
            assert_eq!(text.parse::<HubFile>().expect_err(text).exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn what_a_repository_has_instead_is_named() {
        let listing = ["README.md", "a.gguf", "b.gguf"].map(str::to_owned);
        assert_eq!(OneFile("a.gguf".into()).select(&listing), Ok(vec!["a.gguf".to_owned()]));
        let lacks = OneFile("c.gguf".into()).select(&listing).expect_err("not there");
        assert_eq!(lacks, "no file c.gguf (it has a.gguf, b.gguf)");
        assert_eq!(OneFile("c.txt".into()).select(&listing), Err("no file c.txt".to_owned()));
    }
}
