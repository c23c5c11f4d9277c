//! A conversion that is interrupted, or whose disk is full.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
    thread,
    time::Duration,
};

use crate::{
    FILE, convert, path,
    support::program::{Place, limit_files},
};

#[test]
fn an_interrupted_conversion_leaves_nothing_behind_and_says_so() {
    for (signal, code) in [(libc::SIGINT, Some(130)), (libc::SIGTERM, Some(130)), (libc::SIGKILL, None)] {
        let place = Place::new();
        interrupt(&place, signal, code, Duration::ZERO);
        // What a process left that was killed goes when the next one writes there.
        convert(&place, &path(FILE), "x.gguf", "q8_0", &[]).succeeds();
        assert_eq!(place.names(), ["x.gguf"]);
    }
}

/// The file is created, written and named while its removal goes on: whatever of it fails, the interrupt has the last word.
#[test]
fn an_interrupt_at_any_moment_has_the_last_word() {
    for moment in 0..24 {
        interrupt(&Place::new(), libc::SIGINT, Some(130), Duration::from_micros(100 * moment));
    }
}

/// Sends a signal this long after the note that comes before the file is begun, and holds the end to its exit code and words.
fn interrupt(place: &Place, signal: libc::c_int, code: Option<i32>, after: Duration) {
    let mut command = place.command(&["convert", "demo", "-o", "x.gguf", "--type", "q2_k"]);
    // One slow thread: the note is there long before the file's end.
    command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut text = String::new();
    assert!(stderr.read_line(&mut text).expect("text") > 0);
    assert!(text.contains("kept, for their rows"), "{text}");
    thread::sleep(after);
    let pid = libc::pid_t::try_from(child.id()).expect("a process");
    // SAFETY: a signal to a child that was not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    stderr.read_to_string(&mut text).expect("text");
    assert_eq!(child.wait().expect("ended").code(), code, "after {after:?}: {text}");
    if code.is_some() {
        assert!(text.ends_with("interrupted; no partial file was left behind\n"), "after {after:?}: {text}");
        assert_eq!(text.lines().count(), 2, "after {after:?}: {text}");
        assert_eq!(place.names(), [""; 0]);
    }
}

#[test]
fn a_file_that_outgrows_its_limit_is_told_of_and_not_there() {
    let place = Place::new();
    let mut command = place.command(&["convert", &path(FILE), "-o", "x.gguf", "--type", "q8_0"]);
    limit_files(&mut command, 1 << 20);
    let run: crate::Run = command.output().expect("the program starts").into();
    run.fails(1, &["cannot write", "x.gguf", "ulimit -f"]);
    assert_eq!(place.names(), [""; 0]);
}
