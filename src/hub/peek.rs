//! What a model's files are, before they are here: configs whole, of weights the headers. It takes some hundred kilobytes to
//! recognise a model, to open it and to plan a run with it; gigabytes come when it is known that they will serve.

use std::{collections::BTreeMap, io::Read};

use super::{
    PlannedFile,
    download::Downloader,
    failure::{Asked, Failure, GaveUp, Patience},
};
use crate::{
    base::excerpt::excerpt,
    error::{Error, Result},
    weights::{Ahead, has_weights_ending, header_bytes},
};

/// What the first request for a header asks for: it holds the headers of all but the largest files.
const FIRST_BYTES: u64 = 256 << 10;
/// No config or index is longer.
const LONGEST_CONFIG_BYTES: u64 = 16 << 20;

/// What of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Header,
    /// That it is there is all that matters so far.
    Name,
}

/// What it takes to open a model: a tokenizer is read when prompts are.
fn part_of(file: &PlannedFile) -> Part {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    let is_config = name == "model_index.json" || name.ends_with("config.json") || is_index(name);
    match name {
        _ if has_weights_ending(name) => Part::Header,
        _ if is_config && file.size_bytes <= LONGEST_CONFIG_BYTES => Part::Whole,
        _ => Part::Name,
    }
}

/// `model.safetensors.index.json`, or that of a variant: `model.safetensors.index.fp16.json`.
fn is_index(name: &str) -> bool {
    name.contains(".safetensors.index.") && name.ends_with(".json")
}

impl Downloader<'_> {
    /// What is known of each file that is not in its place yet.
    ///
    /// # Errors
    /// [`Error::Network`] when the Hub refuses or stays unreachable; [`Error::Disk`] when a file of the cache cannot be read.
    pub(super) async fn peek(&self, files: &[&PlannedFile]) -> Result<BTreeMap<std::path::PathBuf, Ahead>> {
        let mut known = BTreeMap::new();
        for file in files {
            let ahead = match part_of(file) {
                Part::Whole => Ahead::Whole(self.first(file, file.size_bytes).await?),
                Part::Header => Ahead::Header { bytes: self.header(file).await?, file_bytes: file.size_bytes },
                Part::Name => Ahead::Name,
            };
            known.insert(self.cache.snapshot(self.commit).join(&file.path), ahead);
        }
        Ok(known)
    }

    /// The beginning of a file of weights, to the end of its header or further.
    async fn header(&self, file: &PlannedFile) -> Result<Vec<u8>> {
        let mut bytes = self.first(file, FIRST_BYTES.min(file.size_bytes)).await?;
        loop {
            match header_bytes(&bytes).map(|wanted| wanted.min(file.size_bytes)) {
                Some(wanted) if wanted > bytes.len() as u64 => bytes = self.first(file, wanted).await?,
                _ => return Ok(bytes),
            }
        }
    }

    /// The first `count` bytes of a file: from the cache where it is there, else from the Hub.
    async fn first(&self, file: &PlannedFile, count: u64) -> Result<Vec<u8>> {
        if self.cache.has_blob(file) {
            let path = self.cache.blob(&file.etag);
            let mut bytes = Vec::new();
            let read = std::fs::File::open(&path).and_then(|blob| blob.take(count).read_to_end(&mut bytes));
            return read.map(|_| bytes).map_err(|e| Error::disk("cannot read", &path, e));
        }
        let asked = Asked { model: self.model, file: Some(&file.path), settings: self.settings };
        let attempt = async |asked: &Asked<'_>| self.attempt_first(file, count, asked).await;
        Patience::new(asked, self.observer).until(attempt).await.map_err(GaveUp::into_error)
    }

    /// One request. A server that sends more than was asked for is listened to for no longer than it takes.
    async fn attempt_first(&self, file: &PlannedFile, count: u64, asked: &Asked<'_>) -> Result<Vec<u8>, Failure> {
        let mut bytes: Vec<u8> = Vec::new();
        let take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok((bytes.len() as u64) < count)
        };
        self.receive(file, 0..count, asked, take).await?;
        if bytes.len() as u64 >= count {
            bytes.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            return Ok(bytes);
        }
        let says = excerpt(&bytes).filter(|_| bytes.starts_with(b"<")).map(|text| format!(", which say {text:?}"));
        let (endpoint, found, says) = (&self.settings.endpoint, bytes.len(), says.unwrap_or_default());
        Err(Failure::passing(format!("{endpoint} stopped at {found} of {count} bytes{says}")))
    }
}
