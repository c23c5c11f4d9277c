//! Copies on this machine: of an earlier run, and of Python's `huggingface_hub`.

use std::{fs, path::Path};

use candle_core::{DType, Device};
use dype::testing::{base::progress::Silent, hub::Hub, weights::TensorSource};

use crate::{
    bench::{Bench, Log, SHARD, files_below, network, repository},
    hub_server::{COMMIT, Fault, REPO},
};

#[cfg(unix)]
#[test]
fn the_cache_is_the_one_python_makes() {
    let bench = Bench::new(repository());
    let snapshot = bench.fetch().expect("a model");
    let etag = bench.server.etag(SHARD);
    assert_eq!(fs::read_link(snapshot.join(SHARD)).expect("a link"), Path::new("../../../blobs").join(etag));
    let etag = bench.server.etag("model_index.json");
    assert_eq!(fs::read_link(snapshot.join("model_index.json")).expect("a link"), Path::new("../../blobs").join(etag));
}

#[test]
fn a_second_run_fetches_nothing() {
    let bench = Bench::new(repository());
    bench.fetch().expect("a model");
    bench.server.take_requests();
    let plan = bench.plan();
    assert_eq!(plan.bytes_to_fetch, 0);
    assert!(plan.files.iter().all(|file| file.cached));
    let log = Log::default();
    Hub::new(bench.settings.clone()).fetch(&plan, &log).expect("a model");
    assert_eq!(log.events(), []);
    assert_eq!(bench.server.take_requests().len(), 1, "only the listing is asked for");
    let pinned = bench.fetch_of(&format!("{REPO}@{COMMIT}"), &Silent).expect("a model");
    assert_eq!(pinned, plan.snapshot);
    assert_eq!(bench.server.take_requests(), [""; 0], "a full commit needs no request");
}

/// A cache as `huggingface_hub` leaves it behind.
#[cfg(unix)]
fn python_download(bench: &Bench) {
    snapshot_of(bench, COMMIT);
    note(bench, "main", COMMIT);
}

/// Says which commit a branch or tag points to.
#[cfg(unix)]
fn note(bench: &Bench, name: &str, commit: &str) {
    let refs = bench.repo_folder().join("refs");
    fs::create_dir_all(&refs).expect("a folder");
    fs::write(refs.join(name), commit).expect("a ref");
}

/// A complete copy of a commit.
#[cfg(unix)]
fn snapshot_of(bench: &Bench, commit: &str) {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-flux");
    let repo = bench.repo_folder();
    fs::create_dir_all(repo.join("blobs")).expect("a folder");
    for (i, path) in files_below(&tiny).iter().enumerate() {
        let etag = format!("{i:040x}");
        fs::copy(tiny.join(path), repo.join("blobs").join(&etag)).expect("a blob");
        let pointer = repo.join("snapshots").join(commit).join(path);
        fs::create_dir_all(pointer.parent().expect("a parent")).expect("a folder");
        let ups = "../".repeat(path.split('/').count() + 1);
        std::os::unix::fs::symlink(format!("{ups}blobs/{etag}"), pointer).expect("a link");
    }
}

#[cfg(unix)]
#[test]
fn a_download_of_pythons_is_used_offline() {
    let mut bench = Bench::new(repository());
    python_download(&bench);
    bench.settings.offline = true;
    for model in [REPO.to_owned(), format!("{REPO}@{COMMIT}")] {
        let plan = bench.plan_of(&model, &Silent).expect("a plan");
        assert_eq!((plan.bytes_to_fetch, plan.files.iter().all(|file| file.cached)), (0, true));
        let snapshot = Hub::new(bench.settings.clone()).fetch(&plan, &Silent).expect("a model");
        assert_eq!(snapshot, bench.repo_folder().join("snapshots").join(COMMIT));
        assert!(plan.files.iter().any(|file| file.path == "vae/config.json" && file.etag.len() == 40));
    }
    bench.settings.offline = false;
    bench.plan_of(&format!("{REPO}@{COMMIT}"), &Silent).expect("a plan");
    assert_eq!(bench.server.take_requests(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn an_incomplete_copy_offline_says_what_is_missing() {
    let mut bench = Bench::new(repository());
    bench.settings.offline = true;
    let (what, hint) = network(&bench.fetch().expect_err("no copy"));
    assert!(what.contains("there is no copy of tiny-lab/tiny-flux"), "{what}");
    assert!(hint.contains("unset HF_HUB_OFFLINE"), "{hint}");
    python_download(&bench);
    // The blob goes, the link stays: what an emptied cache looks like.
    let shard = bench.repo_folder().join("snapshots").join(COMMIT).join("vae/config.json");
    fs::remove_file(fs::canonicalize(shard).expect("a blob")).expect("a removal");
    let (what, _) = network(&bench.fetch().expect_err("an incomplete copy"));
    assert!(what.contains("lacks vae/config.json"), "{what}");
    assert_eq!(bench.server.take_requests(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn an_unreachable_hub_leaves_a_complete_copy_usable() {
    let mut bench = Bench::new(repository());
    python_download(&bench);
    let log = Log::default();
    bench.server.fault("GET", "/api/", usize::MAX, Fault::Status(503, ""));
    let snapshot = bench.fetch_of(REPO, &log).expect("the copy");
    assert_eq!(snapshot, bench.repo_folder().join("snapshots").join(COMMIT));
    assert!(log.warnings().len() == 1 && log.warnings()[0].contains("copy of commit 0123456"), "{:?}", log.warnings());

    // Nobody listens where a listener was a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    bench.settings.endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let log = Log::default();
    bench.fetch_of(REPO, &log).expect("the copy");
    assert!(log.warnings()[0].contains("cannot be reached"), "{:?}", log.warnings());
    fs::remove_dir_all(bench.repo_folder()).expect("a removal");
    let (what, _) = network(&bench.fetch().expect_err("no copy"));
    assert!(what.contains("cannot be reached"), "{what}");
}

#[cfg(unix)]
#[test]
fn a_file_of_the_wrong_size_in_the_copy_is_replaced() {
    let bench = Bench::new(repository());
    let snapshot = bench.fetch().expect("a model");
    let config = snapshot.join("vae/config.json");
    fs::write(&config, "<html>an error page</html>").expect("a spoilt blob");
    bench.fetch().expect("a model");
    assert_eq!(fs::read_to_string(config).expect("a config"), "{\"a\": 6}");
}

/// An older commit than the server's.
#[cfg(unix)]
const OLD: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A copy of this commit is used, and the run says so once, with these words.
#[cfg(unix)]
#[track_caller]
fn uses_the_copy(bench: &Bench, model: &str, commit: &str, words: &[&str]) {
    let log = Log::default();
    let snapshot = bench.fetch_of(model, &log).expect("the copy");
    assert_eq!(snapshot, bench.repo_folder().join("snapshots").join(commit));
    let warnings = log.warnings();
    assert_eq!(warnings.len(), usize::from(!words.is_empty()), "{warnings:?}");
    for word in words {
        assert!(warnings[0].contains(word), "{word}: {warnings:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_older_complete_copy_stands_in_for_an_incomplete_latest_one() {
    let mut bench = Bench::new(repository());
    snapshot_of(&bench, OLD);
    // An interrupted run of Python's notes the new commit first.
    note(&bench, "main", COMMIT);
    let begun = bench.repo_folder().join("snapshots").join(COMMIT);
    fs::create_dir_all(&begun).expect("a folder");
    fs::write(begun.join("model_index.json"), "{}").expect("a first file");
    bench.server.fault("GET", "/api/", usize::MAX, Fault::Status(503, ""));
    uses_the_copy(&bench, REPO, OLD, &["503", "using the copy of commit fedcba9"]);
    bench.settings.offline = true;
    uses_the_copy(&bench, REPO, OLD, &["lacks transformer/config.json", "complete copy of commit fedcba9"]);
    assert_eq!(fs::read_to_string(bench.repo_folder().join("refs/main")).expect("a ref"), COMMIT, "stays");
}

#[cfg(unix)]
#[test]
fn a_copy_without_refs_is_a_copy() {
    let mut bench = Bench::new(repository());
    snapshot_of(&bench, OLD);
    bench.settings.offline = true;
    uses_the_copy(&bench, REPO, OLD, &["which commit", "commit fedcba9"]);
    // Nobody knows whether a branch or tag is that commit.
    let (what, hint) = network(&bench.fetch_of(&format!("{REPO}@v1"), &Silent).expect_err("another revision"));
    assert!(what.contains("no copy of tiny-lab/tiny-flux@v1"), "{what}");
    assert!(hint.contains("complete copy of tiny-lab/tiny-flux@fedcba9"), "{hint}");
}

#[cfg(unix)]
#[test]
fn a_refusal_leaves_a_complete_copy_usable() {
    for fault in [
        Fault::Status(401, "X-Error-Code: RepoNotFound\r\n"),
        Fault::Status(403, "X-Error-Code: GatedRepo\r\n"),
        Fault::Status(404, ""),
        Fault::Instead(200, "<html>Log in to the network</html>"),
    ] {
        let bench = Bench::new(repository());
        python_download(&bench);
        bench.server.fault("GET", "/api/", 1, fault);
        uses_the_copy(&bench, REPO, COMMIT, &["using the copy of commit 0123456"]);
    }
}

/// Read-only to everybody, root too: where a folder must be made there is a file.
#[cfg(unix)]
#[test]
fn a_read_only_copy_is_used_when_the_hub_has_moved_on() {
    let bench = Bench::new(repository());
    snapshot_of(&bench, OLD);
    note(&bench, "main", OLD);
    fs::write(bench.settings.cache_dir.join(".locks"), "").expect("a file");
    uses_the_copy(&bench, REPO, OLD, &["commit 0123456", "read-only", "using the copy of commit fedcba9"]);
    assert_eq!(fs::read_to_string(bench.repo_folder().join("refs/main")).expect("a ref"), OLD);
}

/// What the Hub lists is here, and that nothing can be noted is no trouble.
#[cfg(unix)]
#[test]
fn a_read_only_copy_without_refs_is_used() {
    let bench = Bench::new(repository());
    bench.fetch().expect("a model");
    fs::remove_dir_all(bench.repo_folder().join("refs")).expect("a removal");
    fs::write(bench.repo_folder().join("refs"), "").expect("a file");
    fs::remove_dir_all(bench.settings.cache_dir.join(".locks")).expect("a removal");
    fs::write(bench.settings.cache_dir.join(".locks"), "").expect("a file");
    uses_the_copy(&bench, REPO, COMMIT, &[]);
}

#[cfg(unix)]
#[test]
fn a_short_commit_is_a_revision() {
    let mut bench = Bench::new(repository());
    let short = |commit: &str, digits: usize| format!("{REPO}@{}", &commit[..digits]);
    let snapshot = bench.fetch_of(&short(COMMIT, 8), &Silent).expect("a model");
    assert_eq!(snapshot, bench.repo_folder().join("snapshots").join(COMMIT));
    assert!(!bench.repo_folder().join("refs").exists(), "a commit needs no note");
    bench.server.take_requests();
    uses_the_copy(&bench, &short(COMMIT, 7).to_uppercase().replace(&REPO.to_uppercase(), REPO), COMMIT, &[]);
    assert_eq!(bench.server.take_requests(), [""; 0], "what a commit names cannot change");
    let (what, _) = network(&bench.fetch_of(&short(OLD, 10), &Silent).expect_err("another commit"));
    assert!(what.contains("no revision \"fedcba9876\""), "{what}");
    bench.settings.offline = true;
    uses_the_copy(&bench, &short(COMMIT, 12), COMMIT, &[]);
    // A branch of that name goes before.
    snapshot_of(&bench, OLD);
    note(&bench, &COMMIT[..9], OLD);
    uses_the_copy(&bench, &short(COMMIT, 9), OLD, &[]);
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// Configs whole, weights by their headers, tokenizers by name: nothing of it is written.
#[test]
fn what_is_not_here_is_known_by_its_beginning() {
    let header =
        |tensor: &str| format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[70000],"data_offsets":[0,280000]}}}}"#);
    // Longer than what the first request asks for, by its spaces.
    let long = format!("{}{}", header("b"), " ".repeat(300_000));
    let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 280_000]].concat();
    for heeds_ranges in [true, false] {
        let bench = Bench::new(repository().large(SHARD, file(&header("a"))).large(VAE, file(&long)));
        let plan = bench.plan();
        if !heeds_ranges {
            bench.server.fault("GET", "/cdn/", usize::MAX, Fault::WholeFile);
        }
        let files = Hub::new(bench.settings.clone()).peek(&plan, &Silent).expect("beginnings");
        let folder = |path: &str| plan.snapshot.join(path).parent().expect("a folder").to_owned();
        let shard = files.open_folder(&folder(SHARD)).expect("a header");
        assert_eq!(shard.shape("a"), Some(vec![70_000]));
        let error = shard.load("a", DType::F32, &Device::Cpu).expect_err("no numbers");
        assert!(error.to_string().contains("only the header is here"), "{error}");
        assert_eq!(files.open_folder(&folder(VAE)).expect("a long header").shape("b"), Some(vec![70_000]));
        let config: serde_json::Value = files.read_json(&plan.snapshot.join("vae/config.json")).expect("a config");
        assert_eq!(config["a"], 6);
        assert!(files.is_file(&plan.snapshot.join("tokenizer_2/tokenizer.json")) && files.is_dir(&plan.snapshot));
        assert_eq!(files_below(bench.settings.cache_dir.as_path()), [""; 0]);
    }
}
