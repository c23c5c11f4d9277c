//! `dype info` of files of weights.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use dype::testing::base::json::read_json;
use serde_json::Value;

use crate::{
    CLIP, CLIP_CONFIG, MODEL, T5, VAE, cast, fixture, fs, put, put_tokenizers, save,
    support::{program::Place, write_hollow},
    tensors,
};

fn lines(place: &Place, args: &[&str]) -> String {
    place.dype(&[&["info"], args].concat()).succeeds().stdout.clone()
}

fn json(place: &Place, args: &[&str]) -> Value {
    serde_json::from_str(&lines(place, &[args, &["--json"]].concat())).expect("JSON")
}

#[track_caller]
fn tells(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn of_a_transformer_alone_it_tells_what_a_run_would_take_with_a_published_model_s_parts() {
    let place = Place::new();
    let list: Value = read_json(&fixture("flux1_dev_bfl_tensors.json")).expect("golden");
    let shapes: BTreeMap<String, Vec<usize>> =
        serde_json::from_value(list["flux1-dev.safetensors"].clone()).expect("names and shapes");
    write_hollow(&place.path("flux1-dev.safetensors"), shapes);
    let text = lines(&place, &["flux1-dev.safetensors"]);
    tells(
        &text,
        &["missing    flux1-dev.safetensors lacks ", "with       the other parts of black-forest-labs/FLUX.1-"],
    );
    tells(
        &text,
        &["to run     1024 x 1024 px", "74.4 TFLOP a step", "to run     4096 x 4096 px", "3908.2 TFLOP a step"],
    );
    let told = json(&place, &["flux1-dev.safetensors"]);
    let peak = |side: usize, mode: &str| told["needs"][side]["peak_bytes"][mode].as_f64().expect("bytes") / 1e9;
    assert!(peak(0, "resident") > 23.8 && peak(0, "stream") < 4.0, "{told}");
    // Nobody published a model of such widths.
    put(&place, &[("tiny.safetensors", MODEL)]);
    assert!(!lines(&place, &["tiny.safetensors"]).contains("to run"));
}

#[test]
fn of_a_transformer_it_tells_types_what_is_missing_and_what_a_run_would_take() {
    let place = Place::new();
    put(&place, &[("unet/flux.safetensors", MODEL)]);
    let lacking = lines(&place, &["unet/flux.safetensors"]);
    tells(
        &lacking,
        &["model      FLUX.1", "inside     transformer", "numbers    bf16: 92 tensors, 2.1 million parameters, 4 MB"],
    );
    tells(&lacking, &["missing    unet/flux.safetensors lacks vae", "hint       put "]);
    let told = json(&place, &["unet/flux.safetensors"]);
    assert_eq!((&told["family"], &told["parts"]), (&"FLUX.1".into(), &serde_json::json!(["transformer"])));
    assert!(told["missing"]["hint"].as_str().is_some_and(|hint| hint.contains("--model-dir")), "{told}");
    put(&place, &[("vae/ae.safetensors", VAE), ("clip/clip_l.safetensors", CLIP), ("clip/config.json", CLIP_CONFIG)]);
    put(&place, &[("clip/t5xxl.safetensors", T5)]);
    put_tokenizers(&place, ".");
    let whole = lines(&place, &["unet/flux.safetensors"]);
    tells(
        &whole,
        &[
            "with       vae ",
            "with       tokenizer_2 ",
            "to run     1024 x 1024 px",
            "to run     4096 x 4096 px",
            "TFLOP a step",
        ],
    );
    assert!(!whole.contains("missing"), "{whole}");
    let told = json(&place, &["unet/flux.safetensors"]);
    assert_eq!(told["needs"][1]["side_px"], 4096);
    let peak = |need: usize, mode: &str| told["needs"][need]["peak_bytes"][mode].as_u64().expect("bytes");
    assert!(peak(1, "resident") > peak(0, "resident") && peak(0, "stream") <= peak(0, "resident"), "{told}");
    // A run is planned in a little more than the least, and refused in less.
    let plan = |bytes: u64| {
        let args = ["--model", "unet/flux.safetensors", "--max-sequence-length", "512", "--dry-run", "--json"];
        let size = ["--width", "1024", "--height", "1024", "--weights", "resident", "--memory", &bytes.to_string()];
        place.small(&[&args[..], &size].concat())
    };
    let least = peak(0, "resident");
    plan(least + 40_000_000).succeeds();
    plan(least / 10 * 9).fails(1, &["takes at least"]);
}

#[test]
fn of_a_folder_it_tells_all_parts() {
    let place = Place::new();
    let folder = fixture("tiny-flux").display().to_string();
    tells(
        &lines(&place, &[&folder]),
        &["inside     transformer, vae, text_encoder, text_encoder_2, tokenizer", "to run"],
    );
    let empty = place.path("empty");
    fs::create_dir(&empty).expect("a folder");
    place.dype(&["info", "empty"]).fails(1, &["holds no model in diffusers layout"]);
}

#[test]
fn of_other_files_it_tells_what_they_are() {
    let place = Place::new();
    put(&place, &[("t5.safetensors", T5), ("ae.safetensors", VAE)]);
    tells(&lines(&place, &["t5.safetensors"]), &["none of a known family", "inside     text_encoder_2"]);
    tells(&lines(&place, &["ae.safetensors"]), &["inside     vae"]);
    let mut mixed = tensors(&fixture(MODEL));
    let names: Vec<String> = mixed.keys().filter(|name| name.contains("mlp")).cloned().collect();
    let narrow: HashMap<_, _> = names.iter().map(|name| (name.clone(), mixed[name].clone())).collect();
    mixed.extend(cast(&narrow, DType::F8E4M3));
    save(&place, "mixed.safetensors", &mixed);
    tells(&lines(&place, &["mixed.safetensors"]), &["numbers    bf16: ", "numbers    f8e4m3: 16 tensors"]);
    let lora = Tensor::zeros((4, 4), DType::F32, &Device::Cpu).expect("zeros");
    save(&place, "lora.safetensors", &HashMap::from([("a.lora_A.weight".to_owned(), lora.clone())]));
    // Half a pair changes nothing.
    tells(&lines(&place, &["lora.safetensors"]), &["remark     it looks like a LoRA"]);
    let of_golden =
        |name: &str| lines(&place, &[&fixture(&format!("lora/files/{name}.safetensors")).display().to_string()]);
    tells(&of_golden("kohya"), &["changes    LoRA of ", "rank ", "names of kohya's sd-scripts", "give it with --lora"]);
    tells(&of_golden("peft"), &["names of diffusers"]);
    tells(&of_golden("xlabs"), &["names of XLabs"]);
    tells(&of_golden("loha-kohya"), &["changes    LoHa of "]);
    tells(&of_golden("dora-peft"), &["changes    DoRA of "]);
    let told = json(&place, &[&fixture("lora/files/kohya.safetensors").display().to_string()]);
    assert!(told["lora"]["layers"]["LoRA"].as_u64() > Some(0) && told["lora"]["ranks"].is_array(), "{told}");
    save(&place, "odd.safetensors", &HashMap::from([("a\u{1b}[31mb".to_owned(), lora)]));
    let odd = lines(&place, &["odd.safetensors"]);
    assert!(!odd.contains('\u{1b}'), "{odd:?}");
    fs::write(place.path("bad.safetensors"), "no weights").expect("written");
    place.dype(&["info", "bad.safetensors"]).fails(1, &["bad.safetensors"]);
}
