//! The flags that say which model, where and how it is computed.

use std::fs;

use dype::testing::nn::{kernels::cpu::pairs, matrix_unit};

use crate::support::{
    fixture,
    program::{Place, rgb8},
    tiny_flux,
};

fn of(path: &str) -> String {
    fixture(path).display().to_string()
}

#[test]
fn each_part_can_come_from_elsewhere() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    let parts = [
        ("vae", "--vae", of("tiny-bfl/ae.safetensors")),
        ("vae", "--vae", of("tiny-flux/vae")),
        ("text_encoder", "--text-encoder", of("tiny-flux/text_encoder")),
        ("text_encoder_2", "--text-encoder-2", of("tiny-flux/text_encoder_2/model.safetensors")),
        ("tokenizer", "--tokenizer", of("tiny-flux/tokenizer")),
        ("tokenizer_2", "--tokenizer-2", of("tiny-flux/tokenizer_2/tokenizer.json")),
    ];
    for (part, flag, path) in parts {
        let model = tiny_flux();
        fs::remove_dir_all(model.path().join(part)).expect("removed");
        let model = model.path().display().to_string();
        place.small(&["--model", &model]).fails(1, &[part, flag]);
        assert!(place.pixels(&["--model", &model, flag, &path]) == usual, "{flag}");
    }
}

#[test]
fn a_single_file_finds_the_autoencoder_beside_it() {
    let place = Place::new();
    let (transformer, companion) = (of("tiny-bfl/flux1-tiny.safetensors"), of("tiny-flux"));
    let text = ["--text-encoder", "--text-encoder-2", "--tokenizer", "--tokenizer-2"];
    let mut args = vec!["--model", &transformer];
    args.extend(text.iter().flat_map(|flag| [*flag, companion.as_str()]));
    assert!(place.pixels(&args) == place.pixels(&[]), "the same weights under other names");
}

/// A folder as ComfyUI's users have it: files of these names, each from a fixture.
fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, fixture_path) in files {
        fs::copy(fixture(fixture_path), folder.path().join(name)).expect("copied");
    }
    folder
}

const MODEL: &str = "tiny-bfl/flux1-tiny.safetensors";
const VAE: &str = "tiny-bfl/ae.safetensors";
const CLIP: &str = "tiny-flux/text_encoder/model.safetensors";
const T5: &str = "tiny-flux/text_encoder_2/model.safetensors";
/// The shapes of a CLIP this small do not tell its heads.
const CLIP_CONFIG: (&str, &str) = ("config.json", "tiny-flux/text_encoder/config.json");

/// The flags of both tokenizers.
fn tokenizers() -> [String; 4] {
    let [clip, t5] = [of("tiny-flux/tokenizer"), of("tiny-flux/tokenizer_2")];
    ["--tokenizer".into(), clip, "--tokenizer-2".into(), t5]
}

#[test]
fn parts_beside_a_single_file_are_found_by_their_names() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    let names = [
        ["ae.safetensors", "clip_l.safetensors", "t5xxl.safetensors"],
        ["ae.sft", "CLIP_L.safetensors", "t5xxl_fp16.safetensors"],
        ["AE.safetensors", "clip_l.sft", "t5xxl_fp8_e4m3fn_scaled.safetensors"],
    ];
    for [vae, clip, t5] in names {
        let folder = folder_of(&[("flux.safetensors", MODEL), (vae, VAE), (clip, CLIP), (t5, T5), CLIP_CONFIG]);
        let model = folder.path().join("flux.safetensors").display().to_string();
        let tokenizers = tokenizers();
        let args: Vec<&str> = ["--model", &model].into_iter().chain(tokenizers.iter().map(String::as_str)).collect();
        assert!(place.pixels(&args) == usual, "{vae} {clip} {t5}");
        // What is there of nothing is named, with where it was looked for.
        fs::remove_file(folder.path().join(t5)).expect("removed");
        place.small(&args).fails(1, &["lacks text_encoder_2", "t5xxl*.safetensors", "--text-encoder-2"]);
        fs::copy(fixture(T5), folder.path().join("t5xxl_q.safetensors")).expect("copied");
        fs::copy(fixture(T5), folder.path().join("t5xxl_z.safetensors")).expect("copied");
        let run = place.small(&[&args[..], &["--dry-run"]].concat());
        run.succeeds().tells(&["t5xxl_q.safetensors (bf16), the least rounded of 2 that fit", "--text-encoder-2"]);
        fs::copy(fixture(T5), folder.path().join("t5xxl_fp16.safetensors")).expect("copied");
        let run = place.small(&[&args[..], &["--dry-run"]].concat());
        run.succeeds().tells(&["t5xxl_fp16.safetensors (bf16), the least rounded of 3 that fit"]);
    }
}

#[test]
fn a_folder_of_files_holds_a_part() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    let folders = [
        folder_of(&[("clip_l.safetensors", CLIP), ("t5xxl_fp16.safetensors", T5), CLIP_CONFIG]),
        // By what is in them, where the names say nothing.
        folder_of(&[("a.safetensors", T5), ("b.safetensors", CLIP), ("notes.safetensors", "README.md"), CLIP_CONFIG]),
        folder_of(&[("better-clip.safetensors", CLIP), ("the_t5.sft", T5), ("vae.safetensors", VAE), CLIP_CONFIG]),
    ];
    for folder in folders {
        let path = folder.path().display().to_string();
        assert!(place.pixels(&["--text-encoder", &path, "--text-encoder-2", &path]) == usual, "{:?}", folder.path());
    }
    let two = folder_of(&[("a.safetensors", T5), ("b.safetensors", T5)]);
    let path = two.path().display().to_string();
    place.small(&["--text-encoder-2", &path]).fails(1, &["several files", "a.safetensors, b.safetensors"]);
    let none = folder_of(&[("a.txt", "README.md")]);
    let path = none.path().display().to_string();
    place
        .small(&["--text-encoder", &path])
        .fails(1, &["is a folder without config.json", "the .safetensors file itself"]);
}

#[test]
fn a_config_beside_a_file_of_any_name_is_its_own_where_it_fits() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    let folder = folder_of(&[("my-clip.safetensors", CLIP)]);
    let path = folder.path().join("my-clip.safetensors").display().to_string();
    let single = folder_of(&[("flux.safetensors", MODEL), ("ae.safetensors", VAE), ("t5xxl.safetensors", T5)]);
    let (model, tokenizers) = (single.path().join("flux.safetensors").display().to_string(), tokenizers());
    let mut args = vec!["--model", &model, "--text-encoder", &path];
    args.extend(tokenizers.iter().map(String::as_str));
    place.small(&args).fails(1, &["heads", "cannot be told", "put its config.json beside it"]);
    let config = folder.path().join("config.json");
    fs::copy(fixture("tiny-flux/text_encoder/config.json"), &config).expect("copied");
    assert!(place.pixels(&args) == usual);
    // Of another model: what is wrong is said of this config.
    let text = fs::read_to_string(&config).expect("a config");
    fs::write(&config, text.replace("865", "866")).expect("written");
    place.small(&args).fails(1, &["[865, 32]", "expected [866, 32]"]);
    // Of another class, or none: it is of something else, and in a folder the config of the part that the file stands in for counts.
    for other in ["tiny-flux/text_encoder_2/config.json", "README.md"] {
        fs::copy(fixture(other), &config).expect("copied");
        place.small(&args).fails(1, &["put its config.json beside it"]);
        assert!(place.pixels(&["--text-encoder", &path]) == usual, "{other}");
    }
    // Its values are used, not those the shapes suggest.
    let t5 = folder_of(&[("t5.safetensors", T5)]);
    let path = t5.path().join("t5.safetensors").display().to_string();
    assert!(place.pixels(&["--text-encoder-2", &path]) == usual);
    let text = fs::read_to_string(fixture("tiny-flux/text_encoder_2/config.json")).expect("a config");
    assert!(text.contains("gated-gelu"), "{text}");
    fs::write(t5.path().join("config.json"), text.replace("gated-gelu", "relu")).expect("written");
    place.small(&["--text-encoder-2", &path]).fails(1, &["config.json", "feed_forward_proj"]);
}

/// tiny-flux whose weights are a variant: whole files, and shards named as transformers and as diffusers name them.
fn only_in_variant(variant: &str) -> tempfile::TempDir {
    let model = tiny_flux();
    let rename = |folder: &str, shard: &dyn Fn(&str) -> String| {
        let folder = model.path().join(folder);
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let name = entry.file_name().into_string().expect("a plain name");
            if let Some(stem) = name.strip_suffix(".safetensors") {
                fs::rename(entry.path(), folder.join(shard(stem))).expect("renamed");
            } else if let Some(stem) = name.strip_suffix(".index.json") {
                let index: serde_json::Value =
                    serde_json::from_slice(&fs::read(entry.path()).expect("an index")).expect("JSON");
                let map = index["weight_map"].as_object().expect("a map").iter();
                let map = map.map(|(tensor, file)| {
                    let stem = file.as_str().and_then(|file| file.strip_suffix(".safetensors")).expect("a shard");
                    (tensor.clone(), serde_json::Value::from(shard(stem)))
                });
                let index = serde_json::json!({ "weight_map": serde_json::Map::from_iter(map) });
                fs::write(folder.join(format!("{stem}.index.{variant}.json")), index.to_string()).expect("written");
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    };
    let behind = |stem: &str| format!("{stem}.{variant}.safetensors");
    let before_the_numbers = |stem: &str| match stem.split_once('-') {
        Some((stem, numbers)) => format!("{stem}.{variant}-{numbers}.safetensors"),
        None => behind(stem),
    };
    rename("text_encoder", &behind);
    rename("text_encoder_2", &behind);
    rename("transformer", &behind);
    rename("vae", &before_the_numbers);
    model
}

#[test]
fn weights_that_are_there_in_a_variant_only_are_used_and_it_is_said() {
    let (place, model) = (Place::new(), only_in_variant("fp16"));
    let path = model.path().display().to_string();
    let run = place.small(&["--model", &path, "--json"]);
    run.succeeds().tells(&["note: weights are there in a variant only:", "fp16 of transformer", "fp16 of vae"]);
    let said: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(said["model"]["variants"]["text_encoder_2"], "fp16", "{said}");
    assert!(place.pixels(&["--model", &path]) == place.pixels(&[]), "the same weights under other names");
    let asked = place.small(&["--model", &path, "--variant", "fp16"]);
    assert!(!asked.succeeds().stderr.contains("variant"), "{}", asked.stderr);
    place.small(&["--model", &path, "--variant", "bf16"]).fails(1, &["no weights in the variant bf16", "--variant"]);
    place.small(&["--model", &path, "--variant", "../x"]).fails(2, &["a word such as fp16"]);
}

#[test]
fn of_plain_weights_and_a_variant_the_one_that_was_asked_for_is_used() {
    let (place, model) = (Place::new(), tiny_flux());
    let file = |name: &str| model.path().join("text_encoder").join(name);
    fs::copy(file("model.safetensors"), file("model.fp16.safetensors")).expect("copied");
    fs::write(file("model.safetensors"), "no weights").expect("written");
    let path = model.path().display().to_string();
    place.small(&["--model", &path]).fails(1, &["text_encoder/model.safetensors"]);
    let run = place.small(&["--model", &path, "--variant", "fp16", "-o", "x.png"]);
    run.succeeds().tells(&["note: not in the variant fp16", "transformer", "vae"]);
    assert!(!run.stderr.contains("text_encoder,"), "{}", run.stderr);
    let again = place.dype(&["replay", "x.png", "-o", "y.png"]);
    again.succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")));
    // Without plain weights nobody can know which of two variants is meant.
    fs::remove_file(file("model.safetensors")).expect("removed");
    fs::copy(file("model.fp16.safetensors"), file("model.bf16.safetensors")).expect("copied");
    place.small(&["--model", &path]).fails(1, &["several variants: bf16, fp16", "--variant"]);
}

#[test]
fn a_model_without_guidance_ignores_it_and_says_so() {
    let model = tiny_flux();
    let config = model.path().join("transformer/config.json");
    let text = fs::read_to_string(&config).expect("config");
    fs::write(&config, text.replace(r#""guidance_embeds": true"#, r#""guidance_embeds": false"#)).expect("written");
    let model = model.path().display().to_string();
    let place = Place::new();
    let run = place.small(&["--model", &model, "--guidance", "3"]);
    run.succeeds().tells(&["note: this model takes no guidance: --guidance is ignored"]);
    assert!(rgb8(&place.path(run.stdout.trim_end())) == place.pixels(&["--model", &model, "--guidance", "7"]));
    let run = place.small(&["--model", &model]);
    assert!(!run.succeeds().stderr.contains("--guidance"), "{}", run.stderr);
}

#[test]
fn weights_and_number_types_are_as_asked() {
    let place = Place::new();
    let usual = place.pixels(&["--dtype", "f32"]);
    assert!(place.pixels(&[]) == usual, "f32 is the CPU's default");
    assert!(place.pixels(&["--weights", "stream"]) == usual);
    place.small(&["--weights", "stream", "-v"]).succeeds().tells(&["choices    weights stream"]);
    for dtype in ["bf16", "f16"] {
        let half = place.pixels(&["--dtype", dtype]);
        let mean = half.iter().zip(&usual).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / usual.len() as f64;
        // bf16 on a CPU means products of pairs, where the processor multiplies them faster; where it has none, nothing is rounded.
        let (rounds, may_round) = (dtype == "f16", pairs::available() || matrix_unit().is_some());
        assert!((mean > 0.0 || !rounds) && (mean == 0.0 || rounds || may_round) && mean < 4.0, "{dtype}: mean {mean}");
    }
}

#[test]
fn devices() {
    let place = Place::new();
    place.small(&["--device", "auto"]).succeeds();
    place.small(&["--device", "tpu"]).fails(2, &["tpu", "cpu, cuda, cuda:N or metal"]);
    place.small(&["--device", "cuda:x"]).fails(2, &["cuda:0"]);
    for (device, feature) in
        [("cuda", cfg!(feature = "cuda")), ("cuda:1", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))]
    {
        if !feature {
            let name = device.split(':').next().expect("a name");
            let build = format!("--features {name}");
            place.small(&["--device", device]).fails(2, &["built without", &build, "--device cpu"]);
        }
    }
}
