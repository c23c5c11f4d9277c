//! What the loaders ask for is what the real files hold, in both layouts; whose files they are; and what is refused.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::json::read_json,
    models::{
        Model, ModelRequest, Registry,
        flux1::autoencoder,
        parts::{Qwen3Config, kl},
        z_image::{ZImageConfig, comfy, text::text_tensors, transformer_tensors},
    },
    weights::{TensorFiles, TensorSource, check_all},
};
use serde_json::Value;

use super::{
    golden, open,
    support::{copy_folder, manifest::ManifestSource},
    tiny,
};

const REAL: &str = "z-image/real_tensors.json";

fn names(tensors: &[(String, Vec<usize>)]) -> BTreeSet<String> {
    tensors.iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn the_loaders_ask_for_exactly_the_real_tensors() {
    let asked = transformer_tensors(&ZImageConfig::z_image()).expect("a transformer");
    let real = ManifestSource::fixture(REAL, "transformer");
    check_all(&real, &asked).expect("of these shapes");
    assert_eq!((asked.len(), names(&asked)), (521, real.names().into_iter().collect()));

    let vae = autoencoder();
    let sides = [kl::Side::Decoder, kl::Side::Encoder].map(|side| kl::tensors(&vae, side).expect("an autoencoder"));
    let real = ManifestSource::fixture(REAL, "vae");
    check_all(&real, &sides.concat()).expect("of these shapes");
    assert_eq!(names(&sides.concat()), real.names().into_iter().collect());
    assert_eq!(real.names().len(), 244);

    // Of the text encoder all but its last layer and what follows it.
    let asked = text_tensors(&real_text_config()).expect("an encoder");
    let real = real_text_encoder();
    check_all(&real, &asked).expect("of these shapes");
    let unasked: Vec<String> = real.names().into_iter().filter(|name| !names(&asked).contains(name)).collect();
    assert_eq!(real.names().len(), 398);
    assert!(
        unasked.iter().all(|name| name.starts_with("model.layers.35.") || name == "model.norm.weight"),
        "{unasked:?}"
    );
    assert_eq!(unasked.len(), 12);
}

/// The real Qwen3's tensors.
pub fn real_text_encoder() -> ManifestSource {
    let shapes: std::collections::BTreeMap<String, Vec<usize>> =
        read_json(&super::support::fixture("qwen3_4b_tensors.json")).expect("fixture");
    ManifestSource::new(shapes)
}

/// The real Qwen3's dimensions.
pub fn real_text_config() -> Qwen3Config {
    let configs: Value = read_json(&golden("real_configs.json")).expect("fixture");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    fs::write(&path, configs["turbo"]["text_encoder/config.json"].to_string()).expect("written");
    Qwen3Config::read(&path).expect("a Qwen3")
}

#[test]
fn the_published_configs_say_what_is_taken_without_them() {
    let configs: Value = read_json(&golden("real_configs.json")).expect("fixture");
    let said: ZImageConfig = serde_json::from_value(configs["turbo"]["transformer/config.json"].clone()).expect("read");
    assert_eq!(said, ZImageConfig::z_image());
}

/// ComfyUI's names, with and without a prefix, and with the stray tensor of published files.
#[test]
fn single_files_answer_to_every_name() {
    let stored = ManifestSource::fixture(REAL, "single_file");
    assert_eq!(stored.names().len(), 453);
    let asked = transformer_tensors(&ZImageConfig::z_image()).expect("a transformer");
    for prefix in ["", "model.diffusion_model."] {
        let shapes = stored.shapes().iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.clone()));
        let stray = (format!("{prefix}norm_final.weight"), vec![3840]);
        let source: Arc<dyn TensorSource> = Arc::new(ManifestSource::new(shapes.chain([stray])));
        let renamed = comfy::transformer(source).expect("a Z-Image");
        check_all(&renamed, &asked).expect("all are there");
        assert_eq!(renamed.names().len(), 521);
        assert_eq!(renamed.unused(), [format!("{prefix}norm_final.weight")]);
    }
    assert!(comfy::transformer(Arc::new(ManifestSource::single_file("flux1-dev.safetensors"))).is_none());
}

/// The tiny transformer as a single file of ComfyUI, beside the other parts.
pub fn write_single_file(path: &Path, prefix: &str) {
    let folder = golden("tiny/transformer");
    let shard = |i| folder.join(format!("diffusion_pytorch_model-0000{i}-of-00003.safetensors"));
    let store = TensorFiles::open(&[shard(1), shard(2), shard(3)]).expect("shards");
    let load = |name: &str| store.load(name, DType::BF16, &Device::Cpu).expect("a tensor");
    let mut tensors = std::collections::HashMap::new();
    for name in store.names() {
        if name.contains(".to_k.") || name.contains(".to_v.") {
            continue;
        }
        let (new, tensor) = match name.strip_suffix(".to_q.weight") {
            Some(layer) => {
                let parts = ["to_q", "to_k", "to_v"].map(|part| load(&format!("{layer}.{part}.weight")));
                (format!("{layer}.qkv.weight"), Tensor::cat(&parts, 0).expect("one"))
            }
            None => (name.clone(), load(&name)),
        };
        let new = new.replace("all_x_embedder.2-1.", "x_embedder.").replace("all_final_layer.2-1.", "final_layer.");
        let new = new.replace(".to_out.0.", ".out.").replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.");
        tensors.insert(format!("{prefix}{new}"), tensor);
    }
    let stray = Tensor::zeros(96, DType::BF16, &Device::Cpu).expect("zeros");
    tensors.insert(format!("{prefix}norm_final.weight"), stray);
    candle_core::safetensors::save(&tensors, path).expect("saved");
}

#[test]
fn a_single_file_is_recognised_and_measured_by_its_tensors() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&golden("tiny"), folder.path());
    fs::remove_dir_all(folder.path().join("transformer")).expect("removed");
    fs::remove_file(folder.path().join("model_index.json")).expect("removed");
    let file = folder.path().join("anything.safetensors");
    write_single_file(&file, "model.diffusion_model.");
    let (single, whole) = (open(&file), tiny());
    let axes_lens = single.transformer.config.axes_lens;
    assert_eq!(single.transformer.config, ZImageConfig { axes_lens, ..whole.transformer.config });
    // Whose scheduler lies beside it nothing says: it is Turbo's, and that is told.
    assert_eq!(single.facts.scheduler.shift, 3.0);
    assert!(single.remarks()[0].contains("Z-Image-Turbo"), "{:?}", single.remarks());
    assert!(whole.remarks().is_empty());
}

/// What takes pictures beside the prompt has all of these tensors, and some of its own.
#[test]
fn transformers_that_take_pictures_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("z.safetensors");
    for (tensor, word) in
        [("siglip_embedder.0.weight", "Z-Image-Omni"), ("control_layers.0.attention.to_q.weight", "ControlNet")]
    {
        write_single_file(&path, "");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("tensors");
        tensors.insert(tensor.to_owned(), Tensor::zeros((96, 96), DType::BF16, &Device::Cpu).expect("zeros"));
        candle_core::safetensors::save(&tensors, &path).expect("saved");
        let error = Registry::default().find(&ModelRequest::new(&path)).err().expect("refused");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn turbo_and_base_are_told_apart_by_their_schedule() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&golden("tiny"), folder.path());
    let turbo = tiny().facts.recipe;
    assert_eq!((turbo.steps, turbo.cfg, turbo.text_tokens, turbo.most_side_px), (8, None, 512, 8192));
    let scheduler = folder.path().join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&scheduler).expect("a config").replace("3.0", "6.0");
    fs::write(&scheduler, text).expect("written");
    let base = open(folder.path()).facts;
    assert_eq!((base.recipe.steps, base.recipe.cfg, base.scheduler.shift), (50, Some(4.0), 6.0));
}

#[test]
fn parts_of_other_models_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&golden("tiny"), folder.path());
    let refused = |request: &ModelRequest, words: &[&str]| {
        let error = Registry::default().open(request).err().expect("refused");
        let told = format!("{error} {}", error.hint().unwrap_or_default());
        words.iter().for_each(|word| assert!(told.contains(word), "{word:?} is not in {told}"));
    };
    let flux = |part: &str| super::support::fixture("tiny-flux").join(part);
    let with = |part: &str| ModelRequest::new(folder.path()).with(part, flux(part));
    refused(&with("text_encoder"), &["clip_text_model", "Qwen3", "--text-encoder"]);
    refused(&with("transformer"), &["FluxTransformer2DModel", "Z-Image transformer"]);
    refused(&ModelRequest::new(folder.path()).with("text_encoder_2", "x"), &["a Z-Image model has no such part"]);
    let config = folder.path().join("transformer/config.json");
    let said = fs::read_to_string(&config).expect("a config");
    for (from, to, words) in [
        ("\"cap_feat_dim\": 40", "\"cap_feat_dim\": 41", &["cap_embedder"][..]),
        ("\"qk_norm\": true", "\"qk_norm\": false", &["qk_norm"]),
        ("\"dim\": 96", "\"dim\": 97", &["n_heads"]),
    ] {
        assert!(said.contains(from), "{from}");
        fs::write(&config, said.replace(from, to)).expect("written");
        refused(&ModelRequest::new(folder.path()), words);
    }
}
