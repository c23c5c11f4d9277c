//! Models that are incomplete, damaged or of another kind: one error that names the file, before any weight is loaded.

use std::fs;

use tempfile::TempDir;

use crate::support::{fixture, program::Place, safetensors, tiny_flux};

/// Runs a model and wants it refused with these words.
#[track_caller]
fn refused(model: &TempDir, words: &[&str]) {
    let place = Place::new();
    let path = model.path().display().to_string();
    let run = place.small(&["--model", &path, "-o", "x.png"]);
    run.fails(1, words);
    assert!(!run.stderr.contains("text  "), "{}", run.stderr);
    assert_eq!(place.names(), [""; 0]);
}

/// tiny-flux with one file replaced, or removed.
fn with(file: &str, bytes: Option<&[u8]>) -> TempDir {
    let model = tiny_flux();
    let path = model.path().join(file);
    match bytes {
        Some(bytes) => fs::write(path, bytes).expect("written"),
        None => fs::remove_file(path).expect("removed"),
    }
    model
}

/// tiny-flux with a word of a file replaced.
fn with_word(file: &str, word: &str, other: &str) -> TempDir {
    let text = fs::read_to_string(fixture("tiny-flux").join(file)).expect("fixture");
    assert!(text.contains(word), "{word}");
    with(file, Some(text.replace(word, other).as_bytes()))
}

const CLIP: &str = "text_encoder/model.safetensors";

#[test]
fn a_part_is_missing() {
    let model = tiny_flux();
    for part in ["vae", "tokenizer_2"] {
        fs::remove_dir_all(model.path().join(part)).expect("removed");
    }
    refused(&model, &["lacks vae", "vae/config.json", "tokenizer_2/tokenizer.json", "--vae, --tokenizer-2"]);
}

#[test]
fn a_config_is_broken() {
    let file = "transformer/config.json";
    refused(&with(file, Some(b"<html>")), &[file, "not JSON", "fetch it again"]);
    refused(&with(file, Some(b"Invalid username or password.")), &[file, "not JSON", "Invalid username or password."]);
    refused(&with(file, Some(b"<html><title>Sign in</title>")), &[file, "not JSON", "it says \"Sign in\""]);
    refused(&with(file, Some(b"{\"num_layers\": 2")), &[file, "not JSON"]);
    refused(&with_word(file, "num_layers", "other"), &[file, "no tensor", "num_layers (19)"]);
    refused(&with("scheduler/scheduler_config.json", Some(b"{")), &["scheduler/scheduler_config.json", "not JSON"]);
}

#[test]
fn a_safetensors_file_is_damaged() {
    let whole = fs::read(fixture("tiny-flux").join(CLIP)).expect("fixture");
    refused(&with(CLIP, Some(&whole[..whole.len() - 1000])), &[CLIP, "ends at 116.4 kB of 117.4 kB", "cut short"]);
    refused(&with(CLIP, Some(&whole[..1000])), &[CLIP, "beyond the end of the file"]);
    refused(&with(CLIP, Some(b"")), &[CLIP, "the file is empty"]);
    let mut long = whole.clone();
    long[..8].copy_from_slice(&1_000_000_000_u64.to_le_bytes());
    refused(&with(CLIP, Some(&long)), &[CLIP, "announce a header of 1000000000 bytes"]);
    let one = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let overlapping = format!(r#"{{{one},"b":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}}}"#);
    refused(&with(CLIP, Some(&safetensors(&overlapping, 12))), &[CLIP, "overlap"]);
}

#[test]
fn a_tensor_is_missing_or_misshapen() {
    let whole = fs::read(fixture("tiny-flux").join(CLIP)).expect("fixture");
    // Names are replaced by names as long, so that offsets stay.
    let renamed = |from: &[u8], to: &[u8]| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|bytes| bytes == from).expect("the name");
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let missing = renamed(b"final_layer_norm.bias", b"final_layer_norm.bios");
    refused(&with(CLIP, Some(&missing)), &[CLIP, "no tensor", "final_layer_norm.bias"]);
    refused(&with_word("text_encoder/config.json", "865", "866"), &["[865, 32]", "expected [866, 32]"]);
}

#[test]
fn a_shard_is_missing() {
    let shard = "diffusion_pytorch_model-00002-of-00003.safetensors";
    refused(
        &with(&format!("transformer/{shard}"), None),
        &["index.json names 3 shards, 1 missing", shard, "incomplete"],
    );
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    refused(&with(index, Some(b"{}")), &["index.json", "weight_map"]);
}

#[test]
fn a_tokenizer_is_broken() {
    refused(&with("tokenizer/vocab.json", Some(b"{")), &["tokenizer/vocab.json", "not JSON"]);
    refused(&with("tokenizer/merges.txt", Some(b"\xff\xfe")), &["tokenizer/merges.txt"]);
    refused(&with("tokenizer_2/tokenizer.json", Some(b"{}")), &["tokenizer_2/tokenizer.json"]);
    refused(&with("tokenizer_2/tokenizer.json", Some(b"<html>")), &["tokenizer_2/tokenizer.json"]);
    // A table that its reader would index beyond its end: no word of a panic.
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture("tiny-flux/tokenizer_2/tokenizer.json")).expect("fixture"))
            .expect("JSON");
    json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = "AAAAAA==".into();
    let model = with("tokenizer_2/tokenizer.json", Some(json.to_string().as_bytes()));
    let place = Place::new();
    place.small(&["--model", &model.path().display().to_string()]).fails(1, &["tokenizer_2/tokenizer.json"]);
}

#[test]
fn a_model_that_is_not_flux_says_what_it_is() {
    let other = with_word("model_index.json", "FluxPipeline", "StableDiffusionXLPipeline");
    refused(&other, &["this is a StableDiffusionXLPipeline model, not FLUX.1", "black-forest-labs/"]);
    refused(
        &with_word("transformer/config.json", "FluxTransformer2DModel", "SD3Transformer2DModel"),
        &["SD3Transformer2DModel"],
    );
    let place = Place::new();
    let vae = fixture("tiny-bfl/ae.safetensors").display().to_string();
    place.small(&["--model", &vae]).fails(1, &["not a FLUX.1 ", "an autoencoder (VAE)"]);
    let names = r#"{"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    fs::write(place.path("style.safetensors"), safetensors(names, 4)).expect("written");
    place.small(&["--model", "style.safetensors"]).fails(1, &["not a FLUX.1 ", "a LoRA"]);
    fs::write(place.path("flux.gguf"), b"GGUF\x03\0\0\0and more").expect("written");
    place.small(&["--model", "flux.gguf"]).fails(1, &["flux.gguf: its header", "the file is damaged"]);
}

#[test]
fn a_folder_that_is_no_model() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).expect("a folder");
    place.small(&["--model", "empty"]).fails(1, &["holds no model in diffusers layout", "model_index.json"]);
    let folder = fixture("tiny-bfl").display().to_string();
    place.small(&["--model", &folder]).fails(1, &["give the file: --model", "flux1-tiny.safetensors"]);
}

/// A tensor of NaNs in the transformer: the first step's latents cannot be finite, and no picture comes of it.
#[test]
fn numbers_that_are_not_finite_name_the_step() {
    let model = tiny_flux();
    let name = "proj_out.weight";
    let file = fs::read_dir(model.path().join("transformer")).expect("a folder").flatten().find_map(|entry| {
        let bytes = fs::read(entry.path()).expect("a file");
        let is_it = entry.path().extension().is_some_and(|ending| ending == "safetensors");
        let start = is_it.then(|| 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize)?;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).expect("a header");
        let offset = |i: usize| header[name]["data_offsets"][i].as_u64().map(|at| start + at as usize);
        Some((entry.path(), bytes, offset(0)?..offset(1)?))
    });
    let (path, mut bytes, place_of_it) = file.expect("the tensor");
    bytes[place_of_it].fill(0xff); // NaN in bf16
    fs::write(path, bytes).expect("written");
    let place = Place::new();
    let model = model.path().display().to_string();
    let run = place.small(&["--model", &model, "--steps", "3", "-o", "x.png"]);
    run.fails(1, &["not finite", "step 1 of 3"]);
    assert_eq!(place.names(), [""; 0]);
}
