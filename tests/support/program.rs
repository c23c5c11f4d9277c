//! The binary as a process: what it is given, and what comes back.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::fixture;

/// An empty folder to run the program in.
pub struct Place(tempfile::TempDir);

/// How a run ended.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with these arguments, in this folder, untouched by the caller's settings.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dype"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        for name in ["NO_COLOR", "TERM", "HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE"] {
            command.env_remove(name);
        }
        // What a busy machine measures may differ from run to run, and pictures in bf16 with it.
        command.env("DYPE_BF16_PAIRS", "on");
        // Nothing is fetched but by tests that play the Hub, and nobody's cache is looked into.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-hf-home"));
        // Speeds of these runs are nobody's; a stack trace in any message would be seen.
        command.env("DYPE_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/dype-cache")).env("RUST_BACKTRACE", "1");
        // What a run is planned to take follows the threads: the same on every machine.
        command.env("RAYON_NUM_THREADS", "2");
        #[cfg(unix)]
        usual_signals(&mut command);
        command
    }

    pub fn dype<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        self.command(args).output().expect("the program starts").into()
    }

    /// A picture by tiny-flux of 64 x 64 px in one step; flags given here come last and win.
    pub fn small(&self, args: &[&str]) -> Run {
        self.dype(&small(args))
    }

    /// The same, given this on stdin.
    pub fn small_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(&small(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("a pipe").write_all(input).expect("the program reads");
        child.wait_with_output().expect("the program ends").into()
    }

    /// The pixels of a picture that the same flags make anew.
    pub fn pixels(&self, args: &[&str]) -> Vec<u8> {
        let run = self.small(args);
        run.succeeds();
        rgb8(&self.path(run.stdout.trim_end()))
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Signals as a terminal has them: tests that run in the background of a script inherit SIGINT ignored.
#[cfg(unix)]
fn usual_signals(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let reset = || {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: async-signal-safe, and no handler that could run.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(reset) };
}

/// The arguments of [`Place::small`].
pub fn small(args: &[&str]) -> Vec<String> {
    let model = fixture("tiny-flux").display().to_string();
    let fixed = ["--model", &model, "--height", "64", "--width", "64", "--steps", "1", "--device", "cpu"];
    let text = ["--prompt", "a lake", "--max-sequence-length", "32"];
    fixed.iter().chain(&text).chain(args).map(|word| (*word).to_owned()).collect()
}

/// The command, where no file of its process may grow beyond `most` bytes: as on a full disk, a write fails in the middle of a file.
#[cfg(unix)]
pub fn limit_files(command: &mut Command, most: libc::rlim_t) {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: async-signal-safe, and touches nothing but this new process.
        match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(limit) };
}

/// The pixels of a picture.
pub fn rgb8(path: &Path) -> Vec<u8> {
    image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).to_rgb8().into_raw()
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Run {
    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self
    }

    /// It ended with this code, one error and one hint, which hold all of these words, and nothing on stdout.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> &Self {
        let stderr = &self.stderr;
        assert_eq!(self.code, Some(code), "{stderr}");
        assert_eq!(self.stdout, "", "{stderr}");
        for lead in ["error: ", "hint: "] {
            assert_eq!(stderr.lines().filter(|line| line.starts_with(lead)).count(), 1, "{lead}: {stderr}");
        }
        for never in ["panicked", ".rs:", "RUST_BACKTRACE", "Usage:", "\u{1b}"] {
            assert!(!stderr.contains(never), "{never:?}: {stderr}");
        }
        self.tells(words)
    }

    /// It ended well, and told nothing but notes.
    #[track_caller]
    pub fn only_notes(&self) -> &Self {
        self.succeeds();
        assert!(self.stderr.lines().all(|line| line.starts_with("note: ")), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn tells(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        self
    }
}
