//! A model of the Hub, played by a local server.

use std::{fs, path::Path, process::Command};

use crate::{
    hub_server::{HubServer, HubServerBuilder, REPO},
    support::{
        fixture,
        program::{Place, Run, rgb8, small},
        sentencepiece,
    },
};

/// A server that holds tiny-flux.
fn repository() -> HubServerBuilder {
    HubServerBuilder::default().folder(&fixture("tiny-flux"))
}

/// The program with a model of this server and a cache in the place.
fn command(place: &Place, server: &HubServer, args: &[&str]) -> Command {
    let mut command = place.command(&small(&[&["--model", REPO], args].concat()));
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf")).env_remove("HF_HUB_OFFLINE");
    command
}

fn run(mut command: Command) -> Run {
    command.output().expect("the program starts").into()
}

#[test]
fn a_model_is_fetched_once_and_then_works_offline() {
    let (place, server) = (Place::new(), repository().start());
    let first = run(command(&place, &server, &["-o", "x.png"]));
    first.succeeds().tells(&["download"]);
    assert_eq!(first.stdout, "x.png\n");
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]), "the picture of the same files on this disk");
    server.take_requests();
    let mut again = command(&place, &server, &["-o", "y.png"]);
    again.env("HF_HUB_OFFLINE", "1");
    let again = run(again);
    assert!(!again.succeeds().stderr.contains("download"), "{}", again.stderr);
    assert_eq!(server.take_requests(), [""; 0]);
}

#[test]
fn a_dry_run_lists_files_and_sizes_plans_the_run_and_fetches_nothing() {
    let (place, server) = (Place::new(), repository().start());
    // What is free, and the time other tests took, change from moment to moment.
    let plan = run(command(&place, &server, &["--dry-run", "--memory", "1GB"]));
    plan.only_notes();
    for words in ["to fetch", "transformer/diffusion_pytorch_model-00001-of-00003.safetensors", " free on the disk of "]
    {
        assert!(plan.stdout.contains(words), "{words}: {}", plan.stdout);
    }
    let asked = server.take_requests();
    assert!(asked[0].starts_with("GET /api/"), "the listing comes first: {asked:?}");
    assert!(asked.iter().all(|request| !request.contains("tokenizer.json")), "configs and headers: {asked:?}");
    assert_eq!(place.names(), [""; 0]);
    let here = place.small(&["--dry-run", "--memory", "1GB"]);
    let (same, _) = here.succeeds().stdout.split_once("\ntime ").expect("a table");
    assert!(plan.stdout.contains(same), "the plan of the same files on this disk: {} {}", plan.stdout, here.stdout);
    let json = run(command(&place, &server, &["--dry-run", "--json"]));
    let lines: Vec<serde_json::Value> =
        json.succeeds().stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines[0]["download"]["bytes_to_fetch"].as_u64() > Some(0) && lines[1]["plan"].is_object(), "{lines:?}");
}

/// The server's files are gone nowhere: not one was put on this disk.
#[track_caller]
fn refused_before_fetching(server: &HubServer, args: &[&str], words: &[&str]) {
    let place = Place::new();
    let refused = run(command(&place, server, &[&["-o", "x.png"], args].concat()));
    assert!(!refused.fails(1, words).stderr.contains("download"), "{}", refused.stderr);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn what_cannot_be_done_is_refused_before_gigabytes_are_fetched() {
    refused_before_fetching(&repository().start(), &["--memory", "1MB"], &["may take 1 MB", "--memory"]);
    let config = fs::read_to_string(fixture("tiny-flux/transformer/config.json")).expect("config");
    let other = config.replace("FluxTransformer2DModel", "SD3Transformer2DModel");
    let server = repository().small("transformer/config.json", other).start();
    refused_before_fetching(&server, &[], &["transformer/config.json", "SD3Transformer2DModel"]);
    let wide = config.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 8");
    assert_ne!(wide, config);
    let server = repository().small("transformer/config.json", wide).start();
    refused_before_fetching(&server, &[], &["tensor", "has shape", "expected"]);
}

#[test]
fn repositories_of_other_kinds_are_named_before_gigabytes_are_fetched() {
    let pipelines = ["FluxFillPipeline", "FluxControlPipeline", "StableDiffusion3Pipeline", "QwenImageEditPipeline"];
    for pipeline in pipelines {
        let index = fs::read_to_string(fixture("tiny-flux/model_index.json")).expect("an index");
        let server = repository().small("model_index.json", index.replace("FluxPipeline", pipeline)).start();
        refused_before_fetching(&server, &[], &[pipeline, "not FLUX.1"]);
    }
    let with_key = |file: &str, key: &str, value: serde_json::Value| {
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(fixture("tiny-flux").join(file)).expect("a config")).expect("JSON");
        config[key] = value;
        repository().small(file, config.to_string()).start()
    };
    let fill = with_key("transformer/config.json", "in_channels", 384.into());
    refused_before_fetching(&fill, &[], &["FLUX.1 Fill", "text-to-image model"]);
    let four_bits = serde_json::json!({ "quant_method": "bitsandbytes", "load_in_4bit": true });
    for file in ["transformer/config.json", "text_encoder_2/config.json"] {
        let server = with_key(file, "quantization_config", four_bits.clone());
        refused_before_fetching(&server, &[], &[file, "quantized by bitsandbytes"]);
    }
}

/// Not one request asked for weights beyond their headers, and none of them is on the disk.
#[track_caller]
fn no_weights_came(place: &Place, server: &HubServer) {
    let sizes: Vec<u64> =
        walk(&place.path("hf")).iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).collect();
    assert!(sizes.iter().all(|size| *size < 500_000), "{sizes:?}");
    assert!(server.take_requests().iter().any(|request| request.contains("tokenizer_2")), "tokenizers came");
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn tokenizers_are_read_before_gigabytes_are_fetched() {
    let place = Place::new();
    let cases = [
        ("tokenizer_2/tokenizer.json", "<html>Sign in</html>", "Sign in"),
        ("tokenizer/merges.txt", "a b c", "merges.txt"),
    ];
    for (file, text, says) in cases {
        let server = repository().small(file, text).start();
        run(command(&place, &server, &["-o", "x.png"])).fails(1, &[file, says]);
        no_weights_came(&place, &server);
    }
    let server = repository().without("tokenizer_2/tokenizer.json").small("tokenizer_2/spiece.model", "x").start();
    run(command(&Place::new(), &server, &["-o", "x.png"])).fails(1, &["tokenizer_2/spiece.model"]);
}

#[test]
fn a_sentencepiece_model_alone_is_a_tokenizer() {
    let json = fs::read(fixture("tiny-flux/tokenizer_2/tokenizer.json")).expect("fixture");
    let model = sentencepiece::of_tokenizer_json(&json);
    let server = repository().without("tokenizer_2/tokenizer.json").large("tokenizer_2/spiece.model", model).start();
    let place = Place::new();
    run(command(&place, &server, &["-o", "x.png"])).succeeds();
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
}

#[test]
fn a_repository_with_weights_in_a_variant_only_is_used() {
    let clip = fs::read(fixture("tiny-flux/text_encoder/model.safetensors")).expect("weights");
    let variant = "text_encoder/model.fp16.safetensors";
    let server = repository().without("text_encoder/model.safetensors").large(variant, clip).start();
    let place = Place::new();
    run(command(&place, &server, &["-o", "x.png"])).succeeds().tells(&["fp16 of text_encoder"]);
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
    let asked = run(command(&place, &server, &["-o", "y.png", "--variant", "fp16"]));
    asked.succeeds().tells(&["not in the variant fp16", "transformer"]);
    refused_before_fetching(&server, &["--variant", "bf16"], &["no weights in the variant bf16"]);
}

#[test]
fn a_gated_model_says_what_to_do() {
    let (place, server) = (Place::new(), repository().gated("hf_right").start());
    let gated = run(command(&place, &server, &["-o", "x.png"]));
    gated.fails(1, &["HTTP 401", REPO, "accept the licence at https://huggingface.co/", "HF_TOKEN"]);
    let mut command = command(&place, &server, &["-o", "x.png"]);
    command.env("HF_TOKEN", "hf_right");
    run(command).succeeds();
}

#[test]
fn a_model_that_the_hub_does_not_have() {
    let (place, server) = (Place::new(), repository().start());
    run(command(&place, &server, &["--model", "owner/other", "-o", "x.png"])).fails(1, &["owner/other"]);
}
