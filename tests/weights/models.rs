//! Whole models: folders, single files, and parts from elsewhere.

use std::fs;

use candle_core::{DType, Device};
use dype::testing::{
    models::ModelRequest,
    models::flux1::FluxConfig,
    models::parts::{T5Config, kl::VaeConfig},
};

use crate::{copy_folder, fixture, flux1, tiny_flux};

/// The other parts of a single file's model, from tiny-flux, whose folder stands for each part in it.
pub fn with_the_rest_of_tiny_flux(request: ModelRequest) -> ModelRequest {
    let parts = ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"];
    let request = parts.iter().fold(request, |request, part| request.with(part, fixture("tiny-flux")));
    let beside = request.model.with_file_name("ae.safetensors").is_file();
    if beside { request } else { request.with("vae", fixture("tiny-flux")) }
}

fn tiny_config() -> FluxConfig {
    FluxConfig::read(&fixture("tiny-flux/transformer/config.json")).expect("config")
}

fn tiny_vae() -> VaeConfig {
    VaeConfig::read(&fixture("tiny-flux/vae/config.json")).expect("config")
}

#[test]
fn a_folder_gives_every_part() {
    let request = ModelRequest::new(fixture("tiny-flux"));
    let model = flux1(&request).expect("resolves");
    assert_eq!(model.transformer.config, tiny_config());
    assert_eq!(model.vae.part.config, tiny_vae());
    assert!(!model.is_schnell());
    assert_eq!(model.tokenizer, fixture("tiny-flux/tokenizer"));
    assert_eq!(model.tokenizer_2, fixture("tiny-flux/tokenizer_2"));
    assert_eq!(model.scheduler, Some(fixture("tiny-flux/scheduler/scheduler_config.json")));
    assert_eq!(model.identity.layout, "diffusers");
    let dims = &model.text_encoder_2.config;
    assert_eq!((dims.d_model, dims.num_layers), (64, 3));
    let weights = model.transformer_weights(DType::F32, &Device::Cpu);
    assert!(weights.get("x_embedder.weight", &[128, 64]).is_ok());
    assert!(model.vae_weights(DType::F32, &Device::Cpu).contains("decoder.conv_in.weight"));
    let clip = model.text_encoder_weights(DType::F32, &Device::Cpu);
    assert!(clip.contains("text_model.final_layer_norm.weight") && clip.contains("final_layer_norm.weight"));
    let t5 = model.text_encoder_2_weights(DType::F32, &Device::Cpu);
    assert!(t5.contains("shared.weight") && t5.contains("encoder.embed_tokens.weight"));
}

#[test]
fn a_single_file_finds_its_autoencoder_beside_it_and_the_rest_in_a_folder() {
    let request = with_the_rest_of_tiny_flux(ModelRequest::new(fixture("tiny-bfl/flux1-tiny.safetensors")));
    let model = flux1(&request).expect("resolves");
    assert_eq!(model.transformer.config, tiny_config());
    assert_eq!(model.vae.part.config, tiny_vae());
    assert!(model.vae.part.source.describe().ends_with("ae.safetensors"));
    assert_eq!(model.tokenizer, fixture("tiny-flux/tokenizer"));
    assert_eq!(model.identity.layout, "single-file");
}

#[test]
fn a_single_file_takes_its_parts_from_flags() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("flux1-tiny.safetensors");
    fs::copy(fixture("tiny-bfl/flux1-tiny.safetensors"), &file).expect("copy");
    let request = ModelRequest::new(&file)
        .with("vae", fixture("tiny-bfl/ae.safetensors"))
        .with("text_encoder", fixture("tiny-flux/text_encoder/model.safetensors"))
        .with("text_encoder_2", fixture("tiny-flux/text_encoder_2"))
        // A whole model's folder stands for the part in it.
        .with("tokenizer", fixture("tiny-flux"))
        .with("tokenizer_2", fixture("tiny-flux/tokenizer_2/tokenizer.json"));
    let model = flux1(&request).expect("resolves");
    assert_eq!(model.scheduler, None);
    assert_eq!(model.tokenizer, fixture("tiny-flux/tokenizer"));
    assert_eq!(model.tokenizer_2, fixture("tiny-flux/tokenizer_2/tokenizer.json"));
    assert_eq!(model.identity.parts.len(), 5);
}

#[test]
fn either_file_of_a_tokenizer_stands_for_its_folder() {
    for file in ["vocab.json", "merges.txt"] {
        let request =
            ModelRequest::new(fixture("tiny-flux")).with("tokenizer", fixture("tiny-flux/tokenizer").join(file));
        assert_eq!(flux1(&request).expect("resolves").tokenizer, fixture("tiny-flux/tokenizer"));
    }
}

/// The Hub's own FLUX.1 folders hold both layouts side by side.
#[test]
fn a_single_file_inside_a_model_folder_is_complete() {
    let folder = tiny_flux();
    copy_folder(&fixture("tiny-bfl"), folder.path());
    let model = flux1(&ModelRequest::new(folder.path().join("flux1-tiny.safetensors"))).expect("resolves");
    assert_eq!(
        model.text_encoder.source.describe(),
        folder.path().join("text_encoder/model.safetensors").display().to_string()
    );
    assert!(model.scheduler.is_some());
}

/// All-in-one: everything but the tokenizers comes from the one file, dimensions from shapes.
#[test]
fn an_all_in_one_file_needs_only_tokenizers() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("all.safetensors");
    let mut tensors = std::collections::HashMap::new();
    for (prefix, path) in [
        ("model.diffusion_model.", "tiny-bfl/flux1-tiny.safetensors"),
        ("vae.", "tiny-bfl/ae.safetensors"),
        ("text_encoders.t5xxl.transformer.", "tiny-flux/text_encoder_2/model.safetensors"),
    ] {
        let part = candle_core::safetensors::load(fixture(path), &Device::Cpu).expect("loads");
        tensors.extend(part.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    candle_core::safetensors::save(&tensors, &file).expect("writes");
    let request = ModelRequest::new(&file)
        // CLIP's head count cannot be told from a width of 32, so it comes with its config.
        .with("text_encoder", fixture("tiny-flux/text_encoder"))
        .with("tokenizer", fixture("tiny-flux/tokenizer"))
        .with("tokenizer_2", fixture("tiny-flux/tokenizer_2"));
    let model = flux1(&request).expect("resolves");
    assert_eq!((&model.transformer.config, &model.vae.part.config), (&tiny_config(), &tiny_vae()));
    let t5 = T5Config::read(&fixture("tiny-flux/text_encoder_2/config.json")).expect("config");
    assert_eq!(model.text_encoder_2.config, t5);
}

#[test]
fn an_override_replaces_a_part_of_a_folder() {
    let mut request = ModelRequest::new(fixture("tiny-flux")).with("vae", fixture("tiny-bfl/ae.safetensors"));
    request.name = Some(("tiny/flux".into(), "abc123".into()));
    let model = flux1(&request).expect("resolves");
    assert!(model.vae.part.source.describe().ends_with("ae.safetensors"));
    assert_eq!(model.vae.part.config, tiny_vae());
    let identity = serde_json::to_value(&model.identity).expect("json");
    assert_eq!(identity["model"], "tiny/flux");
    assert_eq!(identity["revision"], "abc123");
    assert!(identity["parts"]["vae"].as_str().expect("a path").ends_with("ae.safetensors"));
    assert_eq!(model.identity.to_string(), "tiny/flux@abc123");
}

#[test]
fn a_file_without_guidance_is_schnell() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("schnell.safetensors");
    let mut tensors =
        candle_core::safetensors::load(fixture("tiny-bfl/flux1-tiny.safetensors"), &Device::Cpu).expect("loads");
    tensors.retain(|name, _| !name.starts_with("guidance_in."));
    candle_core::safetensors::save(&tensors, &file).expect("writes");
    let request = with_the_rest_of_tiny_flux(ModelRequest::new(&file));
    let model = flux1(&request).expect("resolves");
    assert!(model.is_schnell());
    assert!(model.transformer.source.shape("x_embedder.weight").is_some());
}
