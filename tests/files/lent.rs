//! Parts that come from repositories of the Hub, played by a local server.

use std::process::Command;

use serde_json::Value;

use crate::{
    CLIP, CLIP_CONFIG, MODEL, T5, VAE, fixture, fs,
    hub_server::{COMMIT, Fault, HubServer, HubServerBuilder},
    put,
    support::{
        program::{Place, Run, rgb8, small},
        sentencepiece,
    },
};

/// A server that lends both tokenizers.
fn tokenizers() -> HubServerBuilder {
    let read = |path: &str| fs::read(fixture(path)).expect("a file");
    let server = HubServerBuilder::default().repo("openai/clip-vit-large-patch14");
    let names = ["vocab.json", "merges.txt", "tokenizer_config.json"];
    let server =
        names.into_iter().fold(server, |server, name| server.small(name, read(&format!("tiny-flux/tokenizer/{name}"))));
    let server = server.small("tokenizer.json", "not taken").large("model.safetensors", "not taken");
    let server = server.repo("google/t5-v1_1-xxl").large("pytorch_model.bin", "not taken");
    server
        .large("spiece.model", sentencepiece::of_tokenizer_json(&read("tiny-flux/tokenizer_2/tokenizer.json")))
        .small("tokenizer_config.json", read("tiny-flux/tokenizer_2/tokenizer_config.json"))
}

fn command(place: &Place, server: &HubServer, args: &[&str]) -> Command {
    let mut command = place.command(&small(args));
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf")).env_remove("HF_HUB_OFFLINE");
    command
}

fn run(mut command: Command) -> Run {
    command.output().expect("the program starts").into()
}

/// A transformer and what else ComfyUI's users have beside it.
fn folder() -> Place {
    let place = Place::new();
    put(
        &place,
        &[
            ("flux.safetensors", MODEL),
            ("ae.safetensors", VAE),
            ("clip_l.safetensors", CLIP),
            ("config.json", CLIP_CONFIG),
            ("t5xxl_fp16.safetensors", T5),
        ],
    );
    place
}

#[test]
fn tokenizers_are_fetched_once_and_it_is_said() {
    let (place, server) = (folder(), tokenizers().start());
    let args = ["--model", "flux.safetensors", "-o", "x.png", "--json"];
    let first = run(command(&place, &server, &args));
    first.succeeds().tells(&[
        "note: parts from elsewhere: tokenizer openai/clip-vit-large-patch14@0123456, tokenizer_2 google/t5-v1_1-xxl@0123456",
        "files of openai/clip-vit-large-patch14, ",
        "files of google/t5-v1_1-xxl, ",
    ]);
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]), "the same ids");
    let asked = server.take_requests();
    assert!(
        !asked.iter().any(|request| request.contains("model.safetensors") || request.contains("pytorch")),
        "{asked:?}"
    );
    let said: Value = serde_json::from_str(&first.stdout).expect("JSON");
    let part = |name: &str| said["model"]["parts"][name].as_str().expect("said").to_owned();
    assert_eq!(part("tokenizer"), format!("openai/clip-vit-large-patch14@{COMMIT}"));
    assert_eq!(part("tokenizer_2"), format!("google/t5-v1_1-xxl@{COMMIT}"));
    // From then on nobody is asked.
    let args = ["--model", "flux.safetensors", "-o", "y.png", "--offline"];
    run(command(&place, &server, &args)).succeeds();
    run(command(&place, &server, &["--model", "flux.safetensors", "-o", "z.png"])).succeeds();
    let mut replay = place.command(&["replay", "x.png", "-o", "again.png"]);
    replay.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf"));
    let again = run(replay);
    assert!(!again.succeeds().stderr.contains("not the one"), "{}", again.stderr);
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("again.png")));
    assert_eq!(server.take_requests(), [""; 0]);
}

#[test]
fn what_the_hub_cannot_give_is_named_with_where_to_put_it() {
    let (place, server) = (folder(), tokenizers().start());
    server.fault("GET", "/api/models/openai", 99, Fault::Status(403, ""));
    let refused = run(command(&place, &server, &["--model", "flux.safetensors", "-o", "x.png"]));
    refused.fails(
        1,
        &["lacks tokenizer (", "openai/clip-vit-large-patch14", "put vocab.json and merges.txt of", "--tokenizer"],
    );
    assert!(!place.path("x.png").exists() && !place.path("hf").exists());
    let offline = run(command(&place, &server, &["--model", "flux.safetensors", "--offline"]));
    offline.fails(1, &["lacks tokenizer (", "nothing is fetched", "into ./tokenizer"]);
}

#[test]
fn networks_are_fetched_too_after_the_plan_has_shown_them() {
    let place = folder();
    for name in ["ae.safetensors", "clip_l.safetensors", "t5xxl_fp16.safetensors"] {
        fs::remove_file(place.path(name)).expect("removed");
    }
    let read = |path: &str| fs::read(fixture(path)).expect("a file");
    let server = tokenizers().repo("comfyanonymous/flux_text_encoders");
    let server = server.large("clip_l.safetensors", read(CLIP)).large("t5xxl_fp16.safetensors", read(T5));
    let server = server.large("t5xxl_fp8_e4m3fn.safetensors", "not taken");
    let server =
        server.repo("Comfy-Org/Lumina_Image_2.0_Repackaged").large("split_files/vae/ae.safetensors", read(VAE));
    let server = server.start();
    // The shapes of a CLIP this small do not tell its heads.
    put(&place, &[("clip/model.safetensors", CLIP), ("clip/config.json", CLIP_CONFIG)]);
    let args = ["--model", "flux.safetensors", "--text-encoder", "clip"];
    let plan = run(command(&place, &server, &[&args[..], &["--dry-run"]].concat()));
    for words in ["t5xxl_fp16.safetensors", "split_files/vae/ae.safetensors", "vocab.json", "to fetch", "T5 285 kB"] {
        assert!(plan.succeeds().stdout.contains(words), "{words}: {}", plan.stdout);
    }
    plan.tells(&["parts from elsewhere: ", "comfyanonymous/flux_text_encoders@0123456:t5xxl_fp16.safetensors"]);
    let json = run(command(&place, &server, &[&args[..], &["--dry-run", "--json"]].concat()));
    let last: Value = serde_json::from_str(json.succeeds().stdout.lines().last().expect("a plan")).expect("JSON");
    assert_eq!(last["parts"]["tokenizer_2"], format!("google/t5-v1_1-xxl@{COMMIT}"), "{last}");
    assert!(!place.path("hf").exists(), "nothing was fetched");
    run(command(&place, &server, &[&args[..], &["-o", "x.png"]].concat())).succeeds();
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
    // Too little memory, or another kind of file, is refused before.
    let place = folder();
    fs::remove_file(place.path("t5xxl_fp16.safetensors")).expect("removed");
    let refused = run(command(&place, &server, &["--model", "flux.safetensors", "--memory", "1MB", "-o", "x.png"]));
    refused.fails(1, &["may take 1 MB"]);
    assert!(!place.path("hf").exists(), "nothing was fetched");
}

#[test]
fn a_copy_of_the_authors_repository_lends_before_anybody_is_asked() {
    let (place, server) = (folder(), tokenizers().start());
    let repo = place.path("hf/hub/models--black-forest-labs--FLUX.1-dev");
    crate::copy_folder(&fixture("tiny-flux"), &repo.join("snapshots").join(COMMIT));
    fs::create_dir_all(repo.join("refs")).expect("a folder");
    fs::write(repo.join("refs/main"), COMMIT).expect("written");
    fs::remove_file(place.path("t5xxl_fp16.safetensors")).expect("removed");
    let made = run(command(&place, &server, &["--model", "flux.safetensors", "-o", "x.png"]));
    made.succeeds().tells(&[
        "text_encoder_2 black-forest-labs/FLUX.1-dev@0123456:text_encoder_2",
        "tokenizer black-forest-labs/FLUX.1-dev@0123456:tokenizer, ",
    ]);
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
    assert_eq!(server.take_requests(), [""; 0]);
}

#[test]
fn a_file_of_a_repository_is_a_model_and_so_is_one_of_its_parts() {
    let place = folder();
    let read = |path: &str| fs::read(fixture(path)).expect("a file");
    let server =
        tokenizers().repo("somebody/fine-tune").large("fp16/flux.safetensors", read(MODEL)).small("README.md", "x");
    let server = server.repo("somebody/encoders").large("t5.safetensors", read(T5)).start();
    let model = "somebody/fine-tune:fp16/flux.safetensors";
    let clip = place.path("clip");
    put(&place, &[("clip/model.safetensors", CLIP), ("clip/config.json", CLIP_CONFIG)]);
    let clip = clip.display().to_string();
    let args = [
        "--model",
        model,
        "--vae",
        "ae.safetensors",
        "--text-encoder",
        &clip,
        "--text-encoder-2",
        "somebody/encoders:t5.safetensors",
    ];
    let plan = run(command(&place, &server, &[&args[..], &["--dry-run"]].concat()));
    assert!(plan.succeeds().stdout.contains("fp16/flux.safetensors"), "{}", plan.stdout);
    let made = run(command(&place, &server, &[&args[..], &["-o", "x.png", "--json"]].concat()));
    made.succeeds();
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
    let said: Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!(said["model"]["model"], model);
    assert_eq!(said["model"]["parts"]["text_encoder_2"], format!("somebody/encoders@{COMMIT}:t5.safetensors"));
    let mut replay = place.command(&["replay", "x.png", "-o", "y.png"]);
    replay.env("HF_HOME", place.path("hf"));
    run(replay).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")));
    let absent = run(command(&place, &server, &["--model", "somebody/fine-tune:flux.safetensors"]));
    absent.fails(1, &["no file flux.safetensors (it has fp16/flux.safetensors)"]);
}

#[test]
fn a_gguf_file_of_a_repository_is_planned_by_its_header_and_then_fetched() {
    let place = folder();
    let file = "gguf/models/narrow-Q8_0.gguf";
    let read = |path: &str| fs::read(fixture(path)).expect("a file");
    let server = tokenizers().repo("somebody/quants").large("flux-Q8_0.gguf", read(file)).start();
    put(&place, &[("clip/model.safetensors", CLIP), ("clip/config.json", CLIP_CONFIG)]);
    let rest = ["--vae", "ae.safetensors", "--text-encoder", "clip", "--text-encoder-2", "t5xxl_fp16.safetensors"];
    let args = [&["--model", "somebody/quants:flux-Q8_0.gguf"], &rest[..]].concat();
    let plan = run(command(&place, &server, &[&args[..], &["--dry-run"]].concat()));
    assert!(plan.succeeds().stdout.contains("flux-Q8_0.gguf") && !place.path("hf").exists(), "{}", plan.stdout);
    run(command(&place, &server, &[&args[..], &["-o", "x.png"]].concat())).succeeds();
    put(&place, &[("here.gguf", file)]);
    run(command(&place, &server, &[&["--model", "here.gguf", "-o", "y.png"], &rest[..]].concat())).succeeds();
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("y.png")));
    let told = place.dype(&["info", "here.gguf"]);
    assert!(told.succeeds().stdout.contains("numbers    Q8_0: "), "{}", told.stdout);
}
