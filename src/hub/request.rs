//! Requests that are our own: addresses, the token, patience with silence, and answers in words.

use std::{io::Read, time::Duration};

use reqwest::{Method, Response, Url, header};
use serde::Deserialize;

use super::{
    failure::{Asked, Failure, NO_HUB, Refusal},
    settings::Token,
};
use crate::{base::excerpt::excerpt, error::Error};

/// No answer that is read whole is longer, unpacked: a million files listed.
const LONGEST_ANSWER_BYTES: u64 = 256 << 20;

/// The address of these segments below the Hub's own.
pub(super) fn address<'a>(asked: &Asked<'_>, segments: impl IntoIterator<Item = &'a str>) -> Result<Url, Failure> {
    let endpoint = &asked.settings.endpoint;
    let wrong = |reason: String| {
        let hint = "set HF_ENDPOINT to an address such as https://huggingface.co, or unset it";
        Failure::Final(Error::request(format!("{endpoint:?} is no address of a Hub: {reason}"), hint))
    };
    let mut url = Url::parse(endpoint).map_err(|e| wrong(e.to_string()))?;
    // A segment escapes the slashes of a revision such as refs/pr/1, as the Hub wants it.
    let mut path = url.path_segments_mut().map_err(|()| wrong("it has no path".into()))?;
    path.pop_if_empty().extend(segments);
    drop(path);
    Ok(url)
}

/// Asks once and waits for the answer's head. Nobody but the Hub sees the token.
pub(super) async fn send(
    client: &reqwest::Client,
    asked: &Asked<'_>,
    method: Method,
    url: Url,
) -> Result<Response, Failure> {
    let settings = asked.settings;
    // Packed answers have no length, and this client unpacks none by itself.
    let mut request = client.request(method, url.clone()).header(header::ACCEPT_ENCODING, "identity");
    let is_hub = Url::parse(&settings.endpoint).is_ok_and(|hub| hub.origin() == url.origin());
    if let Some(token) = settings.token.as_ref().filter(|_| is_hub) {
        request = request.bearer_auth(Token::secret(token));
    }
    asked.in_time(request.send()).await?.map_err(|e| asked.judge_reqwest(&e))
}

/// The whole of an answer, unpacked: some mirrors pass on what the Hub packed for them, asked for or not.
pub(super) async fn body(asked: &Asked<'_>, response: Response) -> Result<Vec<u8>, Failure> {
    let encoding = text_of(&response, header::CONTENT_ENCODING.as_str()).unwrap_or_default().to_ascii_lowercase();
    let bytes = asked.in_time(response.bytes()).await?.map_err(|e| asked.judge_reqwest(&e))?;
    unpacked(&encoding, &bytes).map_err(|reason| {
        let what =
            format!("{} answered {} in a form that cannot be read: {reason}", asked.settings.endpoint, asked.what());
        Failure::Final(Error::Network { what, hint: NO_HUB.into() })
    })
}

fn unpacked(encoding: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let reader: Box<dyn Read + '_> = match encoding {
        "" | "identity" => return Ok(bytes.to_vec()),
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        "deflate" => Box::new(flate2::read::ZlibDecoder::new(bytes)),
        "br" => Box::new(brotli_decompressor::Decompressor::new(bytes, 4096)),
        other => return Err(format!("packed as {other:?}, which was not asked for")),
    };
    let read = reader.take(LONGEST_ANSWER_BYTES + 1).read_to_end(&mut unpacked);
    read.map_err(|e| format!("{encoding}: {e}"))?;
    if unpacked.len() as u64 > LONGEST_ANSWER_BYTES { Err("it is too long".into()) } else { Ok(unpacked) }
}

/// A header's text.
pub(super) fn text_of(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(|value| value.trim().to_owned())
}

/// What an answer that is no success means.
pub(super) async fn refusal(asked: &Asked<'_>, response: Response) -> Failure {
    let (code, message) = (text_of(&response, "x-error-code"), text_of(&response, "x-error-message"));
    // The form with a date is not used by the Hub.
    let seconds = text_of(&response, header::RETRY_AFTER.as_str()).and_then(|value| value.parse().ok());
    let status = response.status().as_u16();
    // Reading the body lets the connection be used again; some servers say there, and only there, what is wrong.
    let body = body(asked, response).await.ok();
    let message = message.or_else(|| said(&body?));
    asked.judge(&Refusal {
        status,
        code: code.as_deref(),
        message: message.as_deref(),
        retry_after: seconds.map(Duration::from_secs),
    })
}

/// What the body of a refusal says: the Hub's `{"error": ...}`, or the beginning of a text or page.
fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    serde_json::from_slice::<Said>(body).map(|said| said.error).ok().or_else(|| excerpt(body))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn packed_answers_are_unpacked() {
        let text = b"{\"sha\": 1}".repeat(50);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).expect("packed");
        let gzip = gzip.finish().expect("packed");
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&text).expect("packed");
        // `echo -n '{"sha": 1}' | brotli`, as Python's brotli packs it.
        let brotli = [0x8b, 0x04, 0x80, 0x7b, 0x22, 0x73, 0x68, 0x61, 0x22, 0x3a, 0x20, 0x31, 0x7d, 0x03];
        assert_eq!(unpacked("gzip", &gzip), Ok(text.clone()));
        assert_eq!(unpacked("deflate", &zlib.finish().expect("packed")), Ok(text.clone()));
        assert_eq!(unpacked("br", &brotli), Ok(text[..10].to_vec()));
        assert_eq!(unpacked("", &text), Ok(text.clone()));
        assert!(unpacked("zstd", &gzip).expect_err("unknown").contains("zstd"));
        assert!(unpacked("gzip", &gzip[..20]).is_err() && unpacked("br", &text).is_err());
    }
}
