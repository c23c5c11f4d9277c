//! Single-file names against diffusers' names, on the real model's list of tensors and on the tiny model's numbers.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    models::flux1::autoencoder,
    models::{
        flux1::bfl,
        parts::{kl, text_names, vae_names},
    },
    weights::{Cut, Renamed, TensorFiles, TensorSource, open_folder},
};

use crate::{fixture, manifest::ManifestSource};

fn shapes_of(source: &dyn TensorSource) -> BTreeMap<String, Vec<usize>> {
    source.names().into_iter().map(|name| (name.clone(), source.shape(&name).expect("its own name"))).collect()
}

/// The adaptor has the real model's tensors, no more and no less, and uses every tensor of the file.
fn answers_for_the_real_model(renamed: &Renamed, file: &ManifestSource, diffusers: &ManifestSource) {
    assert_eq!(&shapes_of(renamed), diffusers.shapes());
    assert_eq!(renamed.unused(), Vec::<String>::new());
    for name in renamed.names() {
        let tensor = renamed.load(&name, DType::BF16, &Device::Cpu).expect("loads");
        assert_eq!(Some(tensor.dims()), renamed.shape(&name).as_deref(), "{name}");
    }
    assert_eq!(file.unasked(), Vec::<String>::new());
    let bytes = |source: &dyn TensorSource| source.names().iter().filter_map(|n| source.bytes(n)).sum::<u64>();
    assert_eq!(bytes(renamed), bytes(file));
}

#[test]
fn the_real_single_file_transformer_answers_to_diffusers_names() {
    let file = Arc::new(ManifestSource::single_file("flux1-dev.safetensors"));
    let renamed = bfl::transformer(file.clone()).expect("a transformer");
    answers_for_the_real_model(&renamed, &file, &ManifestSource::diffusers("transformer"));
}

#[test]
fn the_real_single_file_autoencoder_answers_to_diffusers_names() {
    let file = Arc::new(ManifestSource::single_file("ae.safetensors"));
    let renamed = vae_names::vae(file.clone()).expect("an autoencoder");
    answers_for_the_real_model(&renamed, &file, &ManifestSource::diffusers("vae"));
}

/// Golden: where the parts of fused tensors lie, written out from black-forest-labs/flux `modules/layers.py`.
#[test]
fn fused_tensors_are_split_where_the_reference_splits_them() {
    let renamed = bfl::transformer(Arc::new(ManifestSource::single_file("flux1-dev.safetensors"))).expect("renamed");
    let cases = [
        ("transformer_blocks.7.attn.to_q.weight", "double_blocks.7.img_attn.qkv.weight", Cut::Rows(0..3072)),
        ("transformer_blocks.7.attn.add_v_proj.bias", "double_blocks.7.txt_attn.qkv.bias", Cut::Rows(6144..9216)),
        ("single_transformer_blocks.37.attn.to_k.weight", "single_blocks.37.linear1.weight", Cut::Rows(3072..6144)),
        ("single_transformer_blocks.37.proj_mlp.bias", "single_blocks.37.linear1.bias", Cut::Rows(9216..21504)),
        ("single_transformer_blocks.0.proj_out.weight", "single_blocks.0.linear2.weight", Cut::Whole),
        ("norm_out.linear.weight", "final_layer.adaLN_modulation.1.weight", Cut::SwappedHalves),
        ("transformer_blocks.0.attn.norm_added_k.weight", "double_blocks.0.txt_attn.norm.key_norm.scale", Cut::Whole),
    ];
    for (name, stored, part) in cases {
        assert_eq!(renamed.stored(name), Some((stored, &part)), "{name}");
    }
}

/// What walks over shapes ask for; the other parts' lists are in tests/networks.
#[test]
fn an_autoencoder_asks_for_the_tensors_of_the_real_model() {
    let as_map = |list: Vec<(String, Vec<usize>)>| {
        let count = list.len();
        let map: BTreeMap<_, _> = list.into_iter().collect();
        assert_eq!(map.len(), count, "a name comes twice");
        map
    };
    let vae = ManifestSource::diffusers("vae");
    for (side, prefix) in [(kl::Side::Decoder, "decoder."), (kl::Side::Encoder, "encoder.")] {
        let real = vae.shapes().iter().filter(|(name, _)| name.starts_with(prefix));
        let real: BTreeMap<_, _> = real.map(|(name, shape)| (name.clone(), shape.clone())).collect();
        assert_eq!(as_map(kl::tensors(&autoencoder(), side).expect("an autoencoder")), real);
    }
}

fn bits(t: &Tensor) -> Vec<u16> {
    let t = t.flatten_all().expect("flat");
    t.to_vec1::<half::bf16>().expect("bf16").into_iter().map(half::bf16::to_bits).collect()
}

fn equal_bit_for_bit(ours: &dyn TensorSource, diffusers: &dyn TensorSource) {
    assert_eq!(shapes_of(ours), shapes_of(diffusers));
    for name in diffusers.names() {
        let load = |source: &dyn TensorSource| source.load(&name, DType::BF16, &Device::Cpu).expect("loads");
        let (ours_whole, whole) = (load(ours), load(diffusers));
        assert_eq!(bits(&ours_whole), bits(&whole), "{name}");
        let rows = whole.dims()[0];
        let middle = rows / 3..rows - rows / 4;
        let part = ours.load_rows(&name, middle.clone(), DType::BF16, &Device::Cpu).expect("rows");
        assert_eq!(bits(&part), bits(&whole.narrow(0, middle.start, middle.len()).expect("narrow")), "{name}");
    }
}

fn open(path: &str) -> Arc<TensorFiles> {
    Arc::new(TensorFiles::open(&[fixture(path)]).expect("opens"))
}

#[test]
fn the_tiny_single_file_holds_the_tiny_folder_s_numbers() {
    let transformer = bfl::transformer(open("tiny-bfl/flux1-tiny.safetensors")).expect("a transformer");
    equal_bit_for_bit(&transformer, &open_folder(&fixture("tiny-flux/transformer")).expect("folder"));
    let vae = vae_names::vae(open("tiny-bfl/ae.safetensors")).expect("an autoencoder");
    equal_bit_for_bit(&vae, &open_folder(&fixture("tiny-flux/vae")).expect("folder"));
    assert_eq!((transformer.unused(), vae.unused()), (vec![], vec![]));
}

/// ComfyUI writes the weights of norms as such.
#[test]
fn norms_may_be_called_weights_in_single_files() {
    let file = open("tiny-bfl/flux1-tiny.safetensors");
    let name = |stored: String| (stored.replace("_norm.scale", "_norm.weight"), stored, Cut::Whole);
    let renamed = Renamed::new(file.clone(), file.names().into_iter().map(name));
    assert_eq!(renamed.names().iter().filter(|name| name.ends_with("_norm.weight")).count(), 14);
    let transformer = bfl::transformer(Arc::new(renamed)).expect("a transformer");
    equal_bit_for_bit(&transformer, &open_folder(&fixture("tiny-flux/transformer")).expect("folder"));
}

/// An all-in-one checkpoint: everything under a prefix.
fn prefixed(parts: &[(&str, &dyn TensorSource)]) -> Arc<ManifestSource> {
    Arc::new(ManifestSource::new(parts.iter().flat_map(|(prefix, source)| {
        shapes_of(*source).into_iter().map(move |(name, shape)| (format!("{prefix}{name}"), shape)).collect::<Vec<_>>()
    })))
}

#[test]
fn prefixes_of_all_in_one_checkpoints_are_seen_through() {
    let (flux, vae) =
        (ManifestSource::single_file("flux1-dev.safetensors"), ManifestSource::single_file("ae.safetensors"));
    let (clip, t5) = (ManifestSource::diffusers("text_encoder"), ManifestSource::diffusers("text_encoder_2"));
    let all = prefixed(&[
        ("model.diffusion_model.", &flux),
        ("vae.", &vae),
        ("text_encoders.clip_l.transformer.", &clip),
        ("text_encoders.t5xxl.transformer.", &t5),
    ]);
    let transformer = bfl::transformer(all.clone()).expect("a transformer");
    assert_eq!(&shapes_of(&transformer), ManifestSource::diffusers("transformer").shapes());
    assert_eq!(&shapes_of(&vae_names::vae(all.clone()).expect("vae")), ManifestSource::diffusers("vae").shapes());
    let found = text_names::clip(all.clone()).expect("CLIP");
    assert!(clip.shapes().iter().all(|(name, shape)| found.shape(name).as_ref() == Some(shape)));
    let found = text_names::t5(all).expect("T5");
    assert!(t5.shapes().iter().all(|(name, shape)| found.shape(name).as_ref() == Some(shape)));
    let older = prefixed(&[("first_stage_model.", &vae)]);
    assert!(vae_names::vae(older).is_some());
}

#[test]
fn clip_answers_with_and_without_text_model() {
    let with = Arc::new(ManifestSource::diffusers("text_encoder"));
    let without = with
        .shapes()
        .iter()
        .map(|(name, shape)| (name.replacen("text_model.", "", 1), shape.clone()))
        .collect::<Vec<_>>();
    let without = Arc::new(ManifestSource::new(without));
    for stored in [with.clone(), without.clone()] {
        let clip = text_names::clip(stored).expect("CLIP");
        for asked in [&with, &without] {
            assert!(asked.shapes().iter().all(|(name, shape)| clip.shape(name).as_ref() == Some(shape)));
        }
    }
}

/// CLIP as openai/CLIP stores it: query, key and value one above the other.
fn openai_clip() -> BTreeMap<String, Tensor> {
    let clip = open("tiny-flux/text_encoder/model.safetensors");
    let load = |name: &str| clip.load(name, DType::BF16, &Device::Cpu).expect(name);
    let mut tensors = BTreeMap::new();
    for name in clip.names() {
        let short = name.strip_prefix("text_model.").expect("transformers' name");
        let Some(rest) = short.strip_prefix("encoder.layers.") else {
            let new = match short {
                "embeddings.position_embedding.weight" => "positional_embedding".to_owned(),
                "embeddings.token_embedding.weight" => "token_embedding.weight".to_owned(),
                norm => norm.replace("final_layer_norm", "ln_final"),
            };
            tensors.insert(new, load(&name));
            continue;
        };
        let (layer, rest) = rest.split_once('.').expect("a layer");
        let block = format!("transformer.resblocks.{layer}");
        if let Some(kind) = rest.strip_prefix("self_attn.q_proj.") {
            let one = |part| load(&format!("text_model.encoder.layers.{layer}.self_attn.{part}_proj.{kind}"));
            let fused = Tensor::cat(&["q", "k", "v"].map(one), 0).expect("one tensor");
            tensors.insert(format!("{block}.attn.in_proj_{kind}"), fused);
        }
        let names = [
            ("self_attn.out_proj", "attn.out_proj"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ];
        if let Some((stem, new)) = names.into_iter().find(|(stem, _)| rest.starts_with(stem)) {
            tensors.insert(rest.replacen(stem, &format!("{block}.{new}"), 1), load(&name));
        }
    }
    tensors.insert("text_projection".into(), Tensor::zeros((32, 32), DType::BF16, &Device::Cpu).expect("zeros"));
    tensors.insert("visual.proj".into(), Tensor::zeros((32, 32), DType::BF16, &Device::Cpu).expect("zeros"));
    tensors
}

#[test]
fn clip_under_openai_s_names_holds_the_same_numbers() {
    let diffusers = text_names::clip(open("tiny-flux/text_encoder/model.safetensors")).expect("CLIP");
    for prefix in ["", "cond_stage_model.model."] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clip.safetensors");
        let named = openai_clip().into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
        candle_core::safetensors::save(&named.collect(), &path).expect("saved");
        let ours = Arc::new(TensorFiles::open(&[path]).expect("opens"));
        let ours = text_names::clip(ours).expect("CLIP");
        equal_bit_for_bit(&ours, &diffusers);
        assert_eq!(ours.unused(), ["text_projection", "visual.proj"].map(|name| format!("{prefix}{name}")));
    }
    // Of another width than it says.
    let mut tensors = openai_clip();
    let odd = Tensor::zeros((64, 32), DType::BF16, &Device::Cpu).expect("zeros");
    tensors.insert("transformer.resblocks.0.attn.in_proj_weight".into(), odd);
    let shapes = tensors.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec()));
    let clip = text_names::clip(Arc::new(ManifestSource::new(shapes))).expect("CLIP");
    assert_eq!(clip.shape("encoder.layers.0.self_attn.q_proj.weight"), None);
}

/// Golden: llama.cpp's names for T5's encoder (gguf-py, `tensor_mapping.py`).
#[test]
fn t5_under_llama_cpp_s_names_has_every_tensor_of_the_real_model() {
    let real = ManifestSource::diffusers("text_encoder_2");
    let layers = [
        ("layer.0.SelfAttention.q", "attn_q"),
        ("layer.0.SelfAttention.k", "attn_k"),
        ("layer.0.SelfAttention.v", "attn_v"),
        ("layer.0.SelfAttention.o", "attn_o"),
        ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
        ("layer.0.layer_norm", "attn_norm"),
        ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
        ("layer.1.DenseReluDense.wi_1", "ffn_up"),
        ("layer.1.DenseReluDense.wo", "ffn_down"),
        ("layer.1.layer_norm", "ffn_norm"),
        ("encoder.final_layer_norm", "enc.output_norm"),
        ("shared", "token_embd"),
    ];
    let llama = |name: &String| {
        let new = layers
            .iter()
            .fold(name.replace("encoder.block.", "enc.blk."), |name, (theirs, ours)| name.replace(theirs, ours));
        (new, real.shape(name).expect("its own name"))
    };
    let t5 = text_names::t5(Arc::new(ManifestSource::new(real.names().iter().map(llama)))).expect("T5");
    for name in real.names() {
        assert_eq!(t5.shape(&name), real.shape(&name), "{name}");
    }
    assert_eq!((t5.shape("encoder.embed_tokens.weight"), t5.unused()), (real.shape("shared.weight"), vec![]));
}

#[test]
fn an_autoencoder_under_diffusers_names_may_have_a_prefix() {
    let vae = ManifestSource::diffusers("vae");
    for prefix in ["", "vae.", "first_stage_model."] {
        let renamed = vae_names::vae(prefixed(&[(prefix, &vae)])).expect("an autoencoder");
        assert_eq!(&shapes_of(&renamed), vae.shapes(), "{prefix}");
    }
}

#[test]
fn older_checkpoints_hold_their_encoders_under_other_prefixes() {
    let (clip, t5) = (ManifestSource::diffusers("text_encoder"), ManifestSource::diffusers("text_encoder_2"));
    for prefix in
        ["conditioner.embedders.0.transformer.", "cond_stage_model.transformer.", "clip_l.", "text_encoders.clip_l."]
    {
        let found = text_names::clip(prefixed(&[(prefix, &clip)])).expect(prefix);
        assert!(clip.shapes().iter().all(|(name, shape)| found.shape(name).as_ref() == Some(shape)), "{prefix}");
    }
    for prefix in ["conditioner.embedders.1.transformer.", "text_encoders.t5xxl.", "t5xxl.transformer."] {
        let found = text_names::t5(prefixed(&[(prefix, &t5)])).expect(prefix);
        assert!(t5.shapes().iter().all(|(name, shape)| found.shape(name).as_ref() == Some(shape)), "{prefix}");
    }
}

#[test]
fn t5_answers_to_both_names_of_its_embedding() {
    for stored in ["shared.weight", "encoder.embed_tokens.weight"] {
        let shapes = ManifestSource::diffusers("text_encoder_2").shapes().clone();
        let shapes =
            shapes.into_iter().map(|(name, s)| (if name == "shared.weight" { stored.into() } else { name }, s));
        let t5 = text_names::t5(Arc::new(ManifestSource::new(shapes))).expect("T5");
        for asked in ["shared.weight", "encoder.embed_tokens.weight"] {
            assert_eq!(t5.shape(asked), Some(vec![32128, 4096]), "{stored} as {asked}");
            assert_eq!(t5.stored(asked).map(|(name, _)| name), Some(stored));
        }
    }
}
