//! What a model computes with, as a short text for each part: two models are the same where these are, wherever their files
//! lie and whatever they are called.
//!
//! Of a network it is what its config says and a sample of every tensor as it is stored, of a tokenizer its files. A file that is
//! copied, moved, touched or fetched again is the same; one that is replaced in place is not.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Found, PartKind, PartSpec, Place, parts::open};
use crate::{
    base::{hex::hex, json::sorted},
    error::{Error, Result},
    weights::{Files, TensorSource},
};

/// The text of each part that has files of its own, by the part's name.
pub type Contents = BTreeMap<&'static str, String>;

/// Up to this many bytes a network is read whole.
const SMALL_BYTES: u64 = 64 << 20;
/// Bytes of the text: 32 hexadecimal digits tell all models apart.
const DIGEST_BYTES: usize = 16;
/// Says how a tokenizer reads; it belongs to every set of a tokenizer's files.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The contents of the parts that were found. What of a scheduler matters are its numbers, which the model tells.
///
/// # Errors
/// [`Error::Disk`] and [`Error::Model`] when a file cannot be read, or is not here yet.
pub(super) fn of(found: &Found, parts: &[PartSpec]) -> Result<Contents> {
    let mut contents = Contents::new();
    for part in parts {
        let Some(place) = found.optional(part.name) else { continue };
        let text = match (part.kind, place) {
            (PartKind::Scheduler, _) => continue,
            (PartKind::Tokenizer, place) => tokenizer(part, place, &found.files)?,
            // The file that holds it is told of as the transformer's.
            (PartKind::Network, Place::Inside(_)) => continue,
            (PartKind::Denoiser | PartKind::Network, place) => network(place, &found.files)?,
        };
        contents.insert(part.name, text);
    }
    Ok(contents)
}

fn network(place: &Place, files: &Files) -> Result<String> {
    let mut hash = Sha256::new();
    let configs: Vec<Value> = match place {
        Place::Folder(folder) => {
            let config = Some(folder.join("config.json")).filter(|config| files.is_file(config));
            config.map(|config| files.read_json(&config)).transpose()?.into_iter().collect()
        }
        // Any that may be its own; what is no JSON is not.
        Place::File(file) => file.configs().filter_map(|config| files.read_json(&config).ok()).collect(),
        Place::Inside(_) => Vec::new(),
    };
    configs.into_iter().for_each(|config| hash.update(without_remarks(config)));
    let source = open::source_at(place, files)?;
    tensors(&*source, &mut hash)?;
    Ok(digest(hash))
}

/// A config without what says who wrote it: keys that begin with an underscore.
fn without_remarks(config: Value) -> String {
    match config {
        Value::Object(mut map) => {
            map.retain(|key, _| !key.starts_with('_'));
            sorted(&Value::Object(map))
        }
        other => sorted(&other),
    }
}

/// Name, shape, number type and bytes of every tensor.
fn tensors(source: &dyn TensorSource, hash: &mut Sha256) -> Result<()> {
    let mut names = source.names();
    names.sort();
    let bytes = |name: &String| source.bytes(name).unwrap_or(0);
    let is_small = names.iter().map(bytes).sum::<u64>() <= SMALL_BYTES;
    for name in &names {
        hash.update(format!("\n{name} {:?} {:?}\n", source.shape(name), source.file_dtype(name)));
        if let Some(kind) = source.blocks(name) {
            hash.update(kind.name());
        }
        source.sample(name, is_small, &mut |bytes| hash.update(bytes))?;
    }
    Ok(())
}

fn tokenizer(part: &PartSpec, place: &Place, files: &Files) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |path: &Path| -> Result<()> {
        let bytes = std::fs::read(path).map_err(|error| Error::disk("cannot read", path, error))?;
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
        Ok(())
    };
    match place {
        Place::File(file) => add(&file.path)?,
        Place::Folder(folder) => {
            let set = part.set_in(folder, files).unwrap_or_default();
            let files = set.iter().chain(&[TOKENIZER_CONFIG]).map(|file| folder.join(file));
            files.filter(|file| file.is_file()).try_for_each(|file| add(&file))?;
        }
        Place::Inside(_) => {}
    }
    Ok(digest(hash))
}

fn digest(hash: Sha256) -> String {
    hex(&hash.finalize()[..DIGEST_BYTES])
}
