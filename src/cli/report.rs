//! The only writer to the terminal: results to stdout, everything else to stderr.

use std::{
    io::{ErrorKind, IsTerminal, Write},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::OutputArgs;
use crate::{
    base::memory::Bytes,
    base::printable::printable,
    base::progress::{Event, Observer, Stage},
};

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// A line for each stage, and bars.
    Normal,
    /// Details of model and plan too.
    Verbose,
}

impl Verbosity {
    /// From `--quiet` and `--verbose`.
    pub fn of(args: &OutputArgs) -> Self {
        match (args.quiet, args.verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Normal,
            (false, _) => Self::Verbose,
        }
    }
}

/// Without a terminal, a long stage is told about at most this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Whether the run is interrupted: nothing is told from then on but its last words. Read under stderr's lock, which they take too.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on nothing is told but [`Report::interrupted`]: the work goes on for a moment after an interrupt.
pub fn silence() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Writes to the terminal for the whole program.
pub struct Report {
    verbosity: Verbosity,
    is_terminal: bool,
    colors: bool,
    stage: Mutex<Option<Running>>,
    /// A result did not reach stdout.
    lost: AtomicBool,
}

/// The stage that is being worked on.
struct Running {
    stage: Stage,
    total: u64,
    /// Units that an earlier run did: they took this one no time.
    before: u64,
    started: Instant,
    last_plain: Instant,
    bar: Option<ProgressBar>,
}

impl Report {
    /// A reporter for this process's stderr.
    pub fn new(verbosity: Verbosity) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self {
            verbosity,
            is_terminal: is_terminal && !dumb,
            colors: is_terminal && !no_color && !dumb,
            stage: Mutex::default(),
            lost: AtomicBool::new(false),
        }
    }

    /// A result: one line on stdout. A closed pipe is no error: its reader has seen enough.
    pub fn result(&self, line: &str) {
        self.bytes(line.as_bytes());
    }

    /// A path as a result: its own bytes, so that whoever reads it finds the file, whatever its name is made of.
    pub fn path(&self, path: &Path) {
        self.bytes(path.as_os_str().as_encoded_bytes());
    }

    fn bytes(&self, line: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(line).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                self.lost.store(true, Ordering::Relaxed);
                self.error(&anyhow::Error::new(error).context("cannot write to stdout"));
            }
            _ => {}
        }
    }

    /// Whether a result could not be written to stdout.
    pub fn has_lost_results(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A detail that is told with `--verbose` only.
    pub fn detail(&self, line: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.line(line);
        }
    }

    /// An error with its causes and its hint.
    pub fn error(&self, error: &anyhow::Error) {
        let mut told = printable(&error.to_string());
        self.raw(&format!("{} {told}", self.paint("1;31", "error:")));
        for cause in error.chain().skip(1).map(|cause| printable(&cause.to_string())) {
            // Some messages end in their cause already.
            if !told.ends_with(&cause) {
                self.raw(&format!("  {} {cause}", self.paint("1", "Caused by:")));
            }
            told = cause;
        }
        let hint = error.chain().find_map(|cause| cause.downcast_ref::<crate::Error>()).and_then(crate::Error::hint);
        if let Some(hint) = hint {
            self.raw(&format!("{} {}", self.paint("1;36", "hint:"), printable(&hint)));
        }
    }

    /// That one picture of several failed; the run goes on.
    pub fn failure(&self, which: &str, error: &crate::Error) {
        let told = printable(&format!("{which}: {error}"));
        self.raw(&format!("{} {told}", self.paint("1;31", "error:")));
        if let Some(hint) = error.hint() {
            self.raw(&format!("{} {}", self.paint("1;36", "hint:"), printable(&hint)));
        }
    }

    /// The last words of an interrupted run. The bar's line is left first.
    pub fn interrupted(&self, left: &str) {
        let start = if self.is_terminal { "\r\x1b[K" } else { "" };
        let mut stderr = std::io::stderr().lock();
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(stderr, "{start}interrupted; {left}");
    }

    /// A line that `--quiet` leaves out.
    pub fn line(&self, line: &str) {
        self.unless_quiet(&printable(line));
    }

    fn unless_quiet(&self, line: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.raw(line);
        }
    }

    fn raw(&self, line: &str) {
        let running = self.lock();
        let print = || {
            let mut stderr = std::io::stderr().lock();
            if !INTERRUPTED.load(Ordering::SeqCst) {
                // A closed stderr leaves nobody to tell.
                let _ = writeln!(stderr, "{line}");
            }
        };
        match running.as_ref().and_then(|running| running.bar.as_ref()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn begin(&self, stage: Stage, total: u64) {
        let bar = (self.is_terminal && self.verbosity > Verbosity::Quiet).then(|| new_bar(stage, total));
        let now = Instant::now();
        let ended = self.lock().replace(Running { stage, total, before: 0, started: now, last_plain: now, bar });
        // A stage that begins again, or that failed, has a bar on its line.
        ended.and_then(|running| running.bar).into_iter().for_each(|bar| bar.finish_and_clear());
    }

    fn advance(&self, stage: Stage, done: u64, detail: String) {
        let mut guard = self.lock();
        let Some(running) = guard.as_mut().filter(|running| running.stage == stage) else { return };
        if let Some(bar) = &running.bar {
            bar.set_message(match stage {
                Stage::Denoise => {
                    format!("{}  {detail}", pace(running.started.elapsed(), done.saturating_sub(running.before)))
                }
                _ => detail,
            });
            bar.set_position(done);
            return;
        }
        let is_due = stage == Stage::Denoise || running.last_plain.elapsed() >= PLAIN_INTERVAL;
        if !is_due || done == 0 {
            return;
        }
        running.last_plain = Instant::now();
        let line = plain_line(running, done, &detail);
        drop(guard);
        self.line(&line);
    }

    fn resume(&self, stage: Stage, done: u64) {
        let mut guard = self.lock();
        let Some(running) = guard.as_mut().filter(|running| running.stage == stage) else { return };
        running.before = done;
        if let Some(bar) = &running.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    fn end(&self, stage: Stage, detail: &str) {
        let Some(running) = self.lock().take() else { return };
        if let Some(bar) = &running.bar {
            bar.finish_and_clear();
        }
        self.line(&format!("{:<9} {detail}, {}", name(stage), seconds(running.started.elapsed())));
    }
}

impl Observer for Report {
    fn on(&self, event: Event) {
        match event {
            Event::Begin { stage, total } => self.begin(stage, total),
            Event::Resume { stage, done } => self.resume(stage, done),
            Event::Advance { stage, done, detail } => self.advance(stage, done, detail),
            Event::End { stage, detail } => self.end(stage, &detail),
            Event::Detail(text) => self.detail(&text),
            Event::Note(text) => self.unless_quiet(&format!("{} {}", self.paint("1", "note:"), printable(&text))),
            Event::Warning(text) => {
                self.unless_quiet(&format!("{} {}", self.paint("1;33", "warning:"), printable(&text)));
            }
        }
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Download => "download",
        Stage::Text => "text",
        Stage::Encode => "encode",
        Stage::Denoise => "denoise",
        Stage::Decode => "decode",
        Stage::Convert => "convert",
    }
}

fn new_bar(stage: Stage, total: u64) -> ProgressBar {
    let template = match stage {
        Stage::Download => "download  {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}  {wide_msg}",
        Stage::Denoise => "denoise   {bar:18} {pos}/{len}  ETA {eta}  {wide_msg}",
        Stage::Encode => "encode    {bar:24} {percent}%  ETA {eta}  {wide_msg}",
        Stage::Decode => "decode    {bar:24} {percent}%  ETA {eta}  {wide_msg}",
        Stage::Convert => "convert   {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}  {wide_msg}",
        Stage::Text => "text      {bar:24} {percent}%  {wide_msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn plain_line(running: &Running, done: u64, detail: &str) -> String {
    let elapsed = running.started.elapsed();
    let now = done.saturating_sub(running.before);
    let left = eta(elapsed, now, running.total.saturating_sub(running.before));
    let stage = name(running.stage);
    match running.stage {
        Stage::Denoise => {
            format!("{stage:<9} step {done}/{}  {}  ETA {left}  {detail}", running.total, pace(elapsed, now))
        }
        Stage::Download | Stage::Convert => {
            let rate = Bytes((done as f64 / elapsed.as_secs_f64().max(1e-3)) as u64);
            format!("{stage:<9} {} of {}  {rate}/s  ETA {left}  {detail}", Bytes(done), Bytes(running.total))
        }
        Stage::Text | Stage::Encode | Stage::Decode => {
            format!("{stage:<9} {:.0}%  ETA {left}", 100.0 * done as f64 / running.total.max(1) as f64)
        }
    }
}

/// Seconds a step so far.
fn pace(elapsed: Duration, done: u64) -> String {
    if done == 0 { String::new() } else { format!("{}/step", seconds(elapsed.div_f64(done as f64))) }
}

fn eta(elapsed: Duration, done: u64, total: u64) -> String {
    if done == 0 {
        return "?".into();
    }
    seconds(elapsed.mul_f64(total.saturating_sub(done) as f64 / done as f64))
}

/// A number of steps.
pub fn steps(count: usize) -> String {
    if count == 1 { "1 step".into() } else { format!("{count} steps") }
}

/// A duration as people read it: `0.3 s`, `41 s`, `2 min 05 s`, `3 h 10 min`.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    let whole = s.round() as u64;
    match whole {
        0..10 => format!("{s:.1} s"),
        10..100 => format!("{whole} s"),
        100..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [(0.31, "0.3 s"), (9.4, "9.4 s"), (41.2, "41 s"), (125.0, "2 min 05 s"), (11_400.0, "3 h 10 min")];
        for (s, text) in cases {
            assert_eq!(seconds(Duration::from_secs_f64(s)), text);
        }
    }

    #[test]
    fn what_is_left_follows_from_what_was_done() {
        assert_eq!(eta(Duration::from_secs(20), 1, 4), "60 s");
        assert_eq!(eta(Duration::from_secs(20), 0, 4), "?");
    }
}
