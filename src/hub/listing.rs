//! What a repository holds at a revision, and how large each file is.
//!
//! hf-hub 1.0.0 cannot tell the contents' ids of large files: its listing reads `lfs.sha256` where the tree endpoint
//! says `lfs.oid`, and its HEAD request follows the redirect whose headers carry them (hf-hub pull request 212). So
//! these requests are our own. `GET /api/models/{repo}/revision/{revision}?blobs=true` tells all at once on the Hub itself;
//! mirrors tell names only (olah drops the query), and then `HEAD /{repo}/resolve/{commit}/{path}`, which every mirror has
//! since Python's `huggingface_hub` asks it too, tells the rest of the files that are needed.

use reqwest::{Client, Method, Response, Url, header};
use serde::Deserialize;

use super::{
    cache::is_inside,
    failure::{Asked, Failure, NO_HUB},
    model_id::is_commit,
    request::{address, body, refusal, send, text_of},
};
use crate::{
    base::{excerpt::excerpt, hex::is_sha256},
    error::Error,
};

/// Redirects of one request that are followed: a repository that was renamed, a mirror's own store.
const MOST_REDIRECTS: usize = 5;
/// Characters of the longest contents' id of any server; it becomes a file's name.
const LONGEST_ID: usize = 128;

/// A repository at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// One of its files.
pub(super) struct RemoteFile {
    pub(super) path: String,
    /// What is known of its contents.
    pub(super) contents: Option<Contents>,
}

/// A file's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) size_bytes: u64,
    /// sha256 of a large file (64 hexadecimal digits), git's blob id of a small one (40); of a mirror anything.
    pub(super) etag: String,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

/// A file as the Hub describes it (`huggingface_hub`, `hf_api.py`, `RepoSibling`).
#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: Option<u64>,
}

/// One of a repository's commits (`huggingface_hub`, `list_repo_commits`).
#[derive(Deserialize)]
struct Commit {
    id: String,
}

/// Asks the Hub once for the files of a model.
pub(super) async fn list(client: &Client, asked: &Asked<'_>) -> Result<Listing, Failure> {
    let response = revision(client, asked, asked.model.revision()).await?;
    if response.status().is_success() {
        return read_answer(asked, response).await;
    }
    // A Hub need not know a commit by its first digits.
    let full = match asked.model.short_commit() {
        Some(short) if response.status() == 404 => full_commit(client, asked, short).await,
        _ => None,
    };
    let Some(full) = full else { return Err(refusal(asked, response).await) };
    match revision(client, asked, &full).await? {
        response if response.status().is_success() => read_answer(asked, response).await,
        response => Err(refusal(asked, response).await),
    }
}

async fn revision(client: &Client, asked: &Asked<'_>, revision: &str) -> Result<Response, Failure> {
    let (owner, name) = (asked.model.owner(), asked.model.name());
    let mut url = address(asked, ["api", "models", owner, name, "revision", revision])?;
    url.set_query(Some("blobs=true"));
    send(client, asked, Method::GET, url).await
}

/// The one commit of the main branch, among its latest, that begins with these digits.
async fn full_commit(client: &Client, asked: &Asked<'_>, short: &str) -> Option<String> {
    let url = address(asked, ["api", "models", asked.model.owner(), asked.model.name(), "commits", "main"]).ok()?;
    let response = send(client, asked, Method::GET, url).await.ok()?;
    let commits: Vec<Commit> = serde_json::from_slice(&body(asked, response).await.ok()?).ok()?;
    let ids = commits.into_iter().map(|commit| commit.id.to_ascii_lowercase());
    let mut found = ids.filter(|id| is_commit(id) && id.starts_with(&short.to_ascii_lowercase()));
    found.next().filter(|_| found.next().is_none())
}

async fn read_answer(asked: &Asked<'_>, response: Response) -> Result<Listing, Failure> {
    let body = body(asked, response).await?;
    read(&body).map_err(|reason| {
        let says = if body.starts_with(b"{") { None } else { excerpt(&body) };
        let reason = says.map_or(reason, |text| format!("it says {text:?}"));
        let what = format!("{} answered something else than {}: {reason}", asked.settings.endpoint, asked.what());
        Failure::Final(Error::Network { what, hint: NO_HUB.into() })
    })
}

/// Reads the Hub's answer, believing nothing that could lead out of the cache folder.
fn read(body: &[u8]) -> Result<Listing, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if !is_commit(&answer.sha) {
        return Err(format!("its commit is {:?}", answer.sha));
    }
    let files = answer.siblings.into_iter().filter(|sibling| is_inside(&sibling.rfilename)).map(read_file);
    Ok(Listing { commit: answer.sha.to_ascii_lowercase(), files: files.collect() })
}

fn read_file(sibling: Sibling) -> RemoteFile {
    let (etag, size) = match sibling.lfs {
        Some(lfs) => (Some(lfs.sha256), lfs.size.or(sibling.size)),
        None => (sibling.blob_id, sibling.size),
    };
    let etag = etag.map(|etag| etag.to_ascii_lowercase()).filter(|etag| is_commit(etag) || is_sha256(etag));
    let contents = etag.zip(size).map(|(etag, size_bytes)| Contents { size_bytes, etag });
    RemoteFile { path: sibling.rfilename, contents }
}

/// Asks once for a file's size and contents' id; `client` follows no redirect by itself, since the Hub tells both before
/// it sends to where large files are kept.
pub(super) async fn contents(
    client: &Client,
    asked: &Asked<'_>,
    commit: &str,
    path: &str,
) -> Result<Contents, Failure> {
    let segments = [asked.model.owner(), asked.model.name(), "resolve", commit].into_iter().chain(path.split('/'));
    let mut url = address(asked, segments)?;
    for _ in 0..=MOST_REDIRECTS {
        let response = send(client, asked, Method::HEAD, url.clone()).await?;
        let linked = linked_contents(&response);
        match (linked, response.status()) {
            (Some(contents), status) if status.is_success() || status.is_redirection() => return Ok(contents),
            (_, status) if status.is_success() => return own_contents(&response).ok_or_else(|| unknown(asked)),
            (_, status) if status.is_redirection() => {
                url = target(&url, &response).ok_or_else(|| unknown(asked))?;
            }
            _ => return Err(refusal(asked, response).await),
        }
    }
    Err(unknown(asked))
}

/// Where a redirect leads.
fn target(from: &Url, response: &Response) -> Option<Url> {
    from.join(&text_of(response, header::LOCATION.as_str())?).ok()
}

/// What the Hub says of a file that it keeps elsewhere.
fn linked_contents(response: &Response) -> Option<Contents> {
    let size_bytes = text_of(response, "x-linked-size")?.parse().ok()?;
    Some(Contents { size_bytes, etag: contents_id(&text_of(response, "x-linked-etag")?)? })
}

/// What an answer says of the file that it would send.
fn own_contents(response: &Response) -> Option<Contents> {
    let size_bytes = text_of(response, header::CONTENT_LENGTH.as_str())?.parse().ok()?;
    Some(Contents { size_bytes, etag: contents_id(&text_of(response, header::ETAG.as_str())?)? })
}

/// An `ETag` without its decoration, where it can be a file's name.
fn contents_id(etag: &str) -> Option<String> {
    let id = etag.trim_start_matches("W/").trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let id = if is_sha256(id) || is_commit(id) { id.to_ascii_lowercase() } else { id.to_owned() };
    (!id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(plain) && !id.starts_with('.')).then_some(id)
}

fn unknown(asked: &Asked<'_>) -> Failure {
    let what = format!("{} does not tell the size and the contents' id of {}", asked.settings.endpoint, asked.what());
    Failure::Final(Error::Network { what, hint: NO_HUB.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(files: &str) -> Result<Listing, String> {
        read(format!(r#"{{"sha": "{}", "siblings": [{files}]}}"#, "a".repeat(40)).as_bytes())
    }

    #[test]
    fn large_files_are_known_by_sha256_and_small_ones_by_gits_id() {
        let (git, sha) = ("1".repeat(40), "B".repeat(64));
        let listing = read_text(&format!(
            r#"{{"rfilename": "a.json", "size": 3, "blobId": "{git}"}},
               {{"rfilename": "v/m.safetensors", "size": 9, "blobId": "{git}", "lfs": {{"sha256": "{sha}", "size": 9, "pointerSize": 134}}}}"#
        ))
        .expect("a listing");
        let known = |size_bytes, etag| Some(Contents { size_bytes, etag });
        let found: Vec<_> = listing.files.into_iter().map(|f| (f.path, f.contents)).collect();
        let expected = [("a.json", known(3, git)), ("v/m.safetensors", known(9, sha.to_lowercase()))];
        assert_eq!(found, expected.map(|(path, contents)| (path.to_owned(), contents)));
    }

    #[test]
    fn what_a_listing_does_not_tell_is_unknown_and_what_leaves_the_repository_is_ignored() {
        let git = "1".repeat(40);
        let cases = [
            (r#"{"rfilename": "a", "size": 3, "blobId": "../../x"}"#.into(), 1),
            (r#"{"rfilename": "a", "size": 3}"#.into(), 1),
            (r#"{"rfilename": "a"}"#.into(), 1),
            (format!(r#"{{"rfilename": "a", "blobId": "{git}"}}"#), 1),
            (format!(r#"{{"rfilename": "../a", "size": 3, "blobId": "{git}"}}"#), 0),
        ];
        for (files, count) in cases {
            let listing = read_text(&files).expect("a listing");
            assert_eq!(listing.files.iter().filter(|file| file.contents.is_none()).count(), count, "{files}");
            assert_eq!(listing.files.len(), count);
        }
        assert!(read(b"<html>").is_err());
        assert!(read(br#"{"sha": "../..", "siblings": []}"#).is_err());
    }

    #[test]
    fn an_etag_becomes_a_name_or_nothing() {
        let sha = "B".repeat(64);
        let cases = [
            (format!("\"{sha}\""), Some(sha.to_lowercase())),
            ("W/\"5e8f-12ab\"".into(), Some("5e8f-12ab".into())),
            ("plain_1.x".into(), Some("plain_1.x".into())),
            ("\"\"".into(), None),
            ("\"../x\"".into(), None),
            ("\"a/b\"".into(), None),
            ("\"..\"".into(), None),
            ("x".repeat(129), None),
        ];
        for (etag, id) in cases {
            assert_eq!(contents_id(&etag), id, "{etag}");
        }
    }
}
