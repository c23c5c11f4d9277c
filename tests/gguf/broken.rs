//! Files that are refused: each with one clear error, before anything is made of what it announces.

use std::fs;

use dype::testing::{
    Error,
    base::json::read_json,
    models::{ModelRequest, Registry},
    weights::TensorFiles,
};
use serde::Deserialize;

use crate::{
    path,
    support::{fixture, program::Place},
};

#[derive(Deserialize)]
struct Broken {
    file: String,
    why: String,
}

/// What the error says of each.
const WORDS: &[(&str, &str)] = &[
    ("empty", "the file is empty"),
    ("three-bytes", "this is a text, not a model"),
    ("bad-magic", "this is no GGUF file: it begins with 47 47 55 58"),
    ("safetensors-inside", "this is no GGUF file"),
    ("version-1", "its version is 1"),
    ("version-99", "its version is 99"),
    ("big-endian", "it is big-endian"),
    ("cut-in-header", "tensors, but only 34 bytes follow"),
    ("cut-in-infos", "the file ends at 110"),
    ("cut-in-data", "ends at 468 of"),
    ("no-data", "ends at 192 of"),
    ("offset-beyond", "ends at 768 bytes of 1099.5 GB"),
    ("offset-wraps", "lies at an impossible offset"),
    ("offset-unaligned", "no multiple of the alignment, 32"),
    ("unknown-type", "the number type 77"),
    ("removed-type", "the number type 4"),
    ("half-blocks", "rows of 48 in Q8_0, whose blocks are of 32 numbers"),
    ("many-tensors", "tensors, but only"),
    ("many-keys", "keys, but only"),
    ("long-name", "the file ends at 96"),
    ("long-array", "values, but only"),
    ("nested-arrays", "an array of arrays"),
    ("huge-dims", "an impossible shape"),
    ("nine-dims", "9 dimensions, expected at most 4"),
    ("many-dims", "dimensions, expected at most 4"),
    ("twice", "comes twice"),
    ("not-utf8", "is not UTF-8"),
    ("bad-value-type", "has the unknown type 99"),
    ("alignment-zero", "its general.alignment is 0"),
    ("alignment-33", "its general.alignment is 33"),
    ("architecture-llama", "it says that it was made for llama"),
    ("architecture-number", "its general.architecture is no text"),
    ("no-tensors", "it holds no tensor"),
    ("overlap", "overlaps"),
    ("orig-shape-wrong", "but its true shape is"),
    ("incomplete", "it lacks double_blocks.0.img_attn.qkv, double_blocks.0.txt_attn.qkv, single_blocks.0.linear1 and"),
];

fn refused(file: &str) -> String {
    let parts = ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"];
    let parts = parts.map(|part| (part.to_owned(), fixture("tiny-flux").join(part))).into();
    let request = ModelRequest { parts, ..ModelRequest::new(path(&format!("broken/{file}.gguf"))) };
    match Registry::default().open(&request) {
        Err(Error::Model { what, hint }) => {
            assert!(!hint.is_empty(), "{what}");
            what
        }
        Err(other) => panic!("{file}: {other}"),
        Ok(_) => panic!("{file} is not refused"),
    }
}

#[test]
fn every_broken_file_is_refused_with_its_reason() {
    let all: Vec<Broken> = read_json(&path("expected/broken.json")).expect("golden");
    assert_eq!(all.len(), WORDS.len());
    for Broken { file, why } in all {
        let (_, words) = WORDS.iter().find(|(name, _)| *name == file).expect("a word of each");
        let what = refused(&file);
        assert!(what.contains(words) && what.contains(&file), "{file} ({why}): {what}");
    }
}

#[test]
fn a_good_file_that_is_cut_anywhere_is_refused() {
    let whole = fs::read(path("types/align64.gguf")).expect("readable");
    assert!(TensorFiles::from_bytes("x.gguf", whole.clone()).is_ok());
    for length in (0..whole.len()).step_by(7) {
        let cut = whole[..length].to_vec();
        assert!(TensorFiles::from_bytes("x.gguf", cut).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn types_that_are_not_read_are_refused_by_name() {
    let place = Place::new();
    let args = |model: &str| {
        let tiny = fixture("tiny-flux").display().to_string();
        ["--model", &tiny, "--text-encoder-2", model, "--width", "64", "--height", "64", "--prompt", "x", "-o", "x.png"]
            .map(str::to_owned)
    };
    let model = path("types/others.gguf").display().to_string();
    place.dype(&args(&model)).fails(1, &["others.gguf", "is not a T5 text encoder"]);
    let model = path("broken/unknown-type.gguf").display().to_string();
    place.dype(&args(&model)).fails(1, &["unknown-type.gguf", "the number type 77, which is not known", "Q8_0"]);
    let flux = path("models/narrow-Q8_0.gguf").display().to_string();
    place.dype(&args(&flux)).fails(1, &["narrow-Q8_0.gguf is not a T5 text encoder", "made for flux"]);
}
