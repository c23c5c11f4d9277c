//! Folders as ComfyUI keeps them.

use std::fs;

use serde_json::Value;

use crate::{
    CLIP, CLIP_CONFIG, MODEL, T5, VAE, put, put_tokenizers,
    support::program::{Place, Run, rgb8},
};

/// A whole tree, with the transformer and the encoders in these folders.
fn tree(place: &Place, unet: &str, clip: &str) {
    put(
        place,
        &[
            (&format!("ComfyUI/models/{unet}/flux.safetensors"), MODEL),
            ("ComfyUI/models/vae/ae.safetensors", VAE),
            (&format!("ComfyUI/models/{clip}/clip_l.safetensors"), CLIP),
            (&format!("ComfyUI/models/{clip}/config.json"), CLIP_CONFIG),
            (&format!("ComfyUI/models/{clip}/t5xxl_fp16.safetensors"), T5),
        ],
    );
}

#[test]
fn a_transformer_in_comfyui_s_tree_needs_no_other_flag() {
    for (unet, clip) in [("diffusion_models", "text_encoders"), ("unet/flux/dev", "clip"), ("checkpoints", "clip/flux")]
    {
        let place = Place::new();
        tree(&place, unet, clip);
        put_tokenizers(&place, "ComfyUI/models");
        let model = format!("ComfyUI/models/{unet}/flux.safetensors");
        let run = place.small(&["--model", &model, "-o", "x.png", "--json"]);
        run.succeeds().tells(&["note: parts from elsewhere: text_encoder ", "vae ", "tokenizer_2 "]);
        assert!(rgb8(&place.path("x.png")) == place.pixels(&[]), "{unet}: the picture of the same weights");
        // The picture says where each part came from, and is made again from that.
        let said: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let parts = said["model"]["parts"].as_object().expect("parts");
        let names: Vec<&str> = parts.keys().map(String::as_str).collect();
        assert_eq!(names, ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"]);
        assert!(parts["vae"].as_str().is_some_and(|path| path.ends_with("models/vae/ae.safetensors")), "{parts:?}");
        let again = place.dype(&["replay", "x.png", "-o", "y.png"]);
        assert!(!again.succeeds().stderr.contains("not the one"), "{}", again.stderr);
        assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")));
    }
}

#[test]
fn folders_that_are_named_hold_what_the_file_s_own_does_not() {
    let place = Place::new();
    put(&place, &[("flux.safetensors", MODEL)]);
    tree(&place, "diffusion_models", "clip");
    put_tokenizers(&place, "tokens");
    let usual = place.pixels(&[]);
    let pixels = |run: Run| rgb8(&place.path(run.succeeds().stdout.trim_end()));
    // Each may be named as it is, or the folder of ComfyUI around it.
    for dirs in [["ComfyUI", "tokens"], ["ComfyUI/models", "tokens"], ["tokens", "ComfyUI"]] {
        let args = ["--model", "flux.safetensors", "--model-dir", dirs[0], "--model-dir", dirs[1]];
        assert!(pixels(place.small(&args)) == usual, "{dirs:?}");
    }
    let args = crate::support::program::small(&["--model", "flux.safetensors"]);
    let mut command = place.command(&args);
    command.env("DYPE_MODEL_DIR", std::env::join_paths(["ComfyUI", "tokens"]).expect("a list"));
    assert!(pixels(Run::from(command.output().expect("the program starts"))) == usual, "a list in the environment");
    // A folder of files, and one in diffusers layout.
    put(
        &place,
        &[
            ("flat/ae.safetensors", VAE),
            ("flat/clip_l.safetensors", CLIP),
            ("flat/config.json", CLIP_CONFIG),
            ("flat/t5xxl_fp8_e4m3fn.safetensors", T5),
            ("diffusers", "tiny-flux"),
        ],
    );
    for dirs in [["flat", "tokens"], ["diffusers", "flat"]] {
        let args = ["--model", "flux.safetensors", "--model-dir", dirs[0], "--model-dir", dirs[1]];
        assert!(pixels(place.small(&args)) == usual, "{dirs:?}");
    }
    place
        .small(&["--model", "flux.safetensors", "--model-dir", "none"])
        .fails(1, &["--model-dir none: there is no such folder", "DYPE_MODEL_DIR"]);
}

#[test]
fn what_is_nowhere_is_named_with_where_it_was_looked_for_and_where_to_get_it() {
    let place = Place::new();
    tree(&place, "diffusion_models", "clip");
    let model = "ComfyUI/models/diffusion_models/flux.safetensors";
    place.small(&["--model", model]).fails(1, &[
        "lacks tokenizer (looked for tokenizer/tokenizer.json or tokenizer/vocab.json and tokenizer/merges.txt",
        "tokenizer_2/spiece.model",
        "nothing is fetched, for --offline or HF_HUB_OFFLINE is set",
        "put vocab.json and merges.txt of openai/clip-vit-large-patch14 into ComfyUI/models/diffusion_models/tokenizer",
        "spiece.model of google/t5-v1_1-xxl into ComfyUI/models/diffusion_models/tokenizer_2",
        "--model-dir",
        "--tokenizer, --tokenizer-2",
    ]);
    put_tokenizers(&place, "ComfyUI/models/diffusion_models");
    fs::remove_file(place.path("ComfyUI/models/vae/ae.safetensors")).expect("removed");
    place.small(&["--model", model, "--offline"]).fails(
        1,
        &[
            "lacks vae (looked for vae/config.json or ae.safetensors or ae.sft in ComfyUI/models/diffusion_models, ",
            "ComfyUI/models/vae)",
            "split_files/vae/ae.safetensors of Comfy-Org/",
            "--vae",
        ],
    );
    // A folder in diffusers layout is whole or damaged: nothing is taken from around it.
    put(&place, &[("ComfyUI/models/diffusion_models/whole", "tiny-flux")]);
    fs::remove_dir_all(place.path("ComfyUI/models/diffusion_models/whole/vae")).expect("removed");
    put(&place, &[("ComfyUI/models/vae/ae.safetensors", VAE)]);
    place
        .small(&["--model", "ComfyUI/models/diffusion_models/whole", "--model-dir", "ComfyUI"])
        .fails(1, &["lacks vae", "fetch the model again"]);
}

#[test]
fn other_commands_find_the_parts_too() {
    let place = Place::new();
    tree(&place, "unet", "clip");
    put_tokenizers(&place, "tokens");
    let model = "ComfyUI/models/unet/flux.safetensors";
    let args = ["--model", model, "--model-dir", "tokens", "--save-latents", "l.safetensors", "-o", "x.png"];
    place.small(&args).succeeds();
    place.dype(&["decode", "l.safetensors", "--model", model, "-o", "y.png", "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")));
    let of = |model: &str| {
        let args = ["inspect", "--tokens", "--prompt", "a lake", "--model", model, "--model-dir", "tokens"];
        place.dype(&args).succeeds().stdout.clone()
    };
    let folder = crate::support::fixture("tiny-flux").display().to_string();
    assert_eq!(of(model), of(&folder));
    place.dype(&["inspect", "--model", model, "--height", "64", "--width", "64"]).succeeds();
    let plan = place.small(&["--model", model, "--model-dir", "tokens", "--dry-run"]);
    plan.succeeds().tells(&["note: parts from elsewhere: "]);
}
