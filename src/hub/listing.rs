//! What a repository holds at a revision: one request tells the commit and every file's size and contents' id.
//!
//! hf-hub 1.0.0 cannot tell the contents' ids of large files: its listing reads `lfs.sha256` where the tree endpoint
//! says `lfs.oid`, and its HEAD request follows the redirect whose headers carry them (hf-hub pull request 212). So
//! this one request, `GET /api/models/{repo}/revision/{revision}?blobs=true`, is our own.

use std::time::Duration;

use reqwest::{Url, header};
use serde::Deserialize;

use super::{
    cache::is_inside,
    failure::{Asked, Failure, Refusal},
    model_id::is_commit,
    settings::{HubSettings, Token},
};
use crate::error::Error;

/// A repository at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// One of its files.
pub(super) struct RemoteFile {
    pub(super) path: String,
    pub(super) size_bytes: u64,
    /// sha256 of a large file (64 hexadecimal digits), git's blob id of a small one (40).
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

/// Asks the Hub once for the files of a model.
pub(super) async fn list(client: &reqwest::Client, asked: &Asked<'_>) -> Result<Listing, Failure> {
    let HubSettings { token, stall, .. } = asked.settings;
    let mut request = client.get(address(asked)?);
    if let Some(token) = token {
        request = request.bearer_auth(Token::secret(token));
    }
    let silent = |_| Failure::passing(format!("{} was silent for {} s", asked.settings.endpoint, stall.as_secs_f64()));
    let response = tokio::time::timeout(*stall, request.send()).await.map_err(silent)?;
    let response = response.map_err(|e| asked.judge_reqwest(&e))?;
    if !response.status().is_success() {
        return Err(refusal(asked, response, *stall).await);
    }
    let body = tokio::time::timeout(*stall, response.bytes()).await.map_err(silent)?;
    let body = body.map_err(|e| asked.judge_reqwest(&e))?;
    read(&body).map_err(|reason| {
        let what = format!("{} answered something else than {}: {reason}", asked.settings.endpoint, asked.what());
        Failure::Final(Error::Network { what, hint: "check HF_ENDPOINT, and that it is a Hugging Face Hub".into() })
    })
}

fn address(asked: &Asked<'_>) -> Result<Url, Failure> {
    let endpoint = &asked.settings.endpoint;
    let wrong = |reason: String| {
        let hint = "set HF_ENDPOINT to an address such as https://huggingface.co, or unset it";
        Failure::Final(Error::request(format!("{endpoint:?} is no address of a Hub: {reason}"), hint))
    };
    let mut url = Url::parse(endpoint).map_err(|e| wrong(e.to_string()))?;
    let (model, revision) = (asked.model, asked.model.revision());
    // A segment escapes the slashes of a revision such as refs/pr/1, as the Hub wants it.
    let mut segments = url.path_segments_mut().map_err(|()| wrong("it has no path".into()))?;
    segments.pop_if_empty().extend(["api", "models", model.owner(), model.name(), "revision", revision]);
    drop(segments);
    url.set_query(Some("blobs=true"));
    Ok(url)
}

async fn refusal(asked: &Asked<'_>, response: reqwest::Response, stall: Duration) -> Failure {
    let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (code, message) = (text("x-error-code"), text("x-error-message"));
    // The form with a date is not used by the Hub.
    let seconds = text(header::RETRY_AFTER.as_str()).and_then(|v| v.trim().parse().ok());
    let status = response.status().as_u16();
    // Reading the body lets the connection be used again.
    tokio::time::timeout(stall, response.bytes()).await.ok();
    asked.judge(&Refusal {
        status,
        code: code.as_deref(),
        message: message.as_deref(),
        retry_after: seconds.map(Duration::from_secs),
    })
}

/// Reads the Hub's answer, believing nothing that could lead out of the cache folder.
fn read(body: &[u8]) -> Result<Listing, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if !is_commit(&answer.sha) {
        return Err(format!("its commit is {:?}", answer.sha));
    }
    let files = answer.siblings.into_iter().map(read_file).collect::<Result<_, _>>()?;
    Ok(Listing { commit: answer.sha.to_ascii_lowercase(), files })
}

fn read_file(sibling: Sibling) -> Result<RemoteFile, String> {
    let path = sibling.rfilename;
    if !is_inside(&path) {
        return Err(format!("the path {path:?} leaves the repository"));
    }
    let (etag, size) = match sibling.lfs {
        Some(lfs) => (Some(lfs.sha256), lfs.size.or(sibling.size)),
        None => (sibling.blob_id, sibling.size),
    };
    let etag = etag.map(|etag| etag.to_ascii_lowercase());
    let is_id = |etag: &String| is_commit(etag) || is_sha256(etag);
    match (etag.filter(is_id), size) {
        (Some(etag), Some(size_bytes)) => Ok(RemoteFile { path, size_bytes, etag }),
        _ => Err(format!("{path} comes without its size or its contents' id")),
    }
}

/// Whether an etag is the sha256 of the contents.
pub(super) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())
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
        let found: Vec<_> = listing.files.iter().map(|f| (f.path.as_str(), f.size_bytes, f.etag.clone())).collect();
        assert_eq!(found, [("a.json", 3, git), ("v/m.safetensors", 9, sha.to_lowercase())]);
    }

    #[test]
    fn a_listing_that_cannot_be_trusted_is_refused() {
        let git = "1".repeat(40);
        let cases = [
            (format!(r#"{{"rfilename": "../a", "size": 3, "blobId": "{git}"}}"#), "leaves the repository"),
            (r#"{"rfilename": "a", "size": 3, "blobId": "../../x"}"#.into(), "without its size"),
            (r#"{"rfilename": "a", "size": 3}"#.into(), "without its size"),
            (format!(r#"{{"rfilename": "a", "blobId": "{git}"}}"#), "without its size"),
        ];
        for (files, says) in cases {
            let error = read_text(&files).err().expect(&files);
            assert!(error.contains(says), "{error}");
        }
        assert!(read(b"<html>").is_err());
        assert!(read(br#"{"sha": "../..", "siblings": []}"#).is_err());
    }
}
