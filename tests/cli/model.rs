//! The flags that say which model, where and how it is computed.

use std::fs;

use dype::testing::nn::kernels::cpu::pairs;

use crate::support::{
    fixture,
    program::{Place, rgb8},
    tiny_flux,
};

fn of(path: &str) -> String {
    fixture(path).display().to_string()
}

#[test]
fn each_part_can_come_from_elsewhere() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    let parts = [
        ("vae", "--vae", of("tiny-bfl/ae.safetensors")),
        ("vae", "--vae", of("tiny-flux/vae")),
        ("text_encoder", "--text-encoder", of("tiny-flux/text_encoder")),
        ("text_encoder_2", "--text-encoder-2", of("tiny-flux/text_encoder_2/model.safetensors")),
        ("tokenizer", "--tokenizer", of("tiny-flux/tokenizer")),
        ("tokenizer_2", "--tokenizer-2", of("tiny-flux/tokenizer_2/tokenizer.json")),
    ];
    for (part, flag, path) in parts {
        let model = tiny_flux();
        fs::remove_dir_all(model.path().join(part)).expect("removed");
        let model = model.path().display().to_string();
        place.small(&["--model", &model]).fails(1, &[part, flag]);
        assert!(place.pixels(&["--model", &model, flag, &path]) == usual, "{flag}");
    }
}

#[test]
fn a_single_file_finds_the_autoencoder_beside_it() {
    let place = Place::new();
    let (transformer, companion) = (of("tiny-bfl/flux1-tiny.safetensors"), of("tiny-flux"));
    let text = ["--text-encoder", "--text-encoder-2", "--tokenizer", "--tokenizer-2"];
    let mut args = vec!["--model", &transformer];
    args.extend(text.iter().flat_map(|flag| [*flag, companion.as_str()]));
    assert!(place.pixels(&args) == place.pixels(&[]), "the same weights under other names");
}

/// tiny-flux whose weights are a variant: whole files, and shards named as transformers and as diffusers name them.
fn only_in_variant(variant: &str) -> tempfile::TempDir {
    let model = tiny_flux();
    let rename = |folder: &str, shard: &dyn Fn(&str) -> String| {
        let folder = model.path().join(folder);
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let name = entry.file_name().into_string().expect("a plain name");
            if let Some(stem) = name.strip_suffix(".safetensors") {
                fs::rename(entry.path(), folder.join(shard(stem))).expect("renamed");
            } else if let Some(stem) = name.strip_suffix(".index.json") {
                let index: serde_json::Value =
                    serde_json::from_slice(&fs::read(entry.path()).expect("an index")).expect("JSON");
                let map = index["weight_map"].as_object().expect("a map").iter();
                let map = map.map(|(tensor, file)| {
                    let stem = file.as_str().and_then(|file| file.strip_suffix(".safetensors")).expect("a shard");
                    (tensor.clone(), serde_json::Value::from(shard(stem)))
                });
                let index = serde_json::json!({ "weight_map": serde_json::Map::from_iter(map) });
                fs::write(folder.join(format!("{stem}.index.{variant}.json")), index.to_string()).expect("written");
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    };
    let behind = |stem: &str| format!("{stem}.{variant}.safetensors");
    let before_the_numbers = |stem: &str| match stem.split_once('-') {
        Some((stem, numbers)) => format!("{stem}.{variant}-{numbers}.safetensors"),
        None => behind(stem),
    };
    rename("text_encoder", &behind);
    rename("text_encoder_2", &behind);
    rename("transformer", &behind);
    rename("vae", &before_the_numbers);
    model
}

#[test]
fn weights_that_are_there_in_a_variant_only_are_used_and_it_is_said() {
    let (place, model) = (Place::new(), only_in_variant("fp16"));
    let path = model.path().display().to_string();
    let run = place.small(&["--model", &path, "--json"]);
    run.succeeds().tells(&["note: weights are there in a variant only:", "fp16 of transformer", "fp16 of vae"]);
    let said: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(said["model"]["variants"]["text_encoder_2"], "fp16", "{said}");
    assert!(place.pixels(&["--model", &path]) == place.pixels(&[]), "the same weights under other names");
    let asked = place.small(&["--model", &path, "--variant", "fp16"]);
    assert!(!asked.succeeds().stderr.contains("variant"), "{}", asked.stderr);
    place.small(&["--model", &path, "--variant", "bf16"]).fails(1, &["no weights in the variant bf16", "--variant"]);
    place.small(&["--model", &path, "--variant", "../x"]).fails(2, &["a word such as fp16"]);
}

#[test]
fn of_plain_weights_and_a_variant_the_one_that_was_asked_for_is_used() {
    let (place, model) = (Place::new(), tiny_flux());
    let file = |name: &str| model.path().join("text_encoder").join(name);
    fs::copy(file("model.safetensors"), file("model.fp16.safetensors")).expect("copied");
    fs::write(file("model.safetensors"), "no weights").expect("written");
    let path = model.path().display().to_string();
    place.small(&["--model", &path]).fails(1, &["text_encoder/model.safetensors"]);
    let run = place.small(&["--model", &path, "--variant", "fp16", "-o", "x.png"]);
    run.succeeds().tells(&["note: not in the variant fp16", "transformer", "vae"]);
    assert!(!run.stderr.contains("text_encoder,"), "{}", run.stderr);
    let again = place.dype(&["replay", "x.png", "-o", "y.png"]);
    again.succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")));
    // Without plain weights nobody can know which of two variants is meant.
    fs::remove_file(file("model.safetensors")).expect("removed");
    fs::copy(file("model.fp16.safetensors"), file("model.bf16.safetensors")).expect("copied");
    place.small(&["--model", &path]).fails(1, &["several variants: bf16, fp16", "--variant"]);
}

#[test]
fn a_model_without_guidance_ignores_it_and_says_so() {
    let model = tiny_flux();
    let config = model.path().join("transformer/config.json");
    let text = fs::read_to_string(&config).expect("config");
    fs::write(&config, text.replace(r#""guidance_embeds": true"#, r#""guidance_embeds": false"#)).expect("written");
    let model = model.path().display().to_string();
    let place = Place::new();
    let run = place.small(&["--model", &model, "--guidance", "3"]);
    run.succeeds().tells(&["note: this model takes no guidance: --guidance is ignored"]);
    assert!(rgb8(&place.path(run.stdout.trim_end())) == place.pixels(&["--model", &model, "--guidance", "7"]));
    let run = place.small(&["--model", &model]);
    assert!(!run.succeeds().stderr.contains("--guidance"), "{}", run.stderr);
}

#[test]
fn weights_and_number_types_are_as_asked() {
    let place = Place::new();
    let usual = place.pixels(&["--dtype", "f32"]);
    assert!(place.pixels(&[]) == usual, "f32 is the CPU's default");
    assert!(place.pixels(&["--weights", "stream"]) == usual);
    place.small(&["--weights", "stream", "-v"]).succeeds().tells(&["choices    weights stream"]);
    for dtype in ["bf16", "f16"] {
        let half = place.pixels(&["--dtype", dtype]);
        let mean = half.iter().zip(&usual).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / usual.len() as f64;
        // bf16 on a CPU means products of pairs that its processor multiplies; where it has none, nothing is rounded.
        let rounds = dtype == "f16" || pairs::available();
        assert!((mean > 0.0) == rounds && mean < 4.0, "{dtype}: mean difference {mean}");
    }
}

#[test]
fn devices() {
    let place = Place::new();
    place.small(&["--device", "auto"]).succeeds();
    place.small(&["--device", "tpu"]).fails(2, &["tpu", "cpu, cuda, cuda:N or metal"]);
    place.small(&["--device", "cuda:x"]).fails(2, &["cuda:0"]);
    for (device, feature) in
        [("cuda", cfg!(feature = "cuda")), ("cuda:1", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))]
    {
        if !feature {
            let name = device.split(':').next().expect("a name");
            let build = format!("--features {name}");
            place.small(&["--device", device]).fails(2, &["built without", &build, "--device cpu"]);
        }
    }
}
