//! `dype convert` of models of the Hub, played by a local server: the file is that of the same model on this disk, to the byte.

use std::fs;

use crate::{
    FILE, FOLDER, convert, fixture,
    hub_server::{HubServer, HubServerBuilder, REPO},
    path,
    support::program::{Place, Run},
};

fn repository() -> HubServerBuilder {
    HubServerBuilder::default().folder(&fixture(FOLDER))
}

fn lora(name: &str) -> Vec<u8> {
    fs::read(fixture(&format!("lora/files/{name}.safetensors"))).expect("a file")
}

/// `dype convert` of a model of this server, with a cache in the place.
fn of_hub(place: &Place, server: &HubServer, model: &str, output: &str, kind: &str, more: &[&str]) -> Run {
    let args = [&["convert", model, "-o", output, "--type", kind][..], more].concat();
    let mut command = place.command(&args);
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf")).env_remove("HF_HUB_OFFLINE");
    command.output().expect("the program starts").into()
}

/// The bytes of a file in the place, which is removed.
fn taken(place: &Place, name: &str) -> Vec<u8> {
    let bytes = fs::read(place.path(name)).expect("a file");
    fs::remove_file(place.path(name)).expect("removed");
    bytes
}

#[test]
fn a_model_of_the_hub_becomes_the_file_of_its_folder() {
    for (more, output, kind) in [
        (&[][..], "x.gguf", "q8_0"),
        (&["--part", "transformer"], "x.safetensors", "fp8"),
        (&["--part", "text_encoder"], "x.safetensors", "bf16"),
        (&["--part", "text_encoder_2"], "x.gguf", "q4_0"),
    ] {
        let (place, server) = (Place::new(), repository().start());
        let run = |more: &[&str]| of_hub(&place, &server, REPO, output, kind, more);
        assert_eq!(run(more).succeeds().stdout, format!("{output}\n"));
        let of_the_hub = taken(&place, output);
        convert(&place, &path(FOLDER), output, kind, more).succeeds();
        assert!(of_the_hub == taken(&place, output), "{more:?} {output}");
        let part = more.last().unwrap_or(&"transformer");
        let asked = server.take_requests();
        let of_weights = asked.iter().filter(|request| request.contains(".safetensors") && request.contains("resolve"));
        assert!(of_weights.clone().all(|request| request.contains(&format!("/{part}/"))), "{part} alone: {asked:?}");
        assert!(of_weights.count() > 0);
        // Once more from the cache.
        run(&[more, &["--offline"]].concat()).succeeds();
        assert!(of_the_hub == taken(&place, output), "offline: {more:?} {output}");
        assert_eq!(server.take_requests(), [""; 0]);
    }
}

#[test]
fn one_file_of_a_repository_becomes_what_it_becomes_on_this_disk() {
    let place = Place::new();
    let server =
        HubServerBuilder::default().large("a/flux1-tiny.safetensors", fs::read(fixture(FILE)).expect("a file"));
    let server = server.small("README.md", "x").start();
    of_hub(&place, &server, &format!("{REPO}:a/flux1-tiny.safetensors"), "x.gguf", "q5_0", &[]).succeeds();
    let of_the_hub = taken(&place, "x.gguf");
    convert(&place, &path(FILE), "x.gguf", "q5_0", &[]).succeeds();
    assert!(of_the_hub == taken(&place, "x.gguf"));
}

#[test]
fn a_lora_of_the_hub_is_added_as_one_of_this_disk() {
    let place = Place::new();
    let server = repository().repo("tiny-lab/loras").large("a/one.safetensors", lora("peft"));
    let server = server.large("two.safetensors", lora("kohya")).start();
    let named = "tiny-lab/loras:a/one.safetensors:0.5";
    let run = |more: &[&str]| of_hub(&place, &server, REPO, "x.gguf", "q8_0", &[&["--lora", named], more].concat());
    run(&[]).succeeds();
    let of_the_hub = taken(&place, "x.gguf");
    fs::write(place.path("one.safetensors"), lora("peft")).expect("written");
    convert(&place, &path(FOLDER), "x.gguf", "q8_0", &["--lora", "one.safetensors:0.5"]).succeeds();
    assert!(of_the_hub == taken(&place, "x.gguf"));
    server.take_requests();
    run(&["--offline"]).succeeds();
    assert!(of_the_hub == taken(&place, "x.gguf"));
    assert_eq!(server.take_requests(), [""; 0]);
}

#[test]
fn a_gated_model_says_what_to_do() {
    let (place, server) = (Place::new(), repository().gated("hf_right").start());
    let words = ["HTTP 401", REPO, "accept the licence at https://huggingface.co/", "HF_TOKEN"];
    of_hub(&place, &server, REPO, "x.gguf", "q8_0", &[]).fails(1, &words);
    assert_eq!(place.names(), [""; 0]);
    let mut command = place.command(&["convert", REPO, "-o", "x.gguf", "--type", "q8_0"]);
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf")).env_remove("HF_HUB_OFFLINE");
    let run: Run = command.env("HF_TOKEN", "hf_right").output().expect("the program starts").into();
    run.succeeds();
}

/// It is refused with these words, and nothing was fetched or written.
#[track_caller]
fn refused(server: &HubServer, output: &str, code: i32, more: &[&str], words: &[&str]) {
    let place = Place::new();
    let run = of_hub(&place, server, REPO, output, "q8_0", more);
    assert!(!run.fails(code, words).stderr.contains("download"), "{}", run.stderr);
    assert_eq!(place.names(), [""; 0], "{words:?}");
}

#[test]
fn what_cannot_be_done_is_refused_before_gigabytes_are_fetched() {
    let shard = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors";
    let words = ["names 3 shards, 1 missing", "model-00002-of-00003", "repository is incomplete"];
    refused(&repository().without(shard).start(), "x.gguf", 1, &[], &words);
    let lacking = repository().without("text_encoder_2/model.safetensors").start();
    refused(&lacking, "x.gguf", 1, &["--part", "text_encoder_2"], &["text_encoder_2 holds no weights", "incomplete"]);
    let whole = repository().repo("tiny-lab/loras").large("bad.safetensors", lora("bad-in")).start();
    refused(&whole, "x.gguf", 2, &["--part", "text_encoder"], &["no program reads", ".safetensors"]);
    refused(&whole, "x.gguf", 2, &["--part", "vae"], &["the vae of a FLUX.1 model is not converted"]);
    refused(&whole, "x.gguf", 1, &["--lora", "tiny-lab/loras"], &["[4, 144]"]);
    refused(
        &whole,
        "x.gguf",
        1,
        &["--lora", "tiny-lab/loras:good.safetensors"],
        &["no good.safetensors", "bad.safetensors"],
    );
    refused(&whole, "x.safetensors", 2, &[], &["no numbers of type q8_0", "x.gguf"]);
    refused(&whole, "x.gguf", 1, &["--offline"], &["--offline", REPO]);
}
