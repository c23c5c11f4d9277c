//! What the loaders ask for is what the real models' files hold, in both layouts; models are known by what they hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};

use dype::testing::{
    base::json::read_json,
    models::{
        ModelRequest, Registry,
        flux2::{Flux2Config, Flux2VaeConfig, encoder_tensors, transformer_names, transformer_tensors, vae_tensors},
        parts::{Qwen3Config, kl::Side, vae_names},
    },
    weights::{Renamed, TensorFiles, TensorSource, check_all},
};
use serde_json::Value;

use super::{fixture, tiny_base};
use crate::support::{self, manifest::ManifestSource};

type Shapes = BTreeMap<String, Vec<usize>>;

fn real() -> Value {
    read_json(&fixture("real_tensors.json")).expect("the real models' lists")
}

fn shapes(list: &Value) -> Shapes {
    serde_json::from_value(list.clone()).expect("names and shapes")
}

fn source(list: &Value) -> Arc<dyn TensorSource> {
    Arc::new(ManifestSource::new(shapes(list)))
}

fn config<C>(value: &Value, read: impl Fn(&std::path::Path) -> dype::testing::Result<C>) -> C {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    std::fs::write(&path, value.to_string()).expect("written");
    read(&path).expect("the real config")
}

/// Every tensor of a transformer is asked for, whole or in parts that cover it, and nothing else.
fn assert_covers(named: &Renamed, expected: &[(String, Vec<usize>)]) {
    check_all(named, expected).expect("every tensor is there, in its shape");
    assert_eq!(named.unused(), Vec::<String>::new());
    let asked: BTreeSet<_> = expected.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(asked, named.names().into_iter().collect());
}

#[test]
fn the_transformers_loader_asks_for_exactly_the_real_tensors_in_both_layouts() {
    let real = real();
    for size in ["4B", "9B"] {
        let config = config(&real[size]["config"], Flux2Config::read);
        let expected = transformer_tensors(&config).expect("a list");
        for layout in ["transformer", "single_file"] {
            let named = transformer_names(source(&real[size][layout])).expect("a FLUX.2 transformer");
            assert_covers(&named, &expected);
        }
    }
    assert_eq!(config(&real["4B"]["config"], Flux2Config::read), Flux2Config::klein_4b());
}

#[test]
fn of_the_text_encoder_nothing_behind_layer_27_is_asked_for() {
    let real = real();
    for size in ["4B", "9B"] {
        let config = config(&real[size]["text_config"], Qwen3Config::read);
        let expected = encoder_tensors(&config).expect("a list");
        let tensors = source(&real[size]["text_encoder"]);
        check_all(&*tensors, &expected).expect("every tensor is there");
        let asked: BTreeSet<_> = expected.into_iter().map(|(name, _)| name).collect();
        let is_needed = |name: &str| match name.strip_prefix("model.layers.") {
            Some(rest) => rest.split('.').next().and_then(|i| i.parse().ok()).is_some_and(|i: usize| i < 27),
            None => name == "model.embed_tokens.weight",
        };
        assert_eq!(asked, tensors.names().into_iter().filter(|name| is_needed(name)).collect());
    }
}

#[test]
fn the_autoencoders_loaders_ask_for_exactly_the_real_tensors_in_both_layouts() {
    let real = real();
    let config: Flux2VaeConfig = serde_json::from_value(real["vae"]["config"].clone()).expect("the real config");
    let sides = [Side::Encoder, Side::Decoder].map(|side| vae_tensors(&config, side).expect("a list"));
    let diffusers = source(&real["vae"]["tensors"]);
    let single: Arc<dyn TensorSource> =
        Arc::new(vae_names::vae(source(&real["vae"]["single_file"])).expect("an autoencoder"));
    for tensors in [diffusers, single] {
        let mut asked = BTreeSet::new();
        for side in &sides {
            check_all(&*tensors, side).expect("every tensor is there");
            asked.extend(side.iter().map(|(name, _)| name.clone()));
        }
        let mut there: BTreeSet<_> = tensors.names().into_iter().collect();
        assert!(there.remove("bn.num_batches_tracked"), "a count of training");
        assert_eq!(asked, there);
    }
}

#[test]
fn the_small_decoder_is_one_of_other_widths() {
    let real = real();
    let mut said = real["vae"]["config"].clone();
    said["decoder_block_out_channels"] = serde_json::json!([96, 192, 384, 384]);
    let config: Flux2VaeConfig = serde_json::from_value(said).expect("a config");
    let decoder: Shapes = vae_tensors(&config, Side::Decoder)
        .expect("a list")
        .into_iter()
        .filter(|(n, _)| n.starts_with("decoder."))
        .collect();
    assert_eq!(decoder, shapes(&real["small_decoder"]));
    let encoder = vae_tensors(&config, Side::Encoder).expect("a list");
    check_all(&*source(&real["vae"]["tensors"]), &encoder).expect("the encoder is as it was");
}

#[test]
fn a_single_file_is_known_by_what_it_holds() {
    let real = real();
    for size in ["4B", "9B"] {
        let shapes = shapes(&real[size]["single_file"]);
        // Headers alone, without data: enough to be known by, and to say what else is needed.
        let named = shapes.iter().map(|(name, shape)| (format!("model.diffusion_model.{name}"), shape.clone()));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        support::write_hollow(&path, named);
        let refused = Registry::default().find(&ModelRequest::new(&path)).err().expect("it lacks its other parts");
        for part in ["--vae", "--text-encoder", "--tokenizer"] {
            assert!(refused.hint().is_some_and(|hint| hint.contains(part)), "{refused} {:?}", refused.hint());
        }
        let mut request = ModelRequest::new(&path);
        for part in ["vae", "text_encoder", "tokenizer"] {
            request = request.with(part, fixture(&format!("tiny/{part}")));
        }
        let (family, _) = Registry::default().find(&request).expect("found");
        assert_eq!(family.name(), "FLUX.2 [klein]");
        // The tiny text encoder is too narrow for it.
        let error = super::open(&request).err().expect("it does not fit");
        assert!(error.to_string().contains("width 84"), "{error}");
    }
}

#[test]
fn what_a_model_is_usually_made_with_follows_from_whether_it_is_distilled() {
    let facts = |path: &std::path::Path| Registry::default().facts(&ModelRequest::new(path)).expect("facts").recipe;
    let distilled = facts(&fixture("tiny"));
    assert_eq!((distilled.steps, distilled.cfg, distilled.base_resolution), (4, None, 1024));
    let folder = tiny_base();
    let base = facts(folder.path());
    assert_eq!((base.steps, base.cfg, base.negative_prompt), (50, Some(4.0), Some("")));
    // A transformer alone does not say which it is.
    let mut request = ModelRequest::new(fixture("tiny/transformer/diffusion_pytorch_model.safetensors"));
    for part in ["vae", "text_encoder", "tokenizer"] {
        request = request.with(part, fixture(&format!("tiny/{part}")));
    }
    let model = super::open(&request).expect("opens");
    assert_eq!(model.facts.recipe.steps, 4);
    assert!(model.remark.is_some_and(|remark| remark.contains("--cfg 4")));
}

/// How Black Forest Labs' file calls what diffusers calls so. Source: diffusers, `scripts/convert_flux2_to_diffusers.py`, read
/// backwards.
const RENAMED: [(&str, &str); 18] = [
    ("single_transformer_blocks.", "single_blocks."),
    ("transformer_blocks.", "double_blocks."),
    (".attn.to_qkv_mlp_proj.", ".linear1."),
    (".attn.to_out.0.", ".img_attn.proj."),
    (".attn.to_out.", ".linear2."),
    (".attn.to_add_out.", ".txt_attn.proj."),
    (".attn.norm_added_q.weight", ".txt_attn.norm.query_norm.scale"),
    (".attn.norm_added_k.weight", ".txt_attn.norm.key_norm.scale"),
    (".ff.linear_in.", ".img_mlp.0."),
    (".ff.linear_out.", ".img_mlp.2."),
    (".ff_context.linear_in.", ".txt_mlp.0."),
    (".ff_context.linear_out.", ".txt_mlp.2."),
    ("time_guidance_embed.timestep_embedder.linear_1.", "time_in.in_layer."),
    ("time_guidance_embed.timestep_embedder.linear_2.", "time_in.out_layer."),
    ("_modulation_img.linear.", "_modulation_img.lin."),
    ("_modulation_txt.linear.", "_modulation_txt.lin."),
    ("single_stream_modulation.linear.", "single_stream_modulation.lin."),
    ("proj_out.", "final_layer.linear."),
];

/// The tiny transformer as Black Forest Labs' single file.
fn single_file(own: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let mut file = HashMap::new();
    for (name, tensor) in own {
        let norms = if name.starts_with("single") { ".norm." } else { ".img_attn.norm." };
        let mut new = RENAMED.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
        for (kind, whose) in [("q", "query"), ("k", "key")] {
            new = new.replace(&format!(".attn.norm_{kind}.weight"), &format!("{norms}{whose}_norm.scale"));
        }
        new = new.replace("x_embedder.", "img_in.").replace("context_embedder.", "txt_in.");
        let cat = |names: [&str; 3], first: &str| {
            let parts = names.map(|part| &own[&name.replace(first, part)]);
            Tensor::cat(&parts, 0).expect("rows")
        };
        let tensor = match name.as_str() {
            _ if [".to_k.", ".to_v.", ".add_k_proj.", ".add_v_proj."].iter().any(|part| name.contains(part)) => {
                continue;
            }
            _ if name.contains(".to_q.") => cat(["to_q", "to_k", "to_v"], "to_q"),
            _ if name.contains(".add_q_proj.") => cat(["add_q_proj", "add_k_proj", "add_v_proj"], "add_q_proj"),
            // Scale and shift here, shift and scale there.
            "norm_out.linear.weight" => {
                let halves = tensor.chunk(2, 0).expect("halves");
                Tensor::cat(&[&halves[1], &halves[0]], 0).expect("rows")
            }
            _ => tensor.clone(),
        };
        let new = new.replace(".attn.to_q.", ".img_attn.qkv.").replace(".attn.add_q_proj.", ".txt_attn.qkv.");
        file.insert(new.replace("norm_out.linear.", "final_layer.adaLN_modulation.1."), tensor);
    }
    file
}

/// Number for number: fused layers, norms, and the halves of the last modulation, which change places.
#[test]
fn a_single_file_holds_the_tensors_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, path) =
        (fixture("tiny/transformer/diffusion_pytorch_model.safetensors"), folder.path().join("x.safetensors"));
    let tensors = single_file(&candle_core::safetensors::load(&own, &Device::Cpu).expect("tensors"));
    let open =
        |path: PathBuf| transformer_names(Arc::new(TensorFiles::open(&[path]).expect("a file"))).expect("a FLUX.2");
    let own = open(own);
    // As its authors call the weights of norms, and as ComfyUI does.
    for ending in ["_norm.scale", "_norm.weight"] {
        let named = |(name, tensor): (&String, &Tensor)| (name.replace("_norm.scale", ending), tensor.clone());
        let tensors: HashMap<String, Tensor> = tensors.iter().map(named).collect();
        candle_core::safetensors::save(&tensors, &path).expect("saved");
        let file = open(path.clone());
        let sorted = |source: &Renamed| source.names().into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&file), sorted(&own));
        for name in own.names() {
            let of =
                |source: &Renamed| support::values(&source.load(&name, DType::F32, &Device::Cpu).expect("a tensor"));
            assert!(of(&file) == of(&own), "{name}");
        }
    }
}

#[test]
fn a_flux_2_dev_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    support::copy_folder(&fixture("tiny"), folder.path());
    let path = folder.path().join("transformer/config.json");
    let mut config: Value = read_json(&path).expect("a config");
    config["guidance_embeds"] = true.into();
    std::fs::write(&path, config.to_string()).expect("written");
    let error = super::open(&ModelRequest::new(folder.path())).err().expect("refused");
    assert!(error.to_string().contains("guidance_embeds true"), "{error}");
}
