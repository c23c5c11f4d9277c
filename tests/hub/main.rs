//! Models from the Hub, against a local server that plays it.

mod bench;
mod copies;
mod faults;
#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod hub_server;
mod mirrors;

use std::fs;

use bench::{Bench, Log, NEEDED, SHARD, files_below, network, noise, repository};
use dype::testing::{
    Error,
    base::progress::{Event, Silent, Stage},
    hub::{Hub, Token},
};
use hub_server::{COMMIT, Fault, HubServerBuilder, REPO};

#[test]
fn everything_needed_comes_once_and_nothing_else() {
    let bench = Bench::new(repository());
    let plan = bench.plan();
    assert_eq!(plan.commit, COMMIT);
    assert_eq!(plan.snapshot, bench.repo_folder().join("snapshots").join(COMMIT));
    assert_eq!(plan.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), NEEDED);
    let shard = plan.files.iter().find(|file| file.path == SHARD).expect("the shard");
    assert_eq!((shard.size_bytes, shard.cached, &shard.etag), (300_000, false, &bench.server.etag(SHARD)));
    assert_eq!(plan.bytes_to_fetch, plan.files.iter().map(|file| file.size_bytes).sum::<u64>());
    assert!(plan.disk_free_bytes.is_some_and(|free| free > 0));
    assert!(!bench.repo_folder().exists(), "planning writes nothing");
    assert_eq!(bench.server.take_requests(), [format!("GET /api/models/{REPO}/revision/main?blobs=true")]);

    let log = Log::default();
    let snapshot = bench.fetch_of(REPO, &log).expect("a model");
    assert_eq!(snapshot, plan.snapshot);
    assert_eq!(files_below(&snapshot), NEEDED);
    assert_eq!(fs::read(snapshot.join(SHARD)).expect("the shard"), noise(300_000));
    assert_eq!(fs::read_to_string(snapshot.join("vae/config.json")).expect("a config"), "{\"a\": 6}");
    assert_eq!(fs::read_to_string(bench.repo_folder().join("refs/main")).expect("a ref"), COMMIT);
    assert_eq!(files_below(&bench.repo_folder().join("blobs")).len(), NEEDED.len(), "nothing incomplete is left");
    assert!(log.notes().is_empty() && log.warnings().is_empty());
    let total = plan.bytes_to_fetch;
    let events = log.events();
    assert_eq!(events.first(), Some(&Event::Begin { stage: Stage::Download, total }));
    assert!(matches!(events.last(), Some(Event::End { stage: Stage::Download, .. })));
    let detail = NEEDED[NEEDED.len() - 1].to_owned();
    assert_eq!(events[events.len() - 2], Event::Advance { stage: Stage::Download, done: total, detail });
}

#[test]
fn large_files_come_through_a_redirect_in_one_request() {
    let bench = Bench::new(repository());
    bench.fetch().expect("a model");
    let requests = bench.server.take_requests();
    let cdn = format!("GET /cdn/{} 0-", bench.server.etag(SHARD));
    assert_eq!(requests.iter().filter(|request| **request == cdn).count(), 1, "{requests:#?}");
}

#[test]
fn gated_files_name_the_licence_and_the_token() {
    let mut bench = Bench::new(repository().gated("hf_right"));
    let (what, hint) = network(&bench.fetch().expect_err("no token"));
    assert!(what.contains("without a token") && what.contains("HTTP 401") && what.contains(REPO), "{what}");
    let advice =
        "accept the licence at https://huggingface.co/tiny-lab/tiny-flux, then set HF_TOKEN or run `hf auth login`";
    assert_eq!(hint, advice);

    bench.settings.token = Token::new("hf_wrong");
    let (what, hint) = network(&bench.fetch().expect_err("a wrong token"));
    assert!(what.contains("with the token") && what.contains("HTTP 403"), "{what}");
    assert!(!what.contains("hf_wrong"), "{what}");
    assert_eq!(hint, advice);

    bench.settings.token = Token::new("hf_right");
    bench.fetch().expect("a model");
}

#[test]
fn what_is_not_found_is_told_apart() {
    let bench = Bench::new(repository());
    let (what, _) = network(&bench.fetch_of("tiny-lab/other", &Silent).expect_err("no repository"));
    assert!(what.contains("no model tiny-lab/other"), "{what}");
    let (what, _) = network(&bench.fetch_of(&format!("{REPO}@v9"), &Silent).expect_err("no revision"));
    assert!(what.contains("no revision \"v9\""), "{what}");
    bench.server.fault("HEAD", SHARD, 1, Fault::Status(404, "X-Error-Code: EntryNotFound\r\n"));
    let (what, _) = network(&bench.fetch().expect_err("no file"));
    assert!(what.contains(SHARD) && what.contains("does not hold"), "{what}");
    bench.server.fault("GET", "/api/", 1, Fault::Status(404, ""));
    let (what, _) = network(&bench.fetch().expect_err("no repository"));
    assert!(what.contains(&format!("no model {REPO}")), "{what}");
}

#[test]
fn a_branch_with_slashes_is_one_part_of_the_address() {
    let bench = Bench::new(repository());
    bench.fetch_of(&format!("{REPO}@refs/pr/1"), &Silent).expect("a model");
    assert_eq!(fs::read_to_string(bench.repo_folder().join("refs/refs/pr/1")).expect("a ref"), COMMIT);
}

#[test]
fn another_kind_of_model_is_named_before_anything_is_fetched() {
    let bench = Bench::new(HubServerBuilder::default().large("lora.safetensors", noise(100)));
    let error = bench.fetch().expect_err("a LoRA");
    assert!(matches!(error, Error::Model { .. }) && error.to_string().contains("model_index.json"), "{error}");
    assert_eq!(bench.server.take_requests().len(), 1);
}

#[test]
fn too_little_space_is_known_before_the_first_byte() {
    let bench = Bench::new(repository());
    let mut plan = bench.plan();
    bench.server.take_requests();
    plan.disk_free_bytes = Some(100_000);
    let error = Hub::new(bench.settings.clone()).fetch(&plan, &Silent).expect_err("no space");
    assert!(matches!(error, Error::Disk { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("310.1 kB") && text.contains("100.0 kB"), "{text}");
    assert!(error.hint().expect("a hint").contains("HF_HOME"));
    assert_eq!(bench.server.take_requests(), [""; 0]);
}

#[test]
fn the_token_is_the_settings_business_alone() {
    // hf-hub itself would take the token it finds in the environment, and the gated files would come.
    let program = std::env::current_exe().expect("this test");
    let test = ["--exact", "gated_files_name_the_licence_and_the_token"];
    let run = std::process::Command::new(program).args(test).env("HF_TOKEN", "hf_right").output().expect("a run");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn an_endpoint_that_is_no_address_is_a_senseless_request() {
    let mut bench = Bench::new(repository());
    bench.settings.endpoint = "not an address".into();
    let error = bench.fetch().expect_err("no address");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("not an address") && error.hint().is_some(), "{error}");
}
