//! Requests that make no sense, and outputs that cannot be.

use std::fs;

use crate::{FILE, FOLDER, convert, fixture, path, support::program::Place};

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let place = Place::new();
    let model = path(FILE);
    let typed = |kind: &str| {
        let run = convert(&place, &model, "x.gguf", kind, &[]);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        run.stderr
    };
    assert!(typed("q9_z").contains("q8_0, q6_k"));
    assert!(typed("q4_k_m").contains("q4_k is"));
    assert!(typed("iq4_nl").contains("is wanted"));
    assert!(typed("q4").contains("q4_k, q4_1, q4_0"));
    for (output, kind, words) in [
        ("x.gguf", "fp8", &["a .gguf file has no numbers of type fp8", "x.safetensors"][..]),
        ("x.safetensors", "q4_k", &["no numbers of type q4_k", "x.gguf"]),
        ("x.bin", "q8_0", &["x.bin ends neither", "x.gguf"]),
        ("x", "bf16", &["x ends neither"]),
    ] {
        convert(&place, &model, output, kind, &[]).fails(2, words);
    }
    for (part, words) in [
        ("text_encoder_9", &["has no such part", "text_encoder_2"][..]),
        ("vae", &["the vae of a FLUX.1 model is not converted"]),
        ("tokenizer", &["tokenizer"]),
    ] {
        convert(&place, &path(FOLDER), "x.safetensors", "bf16", &["--part", part]).fails(2, words);
    }
    convert(&place, &path(FOLDER), "clip.gguf", "q8_0", &["--part", "text_encoder"])
        .fails(2, &["no program reads", ".safetensors"]);
    convert(&place, "nowhere.safetensors", "x.gguf", "q8_0", &[]).fails(2, &["nowhere.safetensors"]);
    convert(&place, &path("gguf/broken/incomplete.gguf"), "x.gguf", "q8_0", &[]).fails(1, &["lacks double_blocks"]);
    convert(&place, &path("lora/files/peft.safetensors"), "x.gguf", "q8_0", &[]).fails(1, &["LoRA"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

/// It has no flags of parts, and names none.
#[test]
fn what_is_missing_of_a_model_may_be_given_in_its_place() {
    let place = Place::new();
    fs::create_dir_all(place.path("m/transformer")).expect("a folder");
    for file in ["model_index.json", "transformer/config.json"] {
        fs::copy(fixture(FOLDER).join(file), place.path("m").join(file)).expect("copied");
    }
    let without = |part: &[&str], words: &[&str]| {
        let run = convert(&place, "m", "x.safetensors", "bf16", part);
        run.fails(1, words);
        assert!(!run.stderr.contains("flag") && !run.stderr.contains("--text-encoder"), "{}", run.stderr);
    };
    without(&[], &["transformer holds no weights", "give the file of this part itself"]);
    let words = ["lacks text_encoder_2", "give the file of its text_encoder_2 itself in place of the model"];
    without(&["--part", "text_encoder_2"], &words);
}

#[test]
fn nothing_is_replaced_unasked_and_never_what_is_read() {
    let place = Place::new();
    fs::copy(fixture(FILE), place.path("m.safetensors")).expect("copied");
    fs::write(place.path("x.gguf"), "mine").expect("written");
    convert(&place, "m.safetensors", "x.gguf", "q8_0", &[]).fails(2, &["x.gguf is there already", "--overwrite"]);
    assert_eq!(fs::read(place.path("x.gguf")).expect("there"), b"mine");
    convert(&place, "m.safetensors", "x.gguf", "q8_0", &["--overwrite"]).succeeds();
    assert!(fs::read(place.path("x.gguf")).expect("there").starts_with(b"GGUF"));
    convert(&place, "m.safetensors", "./m.safetensors", "bf16", &["--overwrite"]).fails(2, &["is read"]);
    crate::support::copy_folder(&fixture(FOLDER), &place.path("folder"));
    let shard = "folder/transformer/diffusion_pytorch_model-00001-of-00003.safetensors";
    convert(&place, "folder", shard, "bf16", &["--overwrite"]).fails(2, &["is a file of the model"]);
    convert(&place, "folder", "folder", "bf16", &[]).fails(2, &["is a folder", "folder/MODEL.gguf"]);
    convert(&place, "folder", "new/", "bf16", &[]).fails(2, &["new/ is a folder", "new/MODEL.gguf"]);
    for stream in ["-", "/dev/null"] {
        convert(&place, "folder", stream, "bf16", &["--overwrite"]).fails(2, &[stream, "is no file"]);
    }
    fs::create_dir(place.path("d.gguf")).expect("a folder");
    convert(&place, "folder", "d.gguf", "bf16", &[]).fails(2, &["is a folder"]);
    fs::copy(fixture("lora/files/peft.safetensors"), place.path("l.safetensors")).expect("copied");
    let args = ["--lora", "l.safetensors", "--overwrite"];
    convert(&place, "folder", "l.safetensors", "bf16", &args).fails(2, &["is read"]);
}
