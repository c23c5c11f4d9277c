//! A disk that takes no more: what was computed is kept as far as there is room, and a rerun finishes.
//!
//! The limit on the size of a file stands for the disk: a write beyond it fails in the middle of a file, as on a full disk.

use std::{os::unix::process::CommandExt, process::Stdio};

use crate::{
    arguments, batch, dype, files, lines, names, pictures, place,
    support::program::{Place, Run, limit_files},
};

/// The program where no file can grow beyond `most` bytes.
fn limited(place: &Place, args: &[&str], most: u64) -> Run {
    let mut command = place.command(&arguments(args));
    limit_files(&mut command, most);
    let ignore = || {
        // SAFETY: async-signal-safe, and touches nothing but this new process.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(ignore) };
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("starts").into()
}

#[test]
fn a_full_disk_loses_nothing_and_a_rerun_finishes() {
    let roomy = place();
    dype(&roomy, &batch(&["-o", "x/"])).succeeds();
    let expected = pictures(&roomy.path("x"));

    // A checkpoint of 16 tokens takes 5 kB, a picture more than 8 kB.
    let place = place();
    let run = limited(&place, &batch(&["-o", "x/"]), 8_000);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    run.tells(&["cannot write x/seed_1_", "6 of 6 pictures could not be made", "--resume"]);
    assert_eq!(names(&place.path("x")), [".dype"], "no partial picture and no temporary file");
    assert_eq!(files(&place.path("x/.dype")).len(), 6, "the latents of every picture");

    let rerun = dype(&place, &batch(&["-o", "x/", "--resume"]));
    rerun.succeeds().tells(&["going on after step 3 of 3"]);
    assert!(!rerun.stderr.contains("denoise"), "only decoded: {}", rerun.stderr);
    assert_eq!(pictures(&place.path("x")), expected);
    assert_eq!(names(&place.path("x")).len(), 6);
}

#[test]
fn a_checkpoint_that_finds_no_room_does_not_end_the_run() {
    let place = place();
    let run = limited(&place, &batch(&["-o", "x/"]), 1_000);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr.matches("no checkpoint could be kept").count(), 1, "told once: {}", run.stderr);
    run.tells(&["free some space", "step 3/3"]);
    dype(&place, &batch(&["-o", "x/", "--resume"])).succeeds();
    assert_eq!(names(&place.path("x")).len(), 6);
}

#[test]
fn one_failing_picture_does_not_stop_the_others() {
    let place = Place::new();
    let line = |name: &str, side: usize| {
        format!("{{\"prompt\": \"a lake\", \"width\": {side}, \"height\": {side}, \"output\": \"x/{name}.png\"}}\n")
    };
    let prompts = [line("a", 16), line("b", 96), line("c", 32)].concat();
    std::fs::write(place.path("p.jsonl"), prompts).expect("written");
    let run = limited(&place, &["--prompts", "p.jsonl"], 14_000);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(lines(&run), ["x/a.png", "x/c.png"]);
    run.tells(&["error: p.jsonl line 2, seed 42: a lake: cannot write x/b.png", "1 of 3 pictures could not be made"]);
    let again = dype(&place, &["--prompts", "p.jsonl", "--resume"]);
    assert_eq!(lines(again.succeeds()), ["x/a.png", "x/c.png", "x/b.png"]);
    again.tells(&["after step 1 of 1"]);
    assert_eq!(names(&place.path("x")), ["a.png", "b.png", "c.png"]);
}
