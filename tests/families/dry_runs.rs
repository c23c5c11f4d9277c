//! Runs that are planned without a weight: by configs in a folder, by configs of the Hub, and by those inside the program.

use serde_json::Value;

use super::{
    command,
    hub_server::{HubServer, HubServerBuilder},
    published, put, run,
    support::program::{Place, Run},
};

const KLEIN: &str = "black-forest-labs/FLUX.2-klein-4B";
const KREA: &str = "black-forest-labs/FLUX.1-Krea-dev";
const ARGS: [&str; 10] = ["--dry-run", "--json", "-p", "a cat", "--device", "cpu", "--height", "512", "--width", "512"];

/// The last line of a dry run, the plan, less what follows the moment.
fn plan(run: &Run) -> Value {
    let line = run.succeeds().stdout.lines().last().expect("a plan");
    let said: Value = serde_json::from_str(line).expect("JSON");
    said["plan"].clone()
}

fn args<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--model", model, "--memory", "80GB"], &ARGS[..], more].concat()
}

#[test]
fn a_published_model_is_planned_offline_and_it_is_said() {
    let place = Place::new();
    let dry = run(command(&place, &args(KLEIN, &[])));
    dry.succeeds().tells(&["note: --offline or HF_HUB_OFFLINE is set", "planned by the configs of", KLEIN]);
    let first: Value = serde_json::from_str(dry.stdout.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["download"]["bytes_to_fetch"].as_u64(), Some(2 * (3_875_544_576 + 4_022_468_096 + 84_046_372)));
    assert_eq!((plan(&dry)["image_tokens"].as_u64(), plan(&dry)["weights"].as_str()), (Some(1024), Some("resident")));
    // A folder with the configs and nothing else is as good.
    let (_, known) = published(KLEIN);
    for (path, text) in known.configs {
        put(&place.path("configs"), path, text);
    }
    let folder = run(command(&place, &args("configs", &[])));
    folder.succeeds().tells(&["configs holds configs and not all weights", "bf16"]);
    assert_eq!(plan(&folder), plan(&dry));
    assert_eq!(place.names(), ["configs"], "nothing was written");
    // To make a picture of it weights are needed.
    let made = run(command(&place, &["--model", "configs", "-p", "a cat", "--height", "512", "--width", "512"]));
    made.fails(1, &["configs"]);
}

#[test]
fn only_what_is_known_and_asked_for_as_it_is_is_planned_so() {
    let place = Place::new();
    for model in ["owner/other", &format!("{KLEIN}@abcdef1"), &format!("{KLEIN}:flux.safetensors")] {
        run(command(&place, &args(model, &[]))).fails(1, &["there is no copy of"]);
    }
    let made = run(command(&place, &["--model", KLEIN, "-p", "a cat", "--height", "512", "--width", "512"]));
    made.fails(1, &["there is no copy of", KLEIN]);
}

#[test]
fn a_published_model_is_inspected_offline_too() {
    let place = Place::new();
    let inspect = |model: &str| run(command(&place, &["inspect", "--model", model, "--steps", "50"]));
    for model in [KLEIN, KREA] {
        let known = inspect(model);
        known.succeeds().tells(&["note: ", "these are the configs of", model, "inside this program"]);
        for (path, text) in published(model).1.configs {
            put(&place.path(model), path, text);
        }
        let folder = format!("./{model}");
        assert_eq!(known.stdout, inspect(&folder).succeeds().stdout, "{model}");
    }
    inspect("owner/other").fails(1, &["there is no copy of"]);
    // Tokenizers are in no program.
    run(command(&place, &["inspect", "--model", "Qwen/Qwen-Image", "--tokens", "--prompt", "a cat"]))
        .fails(1, &["there is no copy of"]);
}

/// A server with the configs of a repository.
fn configs(repo: &str) -> HubServerBuilder {
    let (_, known) = published(repo);
    let server = HubServerBuilder::default().repo(repo);
    known.configs.iter().fold(server, |server, (path, text)| server.small(path, *text))
}

fn online(place: &Place, server: &HubServer, args: &[&str]) -> Run {
    let mut command = command(place, args);
    command.env("HF_ENDPOINT", &server.endpoint).env_remove("HF_HUB_OFFLINE");
    run(command)
}

#[test]
fn a_gated_model_is_planned_before_its_licence_is_accepted() {
    let place = Place::new();
    let server = configs(KREA).large("transformer/diffusion_pytorch_model.safetensors", vec![0; 1000]);
    let server = server.large("vae/diffusion_pytorch_model.safetensors", vec![0; 1000]);
    let server = server.large("text_encoder/model.safetensors", vec![0; 1000]);
    let server = server.large("text_encoder_2/model.safetensors", vec![0; 1000]);
    let server = server.small("tokenizer/vocab.json", "{}").small("tokenizer/merges.txt", "").gated("hf_right");
    let server = server.small("tokenizer_2/spiece.model", "x").start();
    let dry = online(&place, &server, &args(KREA, &[]));
    dry.succeeds().tells(&["note: ", "HTTP 401", "planned by the configs of black-forest-labs/FLUX.1-Krea-dev"]);
    // Without a name it is the same model.
    let usual = online(&place, &server, &[&["--memory", "80GB"], &ARGS[..]].concat());
    assert_eq!(plan(&usual), plan(&dry));
    assert!(server.take_requests().iter().all(|request| !request.contains("/cdn/")), "no weights were asked for");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn configs_of_the_hub_are_enough_where_it_holds_no_weights() {
    let place = Place::new();
    let server = configs(KLEIN).small("tokenizer/tokenizer.json", "{}").start();
    let dry = online(&place, &server, &args(KLEIN, &[]));
    dry.succeeds().tells(&["holds configs and not all weights"]);
    assert!(!dry.stderr.contains("inside this program"), "{}", dry.stderr);
    assert_eq!(plan(&dry), plan(&run(command(&place, &args(KLEIN, &[])))));
    assert_eq!(place.names(), [""; 0]);
}
