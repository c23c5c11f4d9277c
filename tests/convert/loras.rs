//! LoRA files merged before numbers are rounded.

use candle_core::{
    DType, Device,
    quantized::{GgmlDType, QTensor},
};
use dype::testing::weights::TensorSource;

use crate::{
    FILE, FOLDER, convert, latents, numbers, open, path,
    support::{program::Place, relative_error},
    tensor, values,
};

fn lora(name: &str) -> String {
    path(&format!("lora/files/{name}.safetensors"))
}

#[test]
fn every_kind_of_change_is_merged_as_it_is_computed_beside() {
    let place = Place::new();
    let plain = latents(&place, &path(FILE), &[]);
    for loras in [
        &["peft:0.6", "kohya:-0.5"][..],
        &["kohya-text"],
        &["lokr-simpletuner:0.5"],
        &["loha-kohya"],
        &["dora-peft:0.7", "dora-kohya"],
        &["diff:0.8"],
    ] {
        let mut flags = Vec::new();
        for (name, strength) in loras.iter().map(|text| text.split_once(':').unwrap_or((text, "1"))) {
            flags.extend(["--lora".to_owned(), format!("{}:{strength}", lora(name))]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let beside = latents(&place, &path(FILE), &flags);
        assert!(relative_error(&beside, &plain) > 1e-3, "{loras:?}: it acts");
        let parts = text_encoders(&place, &flags);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        for (model, output) in [(FILE, "x.safetensors"), (FOLDER, "x.gguf")] {
            convert(&place, &path(model), output, "f32", &[&flags[..], &["--overwrite"]].concat()).succeeds();
            let error = relative_error(&latents(&place, output, &parts), &beside);
            assert!(error < 2e-5, "{loras:?} of {model} in {output}: {error:e}");
        }
    }
}

/// The text encoders with what files change of them, as parts.
fn text_encoders(place: &Place, flags: &[&str]) -> Vec<String> {
    let mut parts = Vec::new();
    std::fs::copy(crate::fixture("tiny-flux/text_encoder/config.json"), place.path("config.json")).expect("copied");
    for part in ["text_encoder", "text_encoder_2"] {
        let output = format!("{part}.safetensors");
        let convert = |flags: &[&str]| {
            convert(place, &path(FOLDER), &output, "f32", &[&["--part", part, "--overwrite"], flags].concat())
        };
        let is_changed = |flag: &&[&str]| {
            let run = convert(flag);
            run.code == Some(0) || !run.stderr.contains(&format!("changes nothing of the {part}"))
        };
        let own: Vec<&[&str]> = flags.chunks(2).filter(is_changed).collect();
        if !own.is_empty() {
            convert(&own.concat()).succeeds();
            parts.extend(["--part".to_owned(), format!("{part}={output}")]);
        }
    }
    parts
}

/// The sum is made in f32 and rounded once.
#[test]
fn the_sum_is_rounded_and_not_its_parts() {
    let place = Place::new();
    let flags = ["--lora", &lora("kohya"), "--overwrite"];
    convert(&place, &path(FOLDER), "wide.safetensors", "f32", &flags).succeeds();
    convert(&place, &path(FOLDER), "x.gguf", "q8_0", &flags).succeeds();
    convert(&place, "wide.safetensors", "w.gguf", "q8_0", &[]).succeeds();
    let (merged, of_sum) = (open(&place.path("x.gguf")), open(&place.path("w.gguf")));
    let mut blocks = 0;
    for name in merged.names().iter().filter(|name| merged.blocks(name).is_some()) {
        assert!(numbers(&merged, name) == numbers(&of_sum, name), "{name}");
        blocks += 1;
    }
    assert!(blocks > 20);
    // A fused tensor, from the sum as diffusers' names hold it.
    let wide = open(&place.path("wide.safetensors"));
    let parts =
        ["to_q", "to_k", "to_v"].map(|part| numbers(&wide, &format!("transformer_blocks.0.attn.{part}.weight")));
    let shape = merged.shape("double_blocks.0.img_attn.qkv.weight").expect("there");
    let sum = tensor(parts.concat(), &shape).to_dtype(DType::F32).expect("f32");
    let rounded = QTensor::quantize(&sum, GgmlDType::Q8_0).and_then(|t| t.dequantize(&Device::Cpu)).expect("rounded");
    assert!(numbers(&merged, "double_blocks.0.img_attn.qkv.weight") == values(&rounded));
}

#[test]
fn files_that_do_not_fit_are_refused_before_anything_is_written() {
    let place = Place::new();
    for (name, words) in
        [("other-family", &["made for another model"][..]), ("bad-rank", &["ranks"]), ("no-lora", &["no LoRA"])]
    {
        convert(&place, &path(FILE), "x.gguf", "q8_0", &["--lora", &lora(name)]).fails(1, words);
    }
    convert(&place, &path(FILE), "x.gguf", "q8_0", &["--lora", "nowhere.safetensors"]).fails(2, &["no such file"]);
    assert!(place.names().is_empty());
    let run = convert(&place, &path(FILE), "x.gguf", "q8_0", &["--lora", &lora("extra-keys")]);
    run.succeeds().tells(&["7 of its 22 tensors"]);
    let run = convert(&place, &path(FOLDER), "t.gguf", "q8_0", &["--part", "text_encoder_2", "--lora", &lora("xlabs")]);
    run.fails(1, &["changes nothing of the text_encoder_2", "--part"]);
}
