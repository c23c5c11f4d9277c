//! Networks and servers that misbehave.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    bench::{Bench, Log, NEEDED, SHARD, files_below, network, noise, repository},
    hub_server::{Fault, REPO},
};

#[test]
fn a_cut_connection_goes_on_where_it_was_cut() {
    let bench = Bench::new(repository());
    let cdn = "/cdn/";
    bench.plan();
    bench.server.take_requests();
    // text_encoder and text_encoder_2 come first; the shard is the third large file.
    bench.server.fault("GET", cdn, 2, Fault::Short(usize::MAX));
    bench.server.fault("GET", cdn, 1, Fault::CutAfter(100_000));
    let log = Log::default();
    let snapshot = bench.fetch_of(REPO, &log).expect("a model");
    assert_eq!(fs::read(snapshot.join(SHARD)).expect("the shard"), noise(300_000));
    let asked = format!("GET /cdn/{} ", bench.server.etag(SHARD));
    let requests = bench.server.take_requests();
    let ranges: Vec<_> = requests.iter().filter_map(|request| request.strip_prefix(&asked)).collect();
    assert_eq!(ranges[0], "0-");
    let resumed: usize = ranges[1].trim_end_matches('-').parse().expect("a number");
    assert!(ranges.len() == 2 && resumed > 0 && resumed <= 100_000, "{ranges:?}");
    assert_eq!(log.notes().len(), 1);
    assert!(log.notes()[0].contains(SHARD), "{:?}", log.notes());
}

#[test]
fn an_interrupted_run_is_continued_by_the_next() {
    let bench = Bench::new(repository());
    let incomplete = format!("{}.dype.incomplete", bench.shard_blob().display());
    fs::create_dir_all(bench.repo_folder().join("blobs")).expect("a folder");
    fs::write(&incomplete, &noise(300_000)[..123_456]).expect("a piece");
    let plan = bench.plan();
    assert_eq!(plan.bytes_to_fetch, plan.files.iter().map(|file| file.size_bytes).sum::<u64>() - 123_456);
    let snapshot = bench.fetch().expect("a model");
    assert_eq!(fs::read(snapshot.join(SHARD)).expect("the shard"), noise(300_000));
    let resumed = format!("GET /cdn/{} 123456-", bench.server.etag(SHARD));
    assert!(bench.server.take_requests().contains(&resumed));
    assert!(!Path::new(&incomplete).exists());
}

#[test]
fn a_piece_of_something_else_is_thrown_away() {
    let bench = Bench::new(repository());
    fs::create_dir_all(bench.repo_folder().join("blobs")).expect("a folder");
    for stale in [vec![7; 1000], vec![7; 300_000], vec![7; 400_000]] {
        let incomplete = format!("{}.dype.incomplete", bench.shard_blob().display());
        fs::write(incomplete, stale).expect("a piece");
        fs::remove_file(bench.shard_blob()).ok();
        fs::remove_dir_all(bench.repo_folder().join("snapshots")).ok();
        let snapshot = bench.fetch().expect("a model");
        assert_eq!(fs::read(snapshot.join(SHARD)).expect("the shard"), noise(300_000));
    }
}

#[test]
fn the_hubs_own_waiting_time_is_kept() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/api/", 1, Fault::Status(429, "Retry-After: 1\r\n"));
    bench.server.fault("HEAD", SHARD, 1, Fault::Status(429, "Retry-After: 1\r\n"));
    let (start, log) = (Instant::now(), Log::default());
    bench.fetch_of(REPO, &log).expect("a model");
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    let notes = log.notes();
    assert!(notes.len() == 2 && notes.iter().all(|note| note.contains("HTTP 429")), "{notes:?}");
}

#[test]
fn a_waiting_time_beyond_patience_ends_the_run() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/api/", 1, Fault::Status(429, "Retry-After: 3600\r\n"));
    let (_, hint) = network(&bench.fetch().expect_err("too long"));
    assert!(hint.contains("3600 s"), "{hint}");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/api/", 2, Fault::Status(503, ""));
    bench.server.fault("GET", "/cdn/", 1, Fault::Status(500, ""));
    bench.server.fault("GET", "vae/config.json", 2, Fault::Status(502, ""));
    let snapshot = bench.fetch().expect("a model");
    assert_eq!(files_below(&snapshot), NEEDED);
}

#[test]
fn a_hub_that_stays_busy_is_given_up() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/cdn/", usize::MAX, Fault::Status(503, ""));
    let (what, hint) = network(&bench.fetch().expect_err("busy"));
    assert!(what.contains("text_encoder/model.safetensors") && what.contains("HTTP 503"), "{what}");
    assert!(what.contains("3 times"), "{what}");
    assert!(hint.contains("HF_ENDPOINT"), "{hint}");
    let tries = bench.server.take_requests().iter().filter(|request| request.contains("/cdn/")).count();
    // hf-hub asks HEAD before each GET; both go to the redirect's target.
    assert_eq!(tries, 6);
}

#[test]
fn an_error_page_is_never_stored() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "resolve", usize::MAX, Fault::Status(503, "Content-Type: text/html\r\n"));
    bench.fetch().expect_err("busy");
    assert!(!bench.repo_folder().join("snapshots").exists());
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/cdn/", usize::MAX, Fault::Page);
    network(&bench.fetch().expect_err("pages"));
    assert!(!bench.repo_folder().join("snapshots").exists());
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/api/", 1, Fault::Page);
    let (what, _) = network(&bench.fetch().expect_err("a page"));
    assert!(what.contains("answered something else"), "{what}");
}

#[test]
fn a_short_body_is_completed() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/cdn/", 1, Fault::Short(1_000));
    let snapshot = bench.fetch().expect("a model");
    assert_eq!(fs::read(snapshot.join("text_encoder/model.safetensors")).expect("weights"), noise(3_000));
}

#[test]
fn a_server_that_ignores_ranges_still_gives_the_right_file() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/cdn/", 1, Fault::CutAfter(1_000));
    bench.server.fault("GET", "/cdn/", 2, Fault::WholeFile);
    let snapshot = bench.fetch().expect("a model");
    assert_eq!(fs::read(snapshot.join("text_encoder/model.safetensors")).expect("weights"), noise(3_000));
}

#[test]
fn a_flipped_byte_is_noticed_and_fetched_again() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/cdn/", 1, Fault::Flip(1_234));
    let log = Log::default();
    let snapshot = bench.fetch_of(REPO, &log).expect("a model");
    assert_eq!(fs::read(snapshot.join("text_encoder/model.safetensors")).expect("weights"), noise(3_000));
    assert!(log.notes()[0].contains("sha256"), "{:?}", log.notes());
}

#[test]
fn contents_that_stay_wrong_are_never_stored() {
    let bench = Bench::new(repository());
    bench.server.fault("GET", "/cdn/", usize::MAX, Fault::Flip(1_234));
    let (what, _) = network(&bench.fetch().expect_err("wrong contents"));
    let etag = bench.server.etag("text_encoder/model.safetensors");
    assert!(what.contains("sha256") && what.contains(&etag), "{what}");
    let blob = bench.repo_folder().join("blobs").join(&etag);
    assert!(!blob.exists());
    let left = fs::metadata(format!("{}.dype.incomplete", blob.display())).map_or(0, |meta| meta.len());
    assert_eq!(left, 0, "the wrong bytes are gone");
    assert!(!bench.repo_folder().join("snapshots").exists());
}

#[test]
fn a_silent_connection_is_left_and_taken_up_again() {
    let mut bench = Bench::new(repository());
    bench.settings.stall = Duration::from_millis(700);
    bench.server.fault("GET", "/cdn/", 1, Fault::StallAfter(1_000));
    bench.server.fault("HEAD", "vae/config.json", 1, Fault::Status(503, ""));
    let (start, log) = (Instant::now(), Log::default());
    let snapshot = bench.fetch_of(REPO, &log).expect("a model");
    assert_eq!(fs::read(snapshot.join("text_encoder/model.safetensors")).expect("weights"), noise(3_000));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(log.notes().iter().any(|note| note.contains("silent for 0.7 s")), "{:?}", log.notes());
}

#[test]
fn a_listing_that_never_comes_is_given_up() {
    let mut bench = Bench::new(repository());
    bench.settings.stall = Duration::from_millis(300);
    bench.server.fault("GET", "/api/", usize::MAX, Fault::StallAfter(0));
    let (what, _) = network(&bench.fetch().expect_err("silence"));
    assert!(what.contains("silent") && what.contains("3 times"), "{what}");
}

#[test]
fn two_runs_at_once_do_not_harm_each_other() {
    let bench = Bench::new(repository());
    let snapshots: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.fetch())).collect();
        runs.into_iter().map(|run| run.join().expect("no panic").expect("a model")).collect()
    });
    assert!(snapshots.iter().all(|snapshot| *snapshot == snapshots[0]));
    assert_eq!(fs::read(snapshots[0].join(SHARD)).expect("the shard"), noise(300_000));
    let requests = bench.server.take_requests();
    let asked = format!("GET /cdn/{}", bench.server.etag(SHARD));
    assert_eq!(requests.iter().filter(|request| request.starts_with(&asked)).count(), 1, "{requests:#?}");
}

/// An address where nobody listens: somebody did a moment ago.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[test]
fn a_hub_that_is_not_there_is_asked_twice_and_one_in_trouble_as_often_as_settings_say() {
    let mut bench = Bench::new(repository());
    bench.settings.attempts = 6;
    let log = Log::default();
    bench.server.fault("GET", "/api/", 6, Fault::Status(503, ""));
    let (what, _) = network(&bench.fetch_of(REPO, &log).expect_err("trouble"));
    assert!(what.contains("tried 6 times in a row") && log.notes().len() == 5, "{what} {:?}", log.notes());

    bench.settings.endpoint = nobody();
    let log = Log::default();
    let (what, hint) = network(&bench.fetch_of(REPO, &log).expect_err("nobody"));
    assert!(what.contains("cannot be reached") && what.contains("tried 2 times in a row"), "{what}");
    assert!(hint.contains("HF_ENDPOINT"), "{hint}");
    assert!(log.notes().len() == 1 && log.notes()[0].contains("failure 1 of 2"), "{:?}", log.notes());

    bench.settings.endpoint = "http://no-such-host.invalid".into();
    let (what, _) = network(&bench.fetch().expect_err("no such name"));
    assert!(what.contains("cannot be reached") && what.contains("2 times"), "{what}");
}

#[test]
fn an_answer_in_words_is_shown() {
    let bench = Bench::new(repository());
    let cases = [
        (Fault::Instead(200, "<html><title>Log in to the network</title></html>"), "Log in to the network"),
        (Fault::Instead(200, "Invalid username or password."), "Invalid username or password."),
        (Fault::Instead(401, "Invalid username or password."), "HTTP 401 (Invalid username or password.)"),
        (Fault::Instead(403, r#"{"error":"Your storage is full"}"#), "HTTP 403 (Your storage is full)"),
        (Fault::Instead(418, "<html><h1>I'm a teapot</h1></html>"), "HTTP 418 (I'm a teapot)"),
    ];
    for (fault, says) in cases {
        bench.server.fault("GET", "/api/", 1, fault);
        let (what, _) = network(&bench.fetch().expect_err(says));
        assert!(what.contains(says), "{says}: {what}");
    }
}
