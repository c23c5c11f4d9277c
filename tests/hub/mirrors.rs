//! Mirrors of the Hub, which tell less.

use std::fs;

use dype::testing::{base::progress::Silent, hub::Hub};

use crate::{
    bench::{Bench, Log, NEEDED, SHARD, files_below, network, noise, repository},
    hub_server::{COMMIT, Fault, REPO},
};

#[test]
fn sizes_that_a_mirror_does_not_list_are_asked_for_each_file_that_is_needed() {
    let bench = Bench::new(repository().small(".gitattributes", "*.safetensors").mirror());
    let plan = bench.plan();
    let asked = bench.server.take_requests();
    let heads = NEEDED.map(|path| format!("HEAD /{REPO}/resolve/{COMMIT}/{path}"));
    assert_eq!(asked[1..], heads, "the listing, and then the files that are needed");
    let shard = plan.files.iter().find(|file| file.path == SHARD).expect("the shard");
    assert_eq!((shard.size_bytes, &shard.etag), (300_000, &bench.server.etag(SHARD)));
    let log = Log::default();
    let snapshot = bench.fetch_of(REPO, &log).expect("a model");
    assert_eq!(files_below(&snapshot), NEEDED);
    assert_eq!(fs::read(snapshot.join(SHARD)).expect("the shard"), noise(300_000));
    assert!(log.warnings().is_empty() && log.notes().is_empty());
}

#[test]
fn the_hubs_own_copy_serves_a_mirror_and_a_wrong_file_is_seen() {
    let bench = Bench::new(repository().mirror());
    bench.server.fault("GET", "/resolve/", 1, Fault::Flip(0));
    bench.server.fault("GET", "text_encoder/model.safetensors", 1, Fault::Flip(7));
    let log = Log::default();
    let snapshot = bench.fetch_of(REPO, &log).expect("a model");
    assert_eq!(fs::read(snapshot.join("text_encoder/model.safetensors")).expect("weights"), noise(3_000));
    assert!(log.notes().iter().any(|note| note.contains("sha256")), "{:?}", log.notes());
    bench.server.take_requests();
    let plan = bench.plan();
    assert_eq!((plan.bytes_to_fetch, plan.files.iter().all(|file| file.cached)), (0, true));
    assert_eq!(bench.server.take_requests().len(), 1, "only the listing is asked for");
    Hub::new(bench.settings.clone()).fetch(&plan, &Silent).expect("a model");
}

#[test]
fn a_file_whose_size_nobody_tells_is_named_and_a_copy_serves_instead() {
    let bench = Bench::new(repository().mirror());
    let unsaid = "vae/config.json";
    bench.server.fault("HEAD", unsaid, 1, Fault::Instead(200, ""));
    let (what, hint) = network(&bench.fetch().expect_err("no id"));
    assert!(what.contains(unsaid) && what.contains("size and the contents' id"), "{what}");
    assert!(hint.contains("HF_ENDPOINT"), "{hint}");
    let snapshots = bench.repo_folder().join("snapshots");
    bench.fetch().expect("a model");
    let old = "fedcba9876543210fedcba9876543210fedcba98";
    fs::rename(snapshots.join(COMMIT), snapshots.join(old)).expect("another commit");
    bench.server.fault("HEAD", unsaid, 1, Fault::Instead(200, ""));
    let log = Log::default();
    bench.fetch_of(REPO, &log).expect("the copy");
    assert!(log.warnings()[0].contains("using the copy of commit fedcba9"), "{:?}", log.warnings());
}

#[test]
fn a_mirror_that_hiccups_is_asked_again() {
    let bench = Bench::new(repository().mirror());
    bench.server.fault("HEAD", "model_index.json", 2, Fault::Status(503, ""));
    bench.fetch().expect("a model");
    let fresh = Bench::new(repository().mirror());
    fresh.server.fault("HEAD", "model_index.json", 1, Fault::Status(404, "X-Error-Code: EntryNotFound\r\n"));
    let (what, _) = network(&fresh.fetch().expect_err("no such file"));
    assert!(what.contains("model_index.json") && what.contains("does not hold"), "{what}");
}
