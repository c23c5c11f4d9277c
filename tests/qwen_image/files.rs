//! How its models are found: by what they hold, under diffusers' names, in single files, and what is told of others.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    models::{BUILT_IN, Confidence, Family, ModelRequest, Registry, Seen, qwen_image::QwenImage},
    weights::{TensorFiles, TensorSource},
};

use crate::{
    support::{copy_folder, fixture, program::Place},
    tiny,
};

fn family() -> &'static dyn Family {
    BUILT_IN.into_iter().find(|family| family.name() == "Qwen-Image").expect("built in")
}

/// All tensors of a folder.
fn tensors(folder: &Path) -> BTreeMap<String, Tensor> {
    let files = fs::read_dir(folder).expect("fixture").map(|entry| entry.expect("entry").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")).collect();
    files.sort();
    let store = TensorFiles::open(&files).expect("fixture");
    let load = |name: &String| store.load(name, DType::BF16, &Device::Cpu).expect("a tensor");
    store.names().iter().map(|name| (name.clone(), load(name))).collect()
}

/// The tiny model as ComfyUI has it: three files, the transformer's names behind a prefix, the autoencoder under its own.
fn single_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let save = |tensors: BTreeMap<String, Tensor>, name: &str| {
        let tensors: std::collections::HashMap<_, _> = tensors.into_iter().collect();
        candle_core::safetensors::save(&tensors, folder.path().join(name)).expect("saved");
    };
    let prefixed = |(name, tensor): (String, Tensor)| (format!("model.diffusion_model.{name}"), tensor);
    save(
        tensors(&fixture("qwen-image/tiny/transformer")).into_iter().map(prefixed).collect(),
        "qwen_image_bf16.safetensors",
    );
    let own: BTreeMap<String, String> =
        dype::testing::base::json::read_json(&fixture("qwen-image/vae_names.json")).expect("fixture");
    let mut vae = tensors(&fixture("qwen-image/tiny/vae"));
    let renamed = own.iter().map(|(own, diffusers)| (own.clone(), vae.remove(diffusers).expect("a tensor")));
    save(renamed.collect(), "qwen_image_vae.safetensors");
    assert!(vae.is_empty(), "{:?}", vae.keys());
    copy_folder(&fixture("qwen-image/tiny/tokenizer"), &folder.path().join("tokenizer"));
    folder
}

#[test]
fn models_are_recognised_by_what_they_hold() {
    let seen = |class: &str| Seen { config: Some(serde_json::json!({ "_class_name": class })), ..Seen::default() };
    assert_eq!(family().recognise(&seen("QwenImageTransformer2DModel")), Some(Confidence::Certain));
    assert_eq!(family().recognise(&seen("FluxTransformer2DModel")), None);
    assert_eq!(family().recognise(&Seen::default()), None);
    let pipeline = |name: &str| Seen { pipeline: Some(name.into()), ..Seen::default() };
    assert_eq!(family().recognise(&pipeline("QwenImagePipeline")), Some(Confidence::Certain));
    assert_eq!(family().recognise(&pipeline("QwenImageEditPipeline")), None);
    let folder = single_files();
    let file = TensorFiles::open(&[folder.path().join("qwen_image_bf16.safetensors")]).expect("opens");
    let seen = Seen { tensors: Some(Arc::new(file)), ..Seen::default() };
    for family in BUILT_IN {
        let is_own = family.name() == "Qwen-Image";
        assert_eq!(
            family.recognise(&seen).is_some_and(|sure| sure == Confidence::Certain),
            is_own,
            "{}",
            family.name()
        );
    }
}

/// The same picture from single files as from the folder.
#[test]
fn single_files_are_the_same_model() {
    let folder = single_files();
    let file = folder.path().join("qwen_image_bf16.safetensors");
    let text = fixture("qwen-image/tiny/text_encoder");
    let request = ModelRequest::new(&file).with("text_encoder", &text);
    let (_, found) = Registry::default().find(&request).expect("found");
    let (model, whole) = (QwenImage::open(found).expect("opens"), tiny());
    assert_eq!(model.transformer.config, whole.transformer.config);
    assert_eq!(model.vae.part.config, whole.vae.part.config);
    assert_eq!(model.facts, whole.facts);
    let place = Place::new();
    let of = |args: &[&str], name: &str| {
        let small = ["--height", "64", "--width", "48", "--steps", "1", "--device", "cpu", "--dtype", "f32"];
        let words = ["--prompt", "a lake", "-o", name];
        place.dype(&[args, &small, &words].concat()).succeeds();
        fs::read(place.path(name)).map(|_| crate::support::program::rgb8(&place.path(name))).expect("a picture")
    };
    let (file, text) = (file.display().to_string(), text.display().to_string());
    let tiny = fixture("qwen-image/tiny").display().to_string();
    assert_eq!(of(&["--model", &file, "--text-encoder", &text], "a.png"), of(&["--model", &tiny], "b.png"));
}

/// A single file may lie in another model's folder, whose schedule is not its own.
#[test]
fn a_schedule_that_only_lies_beside_a_single_file_is_not_taken() {
    let folder = single_files();
    copy_folder(&fixture("tiny-flux/scheduler"), &folder.path().join("scheduler"));
    let request = ModelRequest::new(folder.path().join("qwen_image_bf16.safetensors"))
        .with("text_encoder", fixture("qwen-image/tiny/text_encoder"));
    let of = |request: &ModelRequest| {
        let (_, found) = Registry::default().find(request).expect("found");
        QwenImage::open(found).expect("opens").facts.scheduler
    };
    assert_eq!(of(&request), tiny().facts.scheduler);
    let given = request.with("scheduler", fixture("tiny-flux/scheduler"));
    assert_ne!(of(&given), tiny().facts.scheduler, "one that is given counts");
}

#[test]
fn parts_of_other_models_are_refused_by_name() {
    let place = Place::new();
    let tiny = fixture("qwen-image/tiny").display().to_string();
    let run = |flag: &str, path: &str| {
        let path = fixture(path).display().to_string();
        place.dype(&["--model", &tiny, flag, &path, "--device", "cpu", "--prompt", "a lake"])
    };
    run("--vae", "tiny-flux/vae").fails(1, &["AutoencoderKL", "Qwen-Image"]);
    run("--text-encoder", "z-image/tiny/text_encoder").fails(1, &["qwen3", "Qwen2.5-VL"]);
    run("--tokenizer", "tiny-flux/tokenizer_2").fails(1, &["tokenizer.json", "Unigram"]);
}

/// A transformer of another kind that has all of this one's tensors is known by those it has beside them.
#[test]
fn transformers_that_take_pictures_are_refused_by_name() {
    let folder = single_files();
    let path = folder.path().join("qwen_image_bf16.safetensors");
    let own = candle_core::safetensors::load(&path, &Device::Cpu).expect("tensors");
    for (tensor, word) in [
        ("time_text_embed.addition_t_embedding.weight", "Qwen-Image-Layered"),
        ("__index_timestep_zero__", "Qwen-Image-Edit"),
    ] {
        let mut tensors = own.clone();
        let more = Tensor::zeros((2, 128), DType::BF16, &Device::Cpu).expect("zeros");
        tensors.insert(format!("model.diffusion_model.{tensor}"), more);
        candle_core::safetensors::save(&tensors, &path).expect("saved");
        let request = ModelRequest::new(&path).with("text_encoder", fixture("qwen-image/tiny/text_encoder"));
        let error = Registry::default().find(&request).err().expect("refused");
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// Heads of another width than the real model's do not show in the tensors' shapes.
#[test]
fn a_bare_text_encoder_of_other_heads_wants_its_config() {
    let folder = single_files();
    let path = folder.path().join("text.safetensors");
    let text: std::collections::HashMap<_, _> = tensors(&fixture("qwen-image/tiny/text_encoder")).into_iter().collect();
    candle_core::safetensors::save(&text, &path).expect("saved");
    // In a folder it stands in for the part whose config is there.
    Registry::default()
        .open(&ModelRequest::new(fixture("qwen-image/tiny")).with("text_encoder", &path))
        .expect("opens");
    let request = ModelRequest::new(folder.path().join("qwen_image_bf16.safetensors")).with("text_encoder", &path);
    let error = Registry::default().open(&request).err().expect("refused");
    assert!(error.to_string().contains("no heads of 128"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("config.json beside it")), "{:?}", error.hint());
    fs::copy(fixture("qwen-image/tiny/text_encoder/config.json"), path.with_file_name("config.json")).expect("copied");
    Registry::default().open(&request).expect("opens");
}

/// `inspect --tokens` shows what the transformer sees: the prompt and what stands behind it.
#[test]
fn tokens_of_a_prompt_are_shown() {
    let place = Place::new();
    let tiny = fixture("qwen-image/tiny").display().to_string();
    let ended = place.dype(&["inspect", "--model", &tiny, "--tokens", "--prompt", "a lake", "--json"]);
    ended.succeeds();
    let shown: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let text = shown.to_string();
    assert!(text.contains("Qwen2.5-VL") && text.contains("<|im_end|>") && !text.contains("system"), "{text}");
}

/// A LoRA file is what its product added to the weight is.
#[test]
fn a_lora_file_is_its_product_in_the_weight() {
    const NAME: &str = "transformer_blocks.0.attn.to_q";
    let numbers = |shape: (usize, usize), step: f32| -> Tensor {
        let values: Vec<f32> = (0..shape.0 * shape.1).map(|i| (i as f32 * step).fract() - 0.5).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("numbers")
    };
    let (down, up) = (numbers((2, 128), 0.618_034), numbers((128, 2), 0.414_214));
    let place = Place::new();
    let lora =
        [("lora_A", &down), ("lora_B", &up)].map(|(part, x)| (format!("transformer.{NAME}.{part}.weight"), x.clone()));
    candle_core::safetensors::save(&lora.into_iter().collect(), place.path("lora.safetensors")).expect("saved");
    let merged = place.path("merged");
    copy_folder(&fixture("qwen-image/tiny"), &merged);
    let mut all = tensors(&merged.join("transformer"));
    let weight = all.get_mut(&format!("{NAME}.weight")).expect("a weight");
    let sum = weight.to_dtype(DType::F32).and_then(|weight| weight + up.matmul(&down)?);
    *weight = sum.expect("a sum");
    for entry in fs::read_dir(merged.join("transformer")).expect("a folder") {
        let path = entry.expect("entry").path();
        if !path.ends_with("config.json") {
            fs::remove_file(path).expect("removed");
        }
    }
    let all: std::collections::HashMap<_, _> = all.into_iter().collect();
    candle_core::safetensors::save(&all, merged.join("transformer/diffusion_pytorch_model.safetensors"))
        .expect("saved");
    let latents = |model: &Path, more: &[&str]| -> Vec<f32> {
        let model = model.display().to_string();
        let words = [
            "--height", "64", "--width", "48", "--steps", "1", "--device", "cpu", "--dtype", "f32", "--prompt",
            "a lake",
        ];
        let names = ["-o", "x.png", "--overwrite", "--save-latents", "x.safetensors"];
        place.dype(&[&["--model", &model], more, &words, &names].concat()).succeeds();
        crate::support::values(&dype::testing::output::load_latents(&place.path("x.safetensors"), 64).expect("latents"))
    };
    let expected = latents(&merged, &[]);
    let lora = place.path("lora.safetensors").display().to_string();
    let (found, without) =
        (latents(&fixture("qwen-image/tiny"), &["--lora", &lora]), latents(&fixture("qwen-image/tiny"), &[]));
    let off = |a: &[f32]| crate::support::relative_error(a, &expected);
    assert!(off(&found) < 1e-5 && off(&without) > 1e-3, "{:e} {:e}", off(&found), off(&without));
}
