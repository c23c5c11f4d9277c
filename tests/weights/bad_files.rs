//! Broken safetensors files and indexes: each is refused with words that say what is wrong.

use std::fs;

use dype::testing::{
    Result,
    weights::{ShardIndex, TensorFiles, open_folder},
};

use crate::{file, fixture, refused, refused_with, tiny_flux};

fn open(bytes: Vec<u8>) -> Result<TensorFiles> {
    TensorFiles::from_bytes("x.safetensors", bytes)
}

const PAIR: &str =
    r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;

#[test]
fn a_good_file_is_read() {
    assert!(open(file(PAIR, 12)).is_ok());
    assert!(open(file("{}", 0)).is_ok());
}

/// From DESIGN.md: "ends at 1.2 GB of 4.9 GB", hint "delete it and run again".
#[test]
fn a_truncated_file_says_where_it_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model-00002-of-00003.safetensors");
    let header = r#"{"a":{"dtype":"BF16","shape":[1000,2450000],"data_offsets":[0,4900000000]}}"#;
    fs::write(&path, file(header, 0)).expect("written");
    // Sparse: takes no space.
    fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(1_200_000_000)).expect("sparse");
    let (what, hint) = refused(TensorFiles::open(&[path]));
    assert!(what.ends_with("model-00002-of-00003.safetensors ends at 1.2 GB of 4.9 GB"), "{what}");
    assert!(hint.contains("delete the file and run again"), "{hint}");
}

#[test]
fn a_file_short_of_one_byte_says_so_in_bytes() {
    let bytes = file(PAIR, 11);
    let (found, whole) = (bytes.len(), bytes.len() + 1);
    refused_with(open(bytes), &[&format!("ends at {found} of {whole} bytes")]);
}

#[test]
fn broken_headers_are_refused() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let overlap = PAIR.replace("[8,12]", "[4,8]");
    let gap = PAIR.replace("[8,12]", "[12,16]");
    let twice = PAIR.replace("\"b\"", "\"a\"");
    let max = usize::MAX;
    let cases = [
        (file(&overlap, 8), "tensor b overlaps a"),
        (file(&gap, 16), "4 bytes between a and tensor b"),
        (file(&entry("F32", "[1]", "[4,8]"), 8), "4 bytes between the header and tensor a"),
        (file(PAIR, 13), "1 byte after the last tensor"),
        (file(&twice, 12), "a comes twice"),
        (file(&entry("F32", "[2]", "[0,4]"), 4), "takes 8 bytes, but its offsets are 0..4"),
        (file(&entry("F32", "[1]", "[8,4]"), 8), "its offsets are 8..4"),
        (file(&entry("F32", "[1]", &format!("[{max},{max}]")), 8), "impossible offsets"),
        (file(&entry("F32", &format!("[{max},4]"), "[0,8]"), 8), "impossible shape"),
        (file(&entry("F32", "[-1]", "[0,4]"), 4), "not a list of tensors"),
        (file(&entry("F4", "[1]", "[0,1]"), 1), "impossible shape [1]"),
        (file(&entry("X99", "[1]", "[0,4]"), 4), "unknown number type X99"),
        (file("{\"a\": 3}", 0), "not a list of tensors"),
        (file("[]", 0), "not a list of tensors"),
        (file("{", 0), "not a list of tensors"),
        (file("{} x", 0), "not a list of tensors"),
        (file("\u{fffd}", 0), "not a list of tensors"),
        (file("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0), "data_offsets"),
    ];
    for (bytes, words) in cases {
        refused_with(open(bytes), &["x.safetensors", words]);
    }
}

#[test]
fn impossible_header_lengths_are_refused() {
    let with_length = |n: u64| [&n.to_le_bytes()[..], b"{}"].concat();
    refused_with(open(with_length(3)), &["x.safetensors", "header of 3 bytes reaches beyond the end", "delete it"]);
    refused_with(open(with_length(99_000_000)), &["header of 99000000 bytes reaches beyond"]);
    for absurd in [100_000_001, 1 << 40, u64::MAX] {
        refused_with(open(with_length(absurd)), &["not a safetensors file", &absurd.to_string()]);
    }
    refused_with(open(vec![1, 2, 3]), &["only 3 bytes"]);
    refused_with(open(Vec::new()), &["the file is empty", "delete it"]);
}

#[test]
fn other_kinds_of_files_are_recognised() {
    let cases: [(&[u8], &str); 9] = [
        (b"PK\x03\x04archive/data.pkl", "PyTorch pickle"),
        (b"\x80\x02}q\x01rest of it", "PyTorch pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Access denied</html>", "a web page, not a model: \"Access denied\""),
        (b"\n<HTML><title>Sign in</title>", "a web page, not a model: \"Sign in\""),
        (b"Invalid username or password.", "a text, not a model: \"Invalid username or password.\""),
        (b"denied", "a text, not a model: \"denied\""),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
        (b"<html><body>Sign in</body></html>", "HF_TOKEN"),
    ];
    for (bytes, words) in cases {
        refused_with(open(bytes.to_vec()), &["x.safetensors", words]);
    }
}

#[test]
fn an_empty_file_and_a_folder_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let empty = folder.path().join("empty.safetensors");
    fs::write(&empty, "").expect("written");
    refused_with(TensorFiles::open(&[empty]), &["empty.safetensors", "the file is empty"]);
    refused_with(TensorFiles::open(&[folder.path().to_path_buf()]), &["is a folder"]);
    let missing = TensorFiles::open(&[folder.path().join("none.safetensors")]).expect_err("no such file");
    assert!(missing.to_string().starts_with("cannot open") && missing.exit_code() == 1, "{missing}");
}

#[test]
fn one_name_in_two_shards_is_refused() {
    let shard = fixture("tiny-flux/text_encoder/model.safetensors");
    let folder = tempfile::tempdir().expect("folder");
    let copy = folder.path().join("copy.safetensors");
    fs::copy(&shard, &copy).expect("copied");
    refused_with(TensorFiles::open(&[shard, copy]), &["is in both", "model.safetensors", "copy.safetensors"]);
}

#[test]
fn an_index_names_its_missing_shards() {
    let model = tiny_flux();
    let folder = model.path().join("transformer");
    let shard = "diffusion_pytorch_model-00002-of-00003.safetensors";
    fs::remove_file(folder.join(shard)).expect("removed");
    refused_with(open_folder(&folder), &["index.json names 3 shards, 1 missing", shard]);
}

#[test]
fn an_index_that_does_not_match_its_shards_is_refused() {
    let model = tiny_flux();
    let folder = model.path().join("transformer");
    let path = folder.join("diffusion_pytorch_model.safetensors.index.json");
    let text = fs::read_to_string(&path).expect("index");
    fs::write(&path, text.replace("\"x_embedder.bias\"", "\"x_embedder.bias2\"")).expect("written");
    refused_with(open_folder(&folder), &["promises tensor x_embedder.bias2", "no file has it"]);
    let moved = text.replace(
        "\"x_embedder.bias\": \"diffusion_pytorch_model-00001-of-00003",
        "\"x_embedder.bias\": \"diffusion_pytorch_model-00002-of-00003",
    );
    assert_ne!(moved, text);
    fs::write(&path, moved).expect("written");
    refused_with(open_folder(&folder), &["promises tensor x_embedder.bias", "in another file"]);
}

#[test]
fn odd_indexes_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.safetensors.index.json");
    let cases = [
        ("{\"weight_map\": {}}", "lists no tensor"),
        ("{\"weight_map\": {\"a\": \"../../etc/passwd\"}}", "which is not a file in its folder"),
        ("{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "which is not a file in its folder"),
        ("{\"weight_map\": {\"a\": \"\"}}", "which is not a file in its folder"),
        ("{\"weight_map\": {\"a\": 3}}", "index.json"),
        ("{\"metadata\": {}}", "weight_map"),
        ("not json", "index.json"),
    ];
    for (text, words) in cases {
        fs::write(&path, text).expect("written");
        refused_with(ShardIndex::read(&path), &[words]);
        refused_with(open_folder(folder.path()), &[words]);
    }
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let folder = tempfile::tempdir().expect("folder");
    let words = ["diffusion_pytorch_model.safetensors[.index.json]", "model.safetensors"];
    refused_with(open_folder(folder.path()), &words);
    fs::write(folder.path().join("pytorch_model.bin"), "x").expect("written");
    refused_with(open_folder(folder.path()), &["only .safetensors files are read"]);
}

/// Metadata are texts; whatever else stands there is passed over, however much of it there is.
#[test]
fn what_is_no_text_in_metadata_is_passed_over() {
    let with = |metadata: &str| open(file(&PAIR.replacen('{', &format!("{{\"__metadata__\":{metadata},"), 1), 12));
    for metadata in
        ["[0,[1],{\"a\":2}]", "null", "\"pt\"", "1.5", "-1", "true", "{\"format\":\"pt\",\"of\":{\"a\":[1]}}"]
    {
        let files = with(metadata).expect(metadata);
        let expected = metadata.contains("format").then_some("pt");
        assert_eq!((files.metadata("format"), files.metadata("of")), (expected, None), "{metadata}");
    }
}
