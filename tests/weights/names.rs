//! Single-file names against diffusers' names, on the real model's list of tensors and on the tiny model's numbers.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    models::flux1::autoencoder,
    models::{
        flux1::bfl,
        parts::{kl, text_names, vae_names},
    },
    weights::{Cut, Renamed, SafetensorsStore, TensorSource, open_folder},
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

/// What walks over shapes ask for; the other parts' lists are in tests/transformer.rs and tests/text.rs.
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

fn open(path: &str) -> Arc<SafetensorsStore> {
    Arc::new(SafetensorsStore::open(&[fixture(path)]).expect("opens"))
}

#[test]
fn the_tiny_single_file_holds_the_tiny_folder_s_numbers() {
    let transformer = bfl::transformer(open("tiny-bfl/flux1-tiny.safetensors")).expect("a transformer");
    equal_bit_for_bit(&transformer, &open_folder(&fixture("tiny-flux/transformer")).expect("folder"));
    let vae = vae_names::vae(open("tiny-bfl/ae.safetensors")).expect("an autoencoder");
    equal_bit_for_bit(&vae, &open_folder(&fixture("tiny-flux/vae")).expect("folder"));
    assert_eq!((transformer.unused(), vae.unused()), (vec![], vec![]));
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
