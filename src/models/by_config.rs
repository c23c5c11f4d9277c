//! A model whose weights are nowhere yet, by its configs: they say which tensors it has and how large each is, which is all that a
//! plan needs. Nothing of it can be loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use candle_core::DType;
use serde_json::Value;

use super::{Family, ModelRequest, PartKind, PartSpec, whose::family_of_folder};
use crate::{
    error::Result,
    weights::{Ahead, Files},
};

/// The request with what is missing of the folder it names.
pub(super) fn completed(
    request: &ModelRequest,
    families: &[&'static dyn Family],
) -> Result<(ModelRequest, Option<String>)> {
    let (root, files) = (&request.model, &request.files);
    if !files.is_dir(root) {
        return Ok((request.clone(), None));
    }
    let family = family_of_folder(root, files, families)?;
    let elsewhere = |part: &PartSpec| request.parts.contains_key(part.name) || request.lent.contains_key(part.name);
    let (ahead, kinds) = missing(root, files, family, elsewhere, |_| None)?;
    let files = files.clone().and(&Files::with(ahead));
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let told = (!kinds.is_empty()).then(|| {
        let root = root.display();
        format!(
            "{root} holds configs and not all weights: these are planned as the configs say, in {}",
            kinds.join(" and ")
        )
    });
    Ok((ModelRequest { files, ..request.clone() }, told))
}

/// The files of weights and tokenizers that a folder in diffusers layout lacks, and the number types of the weights among them;
/// `stored` says in which a part's are, where that is known.
///
/// # Errors
/// [`crate::Error::Model`] for a config that makes no sense; [`crate::Error::Disk`] when one cannot be read.
pub(super) fn missing(
    root: &Path,
    files: &Files,
    family: &dyn Family,
    elsewhere: impl Fn(&PartSpec) -> bool,
    stored: impl Fn(&str) -> Option<DType>,
) -> Result<(BTreeMap<PathBuf, Ahead>, BTreeSet<&'static str>)> {
    let (mut ahead, mut kinds, mut names) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for part in family.parts().iter().filter(|part| !elsewhere(part)) {
        let folder = root.join(part.name);
        if part.kind == PartKind::Tokenizer && !part.is_in(&folder, files) {
            let set = part.files.first().into_iter().copied().flatten();
            names.extend(set.map(|name| (folder.join(name), Ahead::Name)));
        }
        let config = folder.join("config.json");
        if !part.has_weights() || !files.is_file(&config) || files.stored(&folder)?.is_some() {
            continue;
        }
        let value: Value = files.read_json(&config)?;
        let dtype = stored(part.name).unwrap_or_else(|| said_dtype(&value));
        ahead.insert(folder.join(WEIGHTS), Ahead::of_tensors(family.tensors(part.name, &value, &config)?, dtype));
        kinds.insert(dtype.as_str());
    }
    // A model that lacks a tokenizer and nothing else is damaged.
    if !kinds.is_empty() {
        ahead.extend(names);
    }
    Ok((ahead, kinds))
}

/// What weights are called that are not there; one of the usual names.
const WEIGHTS: &str = "model.safetensors";

/// The number type that a config of transformers names, in its two spellings; what models are published in where none is named.
fn said_dtype(config: &Value) -> DType {
    match config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(Value::as_str) {
        Some("float32") => DType::F32,
        Some("float16") => DType::F16,
        _ => DType::BF16,
    }
}
