//! Whole models: folders, single files, and parts from elsewhere.

use std::{fs, path::Path};

use candle_core::{DType, Device};
use dype::testing::{
    base::json::read_json,
    models::flux1::FluxConfig,
    models::parts::{T5Config, Tokenizers, kl::VaeConfig},
    models::{Model, ModelRequest},
    sampling::SchedulerConfig,
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

/// A schnell in the single-file layout, in a folder.
fn schnell(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("schnell.safetensors");
    let mut tensors =
        candle_core::safetensors::load(fixture("tiny-bfl/flux1-tiny.safetensors"), &Device::Cpu).expect("loads");
    tensors.retain(|name, _| !name.starts_with("guidance_in."));
    candle_core::safetensors::save(&tensors, &file).expect("writes");
    file
}

/// Changes keys of a JSON file.
fn with_keys(path: &Path, keys: &[(&str, serde_json::Value)]) {
    let mut json: serde_json::Value = read_json(path).expect("JSON");
    keys.iter().for_each(|(key, value)| json[*key] = value.clone());
    fs::write(path, json.to_string()).expect("written");
}

#[test]
fn a_single_file_takes_the_schedule_it_lies_beside_only_where_that_is_of_its_kind() {
    let folder = tiny_flux();
    copy_folder(&fixture("tiny-bfl"), folder.path());
    let scheduler = folder.path().join("scheduler/scheduler_config.json");
    with_keys(&scheduler, &[("max_shift", 1.3.into())]);
    let dev = folder.path().join("flux1-tiny.safetensors");
    let schnell = schnell(folder.path());
    let open = |file: &Path| flux1(&ModelRequest::new(file)).expect("resolves");
    let taken = open(&dev);
    assert!(taken.scheduler.is_some() && taken.remarks().is_empty(), "both are dev");
    assert_eq!((taken.facts.scheduler.max_shift, taken.facts.scheduler.use_dynamic_shifting), (1.3, true));
    let own = open(&schnell);
    assert_eq!(
        (own.scheduler.clone(), own.facts.scheduler.clone()),
        (None, SchedulerConfig::default()),
        "static, shift 1"
    );
    assert!(own.remarks()[0].contains("is not taken") && own.remarks()[0].contains("schnell"), "{:?}", own.remarks());

    // What is given is meant.
    let given = ModelRequest::new(&schnell).with("scheduler", folder.path().join("scheduler"));
    let given = flux1(&given).expect("resolves");
    assert!(given.facts.scheduler.use_dynamic_shifting && given.remarks().is_empty());

    // A static schedule in a dev folder is no schnell's either, and a dev does not take it.
    with_keys(&scheduler, &[("use_dynamic_shifting", false.into()), ("shift", 3.0.into())]);
    assert_eq!(open(&schnell).facts.scheduler, SchedulerConfig::default());
    assert_eq!(open(&dev).facts.scheduler, SchedulerConfig::flux1_dev());
    // The folder itself says what it is.
    let folders = flux1(&ModelRequest::new(folder.path())).expect("resolves");
    assert_eq!((folders.facts.scheduler.shift, folders.facts.scheduler.use_dynamic_shifting), (3.0, false));
    assert!(folders.remarks().is_empty());

    // In a schnell folder it is the other way round.
    with_keys(&folder.path().join("transformer/config.json"), &[("guidance_embeds", false.into())]);
    assert_eq!(open(&schnell).facts.scheduler.shift, 3.0);
    assert_eq!(open(&dev).facts.scheduler, SchedulerConfig::flux1_dev());
    // Nor is a schedule that cannot be followed, or one of another kind of model.
    with_keys(&scheduler, &[("use_karras_sigmas", true.into())]);
    assert!(open(&schnell).remarks()[0].contains("use_karras_sigmas"));
    with_keys(&scheduler, &[("use_karras_sigmas", false.into())]);
    fs::remove_dir_all(folder.path().join("transformer")).expect("removed");
    with_keys(&folder.path().join("model_index.json"), &[("_class_name", "StableDiffusion3Pipeline".into())]);
    assert_eq!(open(&schnell).facts.scheduler, SchedulerConfig::default());
    assert!(open(&schnell).remarks()[0].contains("StableDiffusion3Pipeline"));
}

#[test]
fn what_a_model_holds_is_told_by_its_contents_and_not_by_where_they_lie() {
    let folder = tiny_flux();
    let contents = |path: &Path| flux1(&ModelRequest::new(path)).expect("resolves").contents().expect("readable");
    let own = contents(&fixture("tiny-flux"));
    assert_eq!(contents(folder.path()), own, "a copy, with times of its own");
    let parts: Vec<_> = own.keys().copied().collect();
    assert_eq!(parts, ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae"]);
    // Each change, and the only part that it changes.
    let last_byte = |path: &Path| {
        let mut bytes = fs::read(path).expect("read");
        *bytes.last_mut().expect("bytes") ^= 1;
        fs::write(path, bytes).expect("written");
    };
    let mut before = own;
    for (file, part) in [
        ("transformer/diffusion_pytorch_model-00002-of-00003.safetensors", "transformer"),
        ("vae/diffusion_pytorch_model-00001-of-00002.safetensors", "vae"),
        ("text_encoder/model.safetensors", "text_encoder"),
        ("text_encoder_2/model.safetensors", "text_encoder_2"),
        ("tokenizer/merges.txt", "tokenizer"),
    ] {
        last_byte(&folder.path().join(file));
        let after = contents(folder.path());
        let changed: Vec<_> =
            after.iter().filter(|(part, text)| before[*part] != **text).map(|(part, _)| *part).collect();
        assert_eq!(changed, [part], "{file}");
        before = after;
    }
    with_keys(&folder.path().join("vae/config.json"), &[("_diffusers_version", "9.9".into())]);
    assert_eq!(contents(folder.path()), before, "who wrote it changes nothing");
    with_keys(&folder.path().join("vae/config.json"), &[("scaling_factor", 0.25.into())]);
    assert_ne!(contents(folder.path())["vae"], before["vae"]);
}

#[test]
fn of_several_tokenizer_files_the_ones_that_are_read_count() {
    let folder = tiny_flux();
    let contents = || flux1(&ModelRequest::new(folder.path())).expect("resolves").contents().expect("readable");
    let own = contents();
    // As clones of repositories hold them, of which the Hub's cache holds what is read.
    fs::write(folder.path().join("tokenizer_2/spiece.model"), "read by nobody").expect("written");
    fs::write(folder.path().join("tokenizer/tokenizer.json"), "read by nobody").expect("written");
    assert_eq!(contents(), own);
    let model = flux1(&ModelRequest::new(folder.path())).expect("resolves");
    let (clip, t5) = (model.text_encoder.config.vocab_size, model.text_encoder_2.config.vocab_size);
    Tokenizers::open(&model.tokenizer, clip, &model.tokenizer_2, t5).expect("nobody reads them");
    for (read, part) in [("tokenizer_2/tokenizer.json", "tokenizer_2"), ("tokenizer/merges.txt", "tokenizer")] {
        let path = folder.path().join(read);
        fs::write(&path, [fs::read(&path).expect("read"), b"\n".to_vec()].concat()).expect("written");
        assert_ne!(contents()[part], own[part], "{read}");
    }
}
