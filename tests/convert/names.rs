//! Names and shapes: the lists of real models in both layouts, there and back.

use std::{collections::BTreeMap, path::Path};

use dype::testing::{
    base::json::read_json,
    convert::{Format, Kind, Plan},
    models::{ModelRequest, Registry},
    weights::TensorSource,
};
use serde_json::Value;

use crate::{convert, fixture, open, path, support::program::Place, support::write_hollow};

type Shapes = BTreeMap<String, Vec<usize>>;

/// A list of a fixture, below these keys.
fn list(file: &str, keys: &[&str]) -> Shapes {
    let mut value: Value = read_json(&fixture(file)).expect("golden");
    for key in keys {
        value = value[*key].take();
    }
    serde_json::from_value(value).expect("names and shapes")
}

/// What a file with these tensors becomes: names and shapes, the marks and scales of a file in 8 bits apart.
fn planned(shapes: &Shapes, kind: &str, format: Format) -> (Shapes, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.of.someone.safetensors");
    write_hollow(&file, shapes.clone());
    let exchange = Registry::default().exchange(&ModelRequest::new(&file), None).expect("a network");
    let kind: Kind = kind.parse().expect("a type");
    let plan = Plan::new(&exchange, &*exchange.network.source, kind, format, "x").expect("a plan");
    let outlines = plan.tensors.into_iter().map(|(outline, _)| (outline.name, outline.shape));
    (outlines.collect(), plan.remarks)
}

#[track_caller]
fn assert_same(found: &Shapes, expected: &Shapes, what: &str) {
    let missing: Vec<_> = expected.iter().filter(|(name, shape)| found.get(*name) != Some(shape)).take(3).collect();
    let more: Vec<_> = found.keys().filter(|name| !expected.contains_key(*name)).take(3).collect();
    assert!(missing.is_empty() && more.is_empty(), "{what}: missing {missing:?}, too many {more:?}");
}

#[test]
fn transformers_of_both_layouts_become_the_single_file_s_gguf_and_stay_what_they_are_as_safetensors() {
    let klein = "flux2-klein/real_tensors.json";
    let flux = (
        list("flux1_dev_tensors.json", &["transformer"]),
        list("flux1_dev_bfl_tensors.json", &["flux1-dev.safetensors"]),
    );
    let families = [
        ("FLUX.1", flux),
        ("klein 4B", (list(klein, &["4B", "transformer"]), list(klein, &["4B", "single_file"]))),
        ("klein 9B", (list(klein, &["9B", "transformer"]), list(klein, &["9B", "single_file"]))),
        (
            "Z-Image",
            (list("z-image/real_tensors.json", &["transformer"]), list("z-image/real_tensors.json", &["single_file"])),
        ),
        (
            "Qwen-Image",
            (
                list("qwen-image/real_tensors.json", &["transformer"]),
                list("qwen-image/real_tensors.json", &["transformer"]),
            ),
        ),
    ];
    for (family, (diffusers, mut single)) in families {
        // It lies in published files and belongs to no layer.
        single.remove("norm_final.weight");
        for (layout, shapes) in [("diffusers", &diffusers), ("single", &single)] {
            let what = format!("{family}, {layout}");
            let (gguf, remarks) = planned(shapes, "q8_0", Format::Gguf);
            assert_same(&gguf, &single, &what);
            assert!(remarks.is_empty(), "{what}: {remarks:?}");
            assert_same(&planned(shapes, "bf16", Format::Safetensors).0, shapes, &what);
            let (mut fp8, _) = planned(shapes, "fp8", Format::Safetensors);
            assert_eq!(fp8.remove("scaled_fp8"), Some(vec![2]), "{what}");
            let scales = fp8.keys().filter(|name| name.ends_with(".scale_weight")).count();
            fp8.retain(|name, _| !name.ends_with(".scale_weight"));
            assert!(scales > 50, "{what}: {scales}");
            assert_same(&fp8, shapes, &what);
        }
        let prefixed = single.iter().map(|(name, shape)| (format!("model.diffusion_model.{name}"), shape.clone()));
        let prefixed: Shapes = prefixed.collect();
        assert_same(&planned(&prefixed, "bf16", Format::Safetensors).0, &single, family);
        assert_same(&planned(&prefixed, "q4_0", Format::Gguf).0, &single, family);
    }
}

#[test]
fn text_encoders_become_llama_cpp_s_and_stay_what_they_are_as_safetensors() {
    let t5 = list("flux1_dev_tensors.json", &["text_encoder_2"]);
    let (gguf, _) = planned(&t5, "q8_0", Format::Gguf);
    // 24 blocks of 9 tensors, the positions of the first, the table and the last norm.
    assert_eq!(gguf.len(), 24 * 9 + 3);
    for (name, shape) in [
        ("token_embd.weight", vec![32128, 4096]),
        ("enc.blk.0.attn_rel_b.weight", vec![32, 64]),
        ("enc.blk.23.ffn_gate.weight", vec![10240, 4096]),
        ("enc.output_norm.weight", vec![4096]),
    ] {
        assert_eq!(gguf.get(name), Some(&shape), "{name}");
    }
    assert_same(&planned(&t5, "bf16", Format::Safetensors).0, &t5, "T5");
    let clip = list("flux1_dev_tensors.json", &["text_encoder"]);
    assert_same(&planned(&clip, "f16", Format::Safetensors).0, &clip, "CLIP");
    let qwen3 = list("qwen3_4b_tensors.json", &[]);
    let (gguf, _) = planned(&qwen3, "q4_k", Format::Gguf);
    for (name, shape) in [
        ("token_embd.weight", vec![151_936, 2560]),
        ("blk.35.attn_output.weight", vec![2560, 4096]),
        ("blk.0.attn_q_norm.weight", vec![128]),
        ("blk.7.ffn_down.weight", vec![2560, 9728]),
        ("output_norm.weight", vec![2560]),
    ] {
        assert_eq!(gguf.get(name), Some(&shape), "{name}");
    }
    assert_same(&planned(&qwen3, "fp8_e4m3fn", Format::Safetensors).0, &qwen3, "Qwen3");
    let mut qwen25 = list("qwen-image/real_tensors.json", &["text_encoder"]);
    let (gguf, _) = planned(&qwen25, "q8_0", Format::Gguf);
    assert_eq!(gguf.get("blk.27.attn_v.bias"), Some(&vec![512]));
    // What sees pictures is not of the part, nor what guesses words.
    qwen25.retain(|name, _| !name.starts_with("visual.") && !name.starts_with("lm_head"));
    assert_same(&planned(&qwen25, "bf16", Format::Safetensors).0, &qwen25, "Qwen2.5-VL");
    assert_eq!(gguf.len(), qwen25.len());
}

/// The list of a file that gguf-py wrote: names, shapes and types.
fn golden(file: &str) -> Vec<(String, Vec<usize>, String)> {
    let store = open(&fixture("gguf/models").join(file));
    let names = store.names().into_iter();
    names
        .map(|name| (name.clone(), store.shape(&name).expect("there"), store.type_name(&name).expect("there")))
        .collect()
}

/// A file in blocks becomes floats and the same blocks again.
#[test]
fn files_of_other_programs_come_back_with_their_names_and_types() {
    for (file, kind) in [
        ("narrow-Q8_0.gguf", "q8_0"),
        ("narrow-Q4_0.gguf", "q4_0"),
        ("narrow-BF16.gguf", "bf16"),
        ("t5-Q8_0.gguf", "q8_0"),
    ] {
        let (place, expected) = (Place::new(), golden(file));
        let original = path(&format!("gguf/models/{file}"));
        convert(&place, &original, "floats.safetensors", "f32", &[]).succeeds();
        convert(&place, "floats.safetensors", "again.gguf", kind, &[]).succeeds();
        let found = open(&place.path("again.gguf"));
        assert_eq!(found.made_for(), open(Path::new(&original)).made_for(), "{file}");
        assert_eq!(found.names().len(), expected.len(), "{file}");
        for (name, shape, kind) in expected {
            assert_eq!(found.shape(&name), Some(shape), "{file}: {name}");
            // What is kept has the type it came in: F32 here, where the file had F16.
            let kept = kind == "F16" && found.type_name(&name).as_deref() == Some("F32");
            assert!(
                kept || found.type_name(&name) == Some(kind.clone()),
                "{file}: {name} {:?}",
                found.type_name(&name)
            );
        }
    }
}
