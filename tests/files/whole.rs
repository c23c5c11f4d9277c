//! A checkpoint with everything inside.

use std::collections::HashMap;

use candle_core::Tensor;
use serde_json::Value;

use crate::{
    CLIP, CLIP_CONFIG, MODEL, T5, VAE, fixture, fs, put, put_tokenizers, save,
    support::program::{Place, rgb8},
    tensors,
};

/// One file of several, each under its prefix.
fn checkpoint(parts: &[(&str, &str)]) -> HashMap<String, Tensor> {
    let of = |(prefix, file): &(&str, &str)| {
        let prefix = (*prefix).to_owned();
        tensors(&fixture(file)).into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
    };
    parts.iter().flat_map(of).collect()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32");
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_checkpoint_holds_its_autoencoder_and_encoders() {
    let layouts = [
        // ComfyUI's, as its CheckpointSave writes them.
        ["model.diffusion_model.", "vae.", "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."],
        ["model.diffusion_model.", "first_stage_model.", "text_encoders.clip_l.transformer.", "text_encoders.t5xxl."],
        ["", "vae.", "cond_stage_model.transformer.", "text_encoders.t5xxl.transformer."],
        [
            "model.diffusion_model.",
            "vae.",
            "conditioner.embedders.0.transformer.",
            "conditioner.embedders.1.transformer.",
        ],
    ];
    for [transformer, vae, clip, t5] in layouts {
        let place = Place::new();
        let all = checkpoint(&[(transformer, MODEL), (vae, VAE), (clip, CLIP), (t5, T5)]);
        save(&place, "models/checkpoints/flux-all.safetensors", &all);
        put(&place, &[("models/checkpoints/config.json", CLIP_CONFIG)]);
        put_tokenizers(&place, "models");
        // What is inside goes before what lies around.
        put(&place, &[("models/checkpoints/t5xxl.safetensors", CLIP), ("models/vae/ae.safetensors", "README.md")]);
        let args = ["--model", "models/checkpoints/flux-all.safetensors", "-o", "x.png", "--json"];
        let run = place.small(&[&args[..], &["--save-latents", "x.safetensors"]].concat());
        run.succeeds();
        place.small(&["-o", "y.png", "--save-latents", "y.safetensors"]).succeeds();
        let latents = |name| {
            let mut read: Vec<_> = tensors(&place.path(name)).into_iter().collect();
            read.sort_by(|(one, _), (other, _)| one.cmp(other));
            read.into_iter().map(|(name, tensor)| (name, bits(&tensor))).collect::<Vec<_>>()
        };
        assert!(latents("x.safetensors") == latents("y.safetensors"), "bit for bit: {clip}");
        assert!(rgb8(&place.path("x.png")) == place.pixels(&[]), "{clip}");
        let said: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let parts: Vec<&String> = said["model"]["parts"].as_object().expect("parts").keys().collect();
        assert_eq!(parts, ["tokenizer", "tokenizer_2"], "{}", run.stderr);
    }
}

#[test]
fn what_a_checkpoint_lacks_is_found_around_it() {
    let place = Place::new();
    save(&place, "all.safetensors", &checkpoint(&[("model.diffusion_model.", MODEL), ("vae.", VAE)]));
    put(&place, &[("clip_l.safetensors", CLIP), ("config.json", CLIP_CONFIG), ("more/text_encoders/t5xxl.sft", T5)]);
    put_tokenizers(&place, ".");
    place.small(&["--model", "all.safetensors"]).fails(1, &["lacks text_encoder_2 ("]);
    let args = ["--model", "all.safetensors", "--model-dir", "more", "-o", "x.png"];
    place.small(&args).succeeds().tells(&["parts from elsewhere: text_encoder_2 more/text_encoders/t5xxl.sft"]);
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
    // Its autoencoder decodes alone, too.
    let args = ["--model", "all.safetensors", "--model-dir", "more", "--save-latents", "l.safetensors", "-o", "y.png"];
    place.small(&args).succeeds();
    place.dype(&["decode", "l.safetensors", "--model", "all.safetensors", "-o", "z.png", "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("z.png")));
    fs::remove_file(place.path("config.json")).expect("removed");
    let args = ["--model", "all.safetensors", "--model-dir", "more"];
    place.small(&args).fails(1, &["clip_l.safetensors", "heads", "put its config.json beside it"]);
}
