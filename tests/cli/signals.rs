//! Signals: what was ignored stays ignored, what was not ends the process, and a second one at once.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use crate::support::program::{Place, limit_files, small};

/// A run that takes longer than any test waits, where a signal must end it.
const LONG: [&str; 6] = ["--steps", "10000", "--checkpoint-every", "0", "-o", "x.png"];

fn send(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process");
    // SAFETY: a signal to a child that was not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// The program as whoever has these signals ignored starts it.
fn ignoring(place: &Place, signals: &'static [libc::c_int], args: &[&str]) -> Command {
    let mut command = place.command(&small(args));
    let ignore = move || {
        // SAFETY: async-signal-safe, and no handler that could run.
        signals.iter().for_each(|signal| unsafe {
            libc::signal(*signal, libc::SIG_IGN);
        });
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(ignore) };
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts it and waits until it denoises.
fn denoising(mut command: Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command.spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("denoise") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("text") > 0, "ended early");
    }
    (child, stderr)
}

fn rest(mut child: Child, mut stderr: BufReader<std::process::ChildStderr>) -> (ExitStatus, String) {
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("text");
    (child.wait().expect("ended"), text)
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    for signals in [&[libc::SIGHUP][..], &[libc::SIGINT], &[libc::SIGTERM], &[libc::SIGHUP, libc::SIGINT]] {
        let place = Place::new();
        let (child, stderr) = denoising(ignoring(&place, signals, &["--steps", "12", "-o", "x.png"]));
        signals.iter().for_each(|signal| send(&child, *signal));
        let (status, text) = rest(child, stderr);
        assert_eq!(status.code(), Some(0), "{signals:?}: {text}");
        assert!(place.path("x.png").is_file() && !text.contains("interrupted"), "{signals:?}: {text}");
    }
}

#[test]
fn the_others_end_it_as_ever() {
    for (ignored, signal) in [
        (&[][..], libc::SIGHUP),
        (&[][..], libc::SIGTERM),
        (&[libc::SIGHUP][..], libc::SIGINT),
        (&[libc::SIGINT][..], libc::SIGTERM),
    ] {
        let place = Place::new();
        let (child, stderr) = denoising(ignoring(&place, ignored, &LONG));
        send(&child, signal);
        let (status, text) = rest(child, stderr);
        assert_eq!(status.code(), Some(130), "{signal}: {text}");
        assert!(text.contains("interrupted; no partial picture"), "{text}");
        assert_eq!(place.names(), [""; 0]);
    }
}

/// A full pipe that nobody reads holds up the last words of the first interrupt.
#[test]
fn a_second_interrupt_ends_it_whatever_the_first_waits_for() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let place = Place::new();
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let mut command = place.command(&small(&LONG));
        command.stdout(Stdio::null()).stderr(writer.try_clone().expect("a second end"));
        let filled = fill(&mut writer);
        let mut child = command.spawn().expect("starts");
        drop(command);
        let ended = (0..600).find_map(|_| {
            send(&child, signal);
            thread::sleep(Duration::from_millis(50));
            child.try_wait().expect("a state")
        });
        if ended.is_none() {
            child.kill().expect("killed");
        }
        assert!(filled > 0);
        assert_eq!(ended.and_then(|status| status.signal()), Some(signal));
        drop(reader);
    }
}

/// Writes into a pipe until it takes no more.
fn fill(writer: &mut std::io::PipeWriter) -> usize {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; flags of a pipe's end are all that changes.
    let flags = |flags: libc::c_int| unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(flags(libc::O_NONBLOCK), 0);
    let mut filled = 0;
    while let Ok(count) = (&*writer).write(&[b' '; 4096]) {
        filled += count;
    }
    assert_eq!(flags(0), 0);
    filled
}

/// As under `ulimit -f` in a shell that leaves the signal as it is.
#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_end_by_a_signal() {
    let place = Place::new();
    let mut command = place.command(&small(&["-o", "x.png"]));
    limit_files(&mut command, 8000);
    let run = crate::support::program::Run::from(command.output().expect("starts"));
    run.fails(1, &["cannot write x.png"]);
    assert_eq!(place.names(), [".dype"], "what was denoised stays");
}
