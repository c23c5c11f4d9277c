//! Runs that ended without a word: the next one says so, how far they had come, and what to try.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
};

use crate::{
    arguments, dype, names,
    support::{
        fixture,
        program::{Place, rgb8},
    },
};

const LAKE: [&str; 6] = ["--prompt", "a lake", "--steps", "8", "-o", "x/a.png"];

/// Runs until the second step is done, then does this to it, and waits for its end.
fn ended_by(place: &Place, args: &[&str], end: impl FnOnce(&mut std::process::Child)) -> ExitStatus {
    let mut command = place.command(&arguments(&[&LAKE[..], args].concat()));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let told = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    assert!(told.map_while(Result::ok).any(|line| line.contains("step 2/8")));
    end(&mut child);
    child.wait().expect("ended")
}

/// The next run tells of it once, and the picture is the one of a run that nothing ended.
#[track_caller]
fn is_told_and_made_good(place: &Place, args: &[&str]) {
    let next = dype(place, &[&LAKE[..], args, &["--resume"]].concat());
    next.succeeds().tells(&[
        "ended without a word after step",
        "of 8",
        "--memory",
        "--weights stream",
        "going on after",
    ]);
    assert_eq!(next.stderr.matches("without a word").count(), 1, "{}", next.stderr);
    assert_eq!(names(&place.path("x")), ["a.png"]);
    let whole = Place::new();
    dype(&whole, &LAKE).succeeds();
    assert!(rgb8(&place.path("x/a.png")) == rgb8(&whole.path("x/a.png")));
    let quiet = dype(place, &[&LAKE[..], args, &["--resume"]].concat());
    assert!(!quiet.succeeds().stderr.contains("without a word"), "{}", quiet.stderr);
}

/// As the kernel does when memory runs out.
#[test]
fn a_killed_run_is_told_of() {
    let place = Place::new();
    let status = ended_by(&place, &[], |child| child.kill().expect("killed"));
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    is_told_and_made_good(&place, &[]);
}

#[test]
fn a_run_whose_model_was_cut_is_told_of() {
    let place = Place::new();
    crate::support::copy_folder(&fixture("tiny-flux"), &place.path("m"));
    let flags = ["--model", "m", "--weights", "stream"];
    let shard = |place: &Place| place.path("m/transformer/diffusion_pytorch_model-00001-of-00003.safetensors");
    let whole = fs::read(shard(&place)).expect("readable");
    let status = ended_by(&place, &flags, |_| {
        OpenOptions::new().write(true).open(shard(&place)).expect("opened").set_len(4096).expect("cut");
    });
    assert_eq!(status.signal(), Some(libc::SIGBUS));
    // In its place, as a copy that keeps its times would be.
    fs::write(shard(&place), whole).expect("mended");
    let next = dype(&place, &[&LAKE[..], &flags, &["--resume"]].concat());
    next.succeeds().tells(&["ended without a word after step", "or a file of the model was cut"]);
}

#[test]
fn a_run_that_ended_with_a_word_is_not_told_of() {
    let place = Place::new();
    let status = ended_by(&place, &[], |child| {
        let pid = libc::pid_t::try_from(child.id()).expect("a process");
        // SAFETY: a signal to a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    });
    assert_eq!(status.code(), Some(130));
    let next = dype(&place, &[&LAKE[..], &["--resume"]].concat());
    next.succeeds().tells(&["going on after step"]);
    assert!(!next.stderr.contains("without a word"), "{}", next.stderr);
}

#[test]
fn a_run_in_another_process_is_alive() {
    let place = Place::new();
    ended_by(&place, &[], |child| {
        let beside = dype(&place, &["--prompt", "a hill", "-o", "x/b.png"]);
        assert!(!beside.succeeds().stderr.contains("without a word"), "{}", beside.stderr);
        child.kill().expect("killed");
    });
}
