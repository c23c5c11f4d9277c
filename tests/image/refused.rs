//! What is no picture, or makes no sense with one: one clear error, before anything is loaded.

use std::{collections::HashMap, fs};

use candle_core::Device;

use crate::support::{copy_folder, fixture, program::Place};

const INPUT: &str = "img2img/input.png";

/// What the program says of `--image FILE` for a file of these bytes.
fn of_bytes(name: &str, bytes: &[u8], words: &[&str]) {
    let place = Place::new();
    fs::write(place.path(name), bytes).expect("written");
    place.small(&["--image", name]).fails(2, &[&[name], words].concat());
}

#[test]
fn files_that_are_no_pictures_are_refused() {
    let whole = fs::read(fixture(INPUT)).expect("a picture");
    let kind = |name: &str| fs::read(fixture("img2img/kinds").join(name)).expect("a picture");
    of_bytes("empty.png", b"", &["not a picture", "empty"]);
    of_bytes("text.png", b"a castle above a stormy sea", &["not a picture", "PNG"]);
    of_bytes("x.safetensors", b"{\"a\": 1}            ", &["dype decode"]);
    of_bytes("cut.png", &whole[..whole.len() / 2], &["not a whole picture"]);
    of_bytes("short.png", &whole[..20], &["not a whole picture"]);
    for name in ["plain.jpg", "progressive.jpg", "turned.webp", "plain.bmp", "plain.gif", "plain.tif", "turned.tif"] {
        let bytes = kind(name);
        of_bytes(name, &bytes[..bytes.len() * 4 / 5], &["not a whole picture"]);
    }
    of_bytes("bomb.png", &kind("bomb.png"), &["60000 x 60000", "smaller copy"]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let place = Place::new();
    let input = fixture(INPUT).display().to_string();
    fs::create_dir(place.path("folder")).expect("a folder");
    for (args, code, words) in [
        (vec!["--image", "folder"], 2, vec!["folder", "name a file in it"]),
        (vec!["--image", "missing.png"], 1, vec!["missing.png"]),
        (vec!["--image", &input, "--strength", "0"], 2, vec!["leaves no step"]),
        (vec!["--upscale", "2"], 2, vec!["--image"]),
    ] {
        place.small(&args).fails(code, &words);
    }
    for strength in ["-0.1", "1.5", "nan", "much"] {
        let run = place.small(&["--image", &input, "--strength", strength]);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains("from 0 to 1"), "{}", run.stderr);
    }
    for factor in ["0.5", "65", "nan", "x"] {
        let run = place.small(&["--image", &input, "--upscale", factor]);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains("from 1 to 64"), "{}", run.stderr);
    }
    assert_eq!(place.names(), ["folder"]);
}

#[test]
fn a_model_without_an_encoder_says_so_before_it_is_loaded() {
    let place = Place::new();
    copy_folder(&fixture("tiny-flux"), &place.path("model"));
    let vae = place.path("model/vae");
    let mut decoder = HashMap::new();
    for entry in fs::read_dir(&vae).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            decoder.extend(candle_core::safetensors::load(&path, &Device::Cpu).expect("a shard"));
        }
        if !path.ends_with("config.json") {
            fs::remove_file(path).expect("removed");
        }
    }
    decoder.retain(|name, _| !name.starts_with("encoder.") && !name.starts_with("quant_conv."));
    candle_core::safetensors::save(&decoder, vae.join("diffusion_pytorch_model.safetensors")).expect("written");
    let input = fixture(INPUT).display().to_string();
    for more in [&[][..], &["--dry-run"]] {
        let run = place.small(&[&["--model", "model", "--image", &input], more].concat());
        run.fails(2, &["no encoder", "--vae"]);
    }
    place.small(&["--model", "model"]).succeeds();
}
