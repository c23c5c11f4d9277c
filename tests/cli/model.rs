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
