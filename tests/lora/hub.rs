//! LoRA files of the Hub, played by a local server.

use super::{
    hub_server::{HubServer, HubServerBuilder, REPO},
    support::{
        fixture,
        program::{Place, Run, rgb8, small},
    },
};

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("lora/files/{name}.safetensors"))).expect("readable")
}

fn run(place: &Place, server: &HubServer, args: &[&str]) -> Run {
    let mut command = place.command(&small(args));
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf"));
    command.env_remove("HF_HUB_OFFLINE");
    command.output().expect("the program starts").into()
}

#[test]
fn a_file_of_the_hub_is_fetched_once_and_named_as_it_is_there() {
    let place = Place::new();
    let server = HubServerBuilder::default().large("a/one.safetensors", bytes("peft")).small("README.md", "x").start();
    let lora = format!("{REPO}:0.6");
    let dry = run(&place, &server, &["--lora", &lora, "--dry-run"]);
    assert!(dry.succeeds().stdout.contains("a/one.safetensors"), "{}", dry.stdout);
    run(&place, &server, &["--lora", &lora, "-o", "x.png"]).succeeds().tells(&["download"]);
    let here = fixture("lora/files/peft.safetensors").display().to_string();
    place.small(&["--lora", &format!("{here}:0.6"), "-o", "y.png"]).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")), "the file on this disk");
    let info = place.dype(&["info", "x.png"]);
    assert!(info.succeeds().stdout.contains(&format!("{REPO}:a/one.safetensors at 0.6")), "{}", info.stdout);
    server.take_requests();
    let again = run(&place, &server, &["--lora", &format!("{REPO}:a/one:0.6"), "-o", "z.png"]);
    assert!(!again.succeeds().stderr.contains("download"), "{}", again.stderr);
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("z.png")));
}

#[test]
fn of_several_one_is_to_be_named_and_one_that_does_not_fit_is_not_fetched() {
    let place = Place::new();
    let server = HubServerBuilder::default()
        .large("one.safetensors", bytes("peft"))
        .large("bad.safetensors", bytes("bad-in"))
        .start();
    run(&place, &server, &["--lora", REPO]).fails(1, &["bad.safetensors", "one.safetensors", "named"]);
    run(&place, &server, &["--lora", &format!("{REPO}:two")]).fails(1, &["no two", "one.safetensors"]);
    server.take_requests();
    run(&place, &server, &["--lora", &format!("{REPO}:bad.safetensors")]).fails(1, &["[4, 144]"]);
    assert!(
        !place.path("hf").exists() || !std::fs::exists(place.path("hf/hub")).unwrap_or(true),
        "nothing was fetched"
    );
}

/// peft saves alpha in a file of its own, which belongs to the weights wherever they come from.
#[test]
fn pefts_settings_are_fetched_with_its_weights_and_both_serve_offline() {
    let settings = r#"{"r": 2, "lora_alpha": 3.0}"#;
    let place = Place::new();
    let server = HubServerBuilder::default()
        .large("p/adapter_model.safetensors", bytes("peft-raw"))
        .small("p/adapter_config.json", settings)
        .start();
    let offline = run(&place, &server, &["--lora", REPO, "--offline", "-o", "x.png"]);
    assert_ne!(offline.code, Some(0));
    assert_eq!(server.take_requests(), [""; 0], "nothing is asked");
    run(&place, &server, &["--lora", REPO, "-o", "x.png"]).succeeds();
    std::fs::write(place.path("adapter_model.safetensors"), bytes("peft-raw")).expect("written");
    std::fs::write(place.path("adapter_config.json"), settings).expect("written");
    place.small(&["--lora", "adapter_model.safetensors", "-o", "y.png"]).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")), "as on this disk");
    server.take_requests();
    run(&place, &server, &["--lora", REPO, "--offline", "-o", "z.png"]).succeeds();
    assert_eq!(server.take_requests(), [""; 0], "nothing is asked");
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("z.png")));
}
