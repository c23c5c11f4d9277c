//! What is told, to whom, and what happens when nobody listens.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
};

use crate::support::program::{Place, small};

#[test]
fn each_stage_is_one_line_with_its_time() {
    let place = Place::new();
    let run = place.small(&["--height", "48"]);
    let lines: Vec<_> = run.succeeds().stderr.lines().filter(|line| line.ends_with(" s")).collect();
    let starts = ["text      32 tokens, ", "denoise   1 step, ", "decode    48 x 64 px, "];
    assert_eq!(lines.len(), starts.len(), "{}", run.stderr);
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn quiet_says_nothing_but_errors() {
    let place = Place::new();
    let run = place.small(&["-q", "--height", "33", "--prompt", &"reeds and herons ".repeat(30)]);
    assert_eq!(run.succeeds().stderr, "", "neither stages nor notes nor warnings");
    assert!(run.stdout.ends_with(".png\n"));
    place.small(&["-q", "-o", "x.gif"]).fails(2, &[".gif"]);
}

#[test]
fn verbose_tells_the_plan() {
    let place = Place::new();
    let usual = place.small(&[]).stderr.lines().count();
    let run = place.small(&["-v"]);
    assert!(run.succeeds().stderr.lines().count() > usual + 5, "{}", run.stderr);
    run.tells(&["weights    transformer", "memory     text", "budget"]);
}

#[test]
fn plain_lines_when_stderr_is_no_terminal() {
    let place = Place::new();
    let run = place.small(&["-v", "--steps", "3", "--height", "33"]);
    assert!(run.succeeds().stderr.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", run.stderr);
}

/// What a terminal gets to see of a run.
#[cfg(unix)]
fn on_a_terminal(place: &Place, args: &[&str], no_color: bool) -> String {
    use std::{
        fs::File,
        os::fd::{FromRawFd, OwnedFd},
    };
    let (mut master, mut slave) = (0, 0);
    let no = std::ptr::null_mut();
    // SAFETY: both numbers are written by openpty; name, settings and size may be null.
    assert_eq!(unsafe { libc::openpty(&raw mut master, &raw mut slave, no, no.cast(), no.cast()) }, 0);
    // SAFETY: openpty succeeded, and each descriptor has this one owner.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let mut command = place.command(&small(args));
    command.stderr(slave).stdout(Stdio::null()).env("TERM", "xterm");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let mut child = command.spawn().expect("the program starts");
    drop(command); // its end of the terminal: reading ends when the last is closed
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    // A terminal whose other end is closed gives an error instead of an end.
    while let Ok(count @ 1..) = master.read(&mut chunk) {
        seen.extend(&chunk[..count]);
    }
    child.wait().expect("ended");
    String::from_utf8_lossy(&seen).into_owned()
}

#[cfg(unix)]
#[test]
fn a_terminal_gets_bars_and_colours_unless_no_color_is_set() {
    let place = Place::new();
    let seen = on_a_terminal(&place, &["--steps", "3"], false);
    assert!(seen.contains("denoise   [=") || seen.contains("denoise   ="), "a bar: {seen:?}");
    assert!(seen.contains("\u{1b}[1mnote:\u{1b}[0m"), "{seen:?}");
    assert!(!seen.contains("step 1/3"), "no plain lines: {seen:?}");
    let seen = on_a_terminal(&place, &["--height", "33"], true);
    assert!(seen.contains("note: 33 x 64") && !seen.contains("\u{1b}[1m"), "{seen:?}");
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let place = Place::new();
    let mut command = place.command(&["inspect", "--json", "--steps", "200"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take()); // before the program has written its megabyte
    let ended = child.wait_with_output().expect("ended");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned()), (Some(0), String::new()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let ended = place.command(&["inspect"]).stdout(full).output().expect("the program starts");
    assert_eq!(ended.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(stderr.contains("error: cannot write to stdout") && stderr.contains("No space left"), "{stderr}");
}

#[test]
fn nobody_listening_on_stderr_is_no_failure() {
    let place = Place::new();
    let mut command = place.command(&small(&["-v"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stderr.take());
    let ended = child.wait_with_output().expect("ended");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "outputs/seed_42_method_dy_yarn_res_64x64.png\n");
    let mut child = place.command(&["--bogus"]).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("ended").code(), Some(2));
}

/// Runs until a line of stderr holds this word.
fn until(child: &mut Child, word: &str) -> String {
    let mut lines = BufReader::new(child.stderr.as_mut().expect("a pipe")).lines();
    lines.find_map(|line| line.ok().filter(|line| line.contains(word))).expect("the word comes")
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_at_once_and_leaves_nothing() {
    let place = Place::new();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command =
            place.command(&small(&["--steps", "10000", "-o", "x.png", "--save-latents", "x.safetensors"]));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        until(&mut child, "step 2/");
        let id = i32::try_from(child.id()).expect("a process id");
        // SAFETY: a signal to the child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
        let mut rest = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut rest).expect("text");
        let ended = child.wait_with_output().expect("ended");
        let step = |line: &str| line.split("step ").nth(1)?.split('/').next()?.parse::<usize>().ok();
        assert!(rest.lines().filter_map(step).all(|step| step < 1000), "it went on: {rest}");
        assert_eq!(ended.status.code(), Some(130));
        assert_eq!(ended.stdout, b"");
        let last = "interrupted; no partial picture was left behind, and --resume goes on from the last checkpoint\n";
        assert!(rest.ends_with(last), "{rest}");
        assert_eq!(place.names(), [".dype"], "its checkpoint, and nothing else");
    }
}
