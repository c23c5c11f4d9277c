//! Files as people have them: a transformer alone or with everything inside, in folders as ComfyUI keeps them, its other parts found
//! by what they hold or fetched from who lends them.

#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "tests/hub uses all of it")]
mod hub_server;
#[path = "../support/mod.rs"]
mod support;

mod candidates;
mod info;
mod lent;
mod tree;
mod whole;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor, safetensors};
use support::{copy_folder, fixture, program::Place};

const MODEL: &str = "tiny-bfl/flux1-tiny.safetensors";
const VAE: &str = "tiny-bfl/ae.safetensors";
const CLIP: &str = "tiny-flux/text_encoder/model.safetensors";
/// The shapes of a CLIP this small do not tell its heads.
const CLIP_CONFIG: &str = "tiny-flux/text_encoder/config.json";
const T5: &str = "tiny-flux/text_encoder_2/model.safetensors";

/// Puts copies of fixtures, each at its path in the place.
fn put(place: &Place, files: &[(&str, &str)]) {
    for (path, from) in files {
        let (to, from) = (place.path(path), fixture(from));
        fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
        if from.is_dir() { copy_folder(&from, &to) } else { fs::copy(&from, &to).map(drop).expect("copied") }
    }
}

/// Both tokenizers, in folders that are called as diffusers calls them.
fn put_tokenizers(place: &Place, folder: &str) {
    for name in ["tokenizer", "tokenizer_2"] {
        put(place, &[(&format!("{folder}/{name}"), &format!("tiny-flux/{name}"))]);
    }
}

/// The tensors of a file.
fn tensors(path: &Path) -> HashMap<String, Tensor> {
    safetensors::load(path, &Device::Cpu).expect("tensors")
}

/// Writes tensors to a file of the place.
fn save(place: &Place, path: &str, tensors: &HashMap<String, Tensor>) -> PathBuf {
    let path = place.path(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    safetensors::save(tensors, &path).expect("saved");
    path
}

/// The same numbers in another type.
fn cast(tensors: &HashMap<String, Tensor>, dtype: DType) -> HashMap<String, Tensor> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(dtype).expect("cast"))).collect()
}
