//! Numbers: every type against candle's own rounding, whole runs, and what is kept.

use std::collections::HashMap;

use candle_core::{
    DType, Device,
    quantized::{GgmlDType, QTensor},
    safetensors,
};
use dype::testing::weights::TensorSource;

use crate::{
    FILE, FOLDER, convert, fixture, latents, numbers, open, path,
    support::{program::Place, relative_error},
    tensor,
};

/// Rows of 128 and more hold blocks of 32; those of 256 numbers fit where they are as wide.
const BLOCKS: [(&str, GgmlDType); 10] = [
    ("q8_0", GgmlDType::Q8_0),
    ("q5_1", GgmlDType::Q5_1),
    ("q5_0", GgmlDType::Q5_0),
    ("q4_1", GgmlDType::Q4_1),
    ("q4_0", GgmlDType::Q4_0),
    ("q6_k", GgmlDType::Q6K),
    ("q5_k", GgmlDType::Q5K),
    ("q4_k", GgmlDType::Q4K),
    ("q3_k", GgmlDType::Q3K),
    ("q2_k", GgmlDType::Q2K),
];

/// The beginnings of names that are kept. Source: city96/ComfyUI-GGUF, `tools/lcpp.patch`.
const KEPT: [&str; 6] = ["img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer."];

#[test]
fn every_type_of_blocks_makes_the_picture_of_weights_that_are_rounded_on_the_fly() {
    let original = safetensors::load(fixture(FILE), &Device::Cpu).expect("tensors");
    for (kind, theirs) in BLOCKS {
        let place = Place::new();
        let run = convert(&place, &path(FILE), "x.gguf", kind, &[]);
        assert_eq!(run.succeeds().stdout, "x.gguf\n");
        let converted = open(&place.path("x.gguf"));
        let (mut rounded, mut uneven) = (HashMap::new(), 0);
        for (name, tensor) in &original {
            let wide = tensor.to_dtype(DType::F32).expect("f32");
            let is_kept =
                KEPT.iter().any(|start| name.starts_with(start)) || wide.rank() == 1 || wide.elem_count() <= 1024;
            let fits = wide.dims().last().is_some_and(|columns| columns % theirs.block_size() == 0);
            uneven += usize::from(!is_kept && !fits);
            let wide = if is_kept || !fits {
                wide
            } else {
                let blocks = QTensor::quantize(&wide, theirs).expect("rounded");
                assert_eq!(converted.type_name(name), Some(kind.to_ascii_uppercase()), "{name}");
                blocks.dequantize(&Device::Cpu).expect("numbers")
            };
            assert_eq!(numbers(&converted, name), crate::values(&wide), "{kind}: {name}");
            rounded.insert(name.clone(), wide);
        }
        match uneven {
            0 => assert!(!run.stderr.contains("kept"), "{}", run.stderr),
            count => drop(run.tells(&["no multiple of 256", &format!("{count} tensors")])),
        }
        safetensors::save(&rounded, place.path("rounded.safetensors")).expect("saved");
        let (found, expected) = (latents(&place, "x.gguf", &[]), latents(&place, "rounded.safetensors", &[]));
        let error = relative_error(&found, &expected);
        assert!(error < 1e-4, "{kind}: {error:e}");
    }
}

#[test]
fn a_folder_becomes_the_same_file_as_its_single_file() {
    let place = Place::new();
    for (kind, name) in [("q4_0", "x.gguf"), ("bf16", "x.gguf")] {
        convert(&place, &path(FOLDER), name, kind, &["--overwrite"]).succeeds();
        convert(&place, &path(FILE), "y.gguf", kind, &["--overwrite"]).succeeds();
        let (one, other) = (open(&place.path(name)), open(&place.path("y.gguf")));
        assert_eq!(one.names(), other.names());
        for name in one.names() {
            assert_eq!(one.type_name(&name), other.type_name(&name), "{name}");
            assert!(numbers(&one, &name) == numbers(&other, &name), "{name}");
        }
    }
}

#[test]
fn floats_are_the_same_model() {
    let place = Place::new();
    let expected = latents(&place, &path(FILE), &[]);
    for (kind, output) in [("bf16", "a.safetensors"), ("f32", "a.safetensors"), ("bf16", "a.gguf"), ("f32", "a.gguf")] {
        for model in [FILE, FOLDER] {
            convert(&place, &path(model), output, kind, &["--overwrite"]).succeeds();
            let error = relative_error(&latents(&place, output, &[]), &expected);
            assert!(error < 1e-5, "{model} to {kind} in {output}: {error:e}");
        }
    }
    convert(&place, &path(FILE), "h.gguf", "f16", &[]).succeeds();
    let error = relative_error(&latents(&place, "h.gguf", &[]), &expected);
    assert!(error < 1e-3, "f16: {error:e}");
}

#[test]
fn fp8_with_scales_loses_less_than_without_and_both_are_read() {
    let place = Place::new();
    let expected = latents(&place, &path(FILE), &[]);
    let error = |kind: &str| {
        let output = format!("{kind}.safetensors");
        convert(&place, &path(FOLDER), &output, kind, &[]).succeeds();
        relative_error(&latents(&place, &output, &[]), &expected)
    };
    let (scaled, plain) = (error("fp8"), error("fp8_e4m3fn"));
    assert!(scaled > 0.0 && scaled < 0.1 && plain > 0.0 && plain < 0.1, "{scaled} {plain}");
    let original = safetensors::load(fixture(FILE), &Device::Cpu).expect("tensors");
    convert(&place, &path(FILE), "own.safetensors", "fp8", &[]).succeeds();
    let store = open(&place.path("own.safetensors"));
    for (name, tensor) in &original {
        let most = |numbers: &[f32]| numbers.iter().fold(0_f32, |most, x| most.max(x.abs()));
        let wide = crate::values(&tensor.to_dtype(DType::F32).expect("f32"));
        let found = numbers(&store, name);
        if store.type_name(name).as_deref() == Some("F8_E4M3") {
            // 3 bits of mantissa: half of an eighth, and below the smallest normal a step of the largest / 448 / 512.
            let step = most(&wide) / 448.0 / 512.0;
            let near = found.iter().zip(&wide).all(|(a, b)| (a - b).abs() <= b.abs() / 16.0 * 1.0001 + step);
            assert!(near && tensor.rank() == 2, "{name}");
            assert_eq!(store.scale_count(name), 1, "{name}");
        } else {
            assert_eq!((found, store.type_name(name).as_deref()), (wide, Some("BF16")), "{name}");
        }
    }
    let info = place.dype(&["info", "own.safetensors"]);
    assert!(info.succeeds().stdout.contains("f8e4m3: 30 tensors"), "{}", info.stdout);
    // Numbers below the type's smallest: real weights are of this size.
    let name = "single_blocks.0.linear2.weight";
    let mut small = original;
    let tensor = (small[name].to_dtype(DType::F32).expect("f32") * 1e-2).expect("small");
    let wide = crate::values(&tensor);
    small.insert(name.to_owned(), tensor);
    safetensors::save(&small, place.path("small.safetensors")).expect("saved");
    let error = |kind: &str| {
        convert(&place, "small.safetensors", "s.safetensors", kind, &["--overwrite"]).succeeds();
        relative_error(&numbers(&open(&place.path("s.safetensors")), name), &wide)
    };
    let (scaled, plain) = (error("fp8"), error("fp8_e4m3fn"));
    assert!(scaled < 0.04 && plain > 0.1, "{scaled} {plain}");
}

#[test]
fn what_is_rounded_already_is_told_of_and_the_same_blocks_are_copied() {
    let place = Place::new();
    let original = path("gguf/models/wide-K.gguf");
    let run = convert(&place, &original, "x.gguf", "q4_k", &[]);
    run.succeeds().tells(&["Q2_K", "Q6_K", "a second time"]);
    let (before, after) = (open(&fixture("gguf/models/wide-K.gguf")), open(&place.path("x.gguf")));
    let name = "double_blocks.0.img_attn.qkv.weight";
    let blocks = |source: &dyn TensorSource| {
        let bytes = source.load_blocks(name, 0..768).expect("blocks");
        bytes.flatten_all().and_then(|bytes| bytes.to_vec1::<u8>()).expect("bytes")
    };
    assert!(blocks(&before) == blocks(&after), "copied");
    let run = convert(&place, "x.gguf", "y.gguf", "bf16", &[]);
    run.succeeds().tells(&["does not come back"]);
    assert!(!convert(&place, &path(FILE), "z.gguf", "q8_0", &[]).succeeds().stderr.contains("already"));
    let info = place.dype(&["info", "z.gguf"]);
    for words in ["FLUX.1", "inside     transformer", "Q8_0: "] {
        assert!(info.succeeds().stdout.contains(words), "{}", info.stdout);
    }
}

#[test]
fn a_text_encoder_is_converted_by_the_name_of_its_part_or_from_its_own_file() {
    let place = Place::new();
    convert(&place, &path(FOLDER), "t5.gguf", "q8_0", &["--part", "text_encoder_2"]).succeeds();
    convert(&place, &path("tiny-flux/text_encoder_2/model.safetensors"), "own.gguf", "q8_0", &[]).succeeds();
    convert(&place, &path(FOLDER), "t5.safetensors", "fp8", &["--part", "text_encoder_2"]).succeeds();
    convert(&place, &path(FOLDER), "clip.safetensors", "f16", &["--part", "text_encoder"]).succeeds();
    let (one, other) = (open(&place.path("t5.gguf")), open(&place.path("own.gguf")));
    assert_eq!((one.made_for(), one.names()), (Some("t5encoder"), other.names()));
    assert_eq!(one.type_name("enc.blk.0.attn_rel_b.weight").as_deref(), Some("F32"));
    std::fs::copy(fixture("tiny-flux/text_encoder/config.json"), place.path("config.json")).expect("copied");
    let plain = latents(&place, &path(FILE), &[]);
    for part in ["text_encoder_2=t5.gguf", "text_encoder_2=t5.safetensors", "text_encoder=clip.safetensors"] {
        let (name, file) = part.split_once('=').expect("a part");
        let model = path(FOLDER);
        let args = ["--model", &model, "--part", &format!("{name}={file}"), "--dtype", "f32", "--overwrite"];
        let out = ["-o", "x.png", "--save-latents", "l.safetensors"];
        place.small(&[&args[..], &out].concat()).succeeds();
        let found = dype::testing::output::load_latents(&place.path("l.safetensors"), 64).expect("latents");
        let error = relative_error(&crate::values(&found), &plain);
        assert!(error < 0.05, "{part}: {error:e}");
    }
}

/// What was saved as f16 must have been within its range.
#[test]
fn numbers_beyond_a_type_are_told_of_with_their_tensor() {
    let place = Place::new();
    let mut tensors = safetensors::load(fixture(FILE), &Device::Cpu).expect("tensors");
    let name = "single_blocks.0.linear2.weight";
    let shape = tensors[name].dims().to_vec();
    let count = shape.iter().product();
    tensors.insert(name.to_owned(), tensor(vec![1e5; count], &shape));
    safetensors::save(&tensors, place.path("big.safetensors")).expect("saved");
    convert(&place, "big.safetensors", "x.safetensors", "f16", &[]).fails(1, &[name, "100000", "F16", "bf16"]);
    assert_eq!(place.names(), ["big.safetensors"], "nothing is left of it");
    convert(&place, "big.safetensors", "x.safetensors", "bf16", &[]).succeeds();
}
