//! Ctrl-C and the signals that ask a process to end.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use super::report::{self, Report, Verbosity};
use crate::output;

/// Exit code of a run that was interrupted: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Whoever ends the process holds this and never lets go of it: a run that has come to its end, or a signal. The other waits for the
/// end, so that an exit code and the last words always belong together.
static END: Mutex<()> = Mutex::new(());

/// From here on, SIGINT, SIGTERM and SIGHUP end the process within a moment, with last words and no partial file left behind; a second
/// one ends it at once, whatever the first still waits for. `left` is what the last words say of what is left. A signal that whoever
/// started the process had it ignore (SIGHUP under nohup, SIGINT in the background of a script) stays ignored.
///
/// # Errors
/// When the system takes no handler.
pub fn handle(left: &'static str) -> anyhow::Result<()> {
    let _ignored = system::Ignored::now();
    ctrlc::set_handler(move || {
        system::end_at_once_next_time();
        claim_end();
        // What fails for want of the files that go now is not worth telling.
        report::silence();
        output::remove_temporary_files();
        Report::new(Verbosity::Normal).interrupted(left);
        std::process::exit(INTERRUPTED);
    })?;
    Ok(())
}

/// The work is done and the process about to end: a signal that comes now finds nothing to interrupt. Where one came before, it ends
/// the process, and this does not return.
pub fn claim_end() {
    mem::forget(END.lock().unwrap_or_else(PoisonError::into_inner));
}

#[cfg(unix)]
mod system {
    use std::{mem::MaybeUninit, ptr};

    /// The signals that are handled.
    const HANDLED: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

    /// The signals among them that are ignored, kept away while handlers are set: they are ignored again when this goes.
    pub struct Ignored {
        signals: Vec<libc::c_int>,
    }

    impl Ignored {
        /// Those of this moment. A file that outgrows its limit (`ulimit -f`) becomes an error of its writer here too, not the
        /// end of the process with half a file on the disk.
        pub fn now() -> Self {
            ignore(libc::SIGXFSZ);
            let ignored = Self { signals: HANDLED.into_iter().filter(|signal| is_ignored(*signal)).collect() };
            ignored.mask(libc::SIG_BLOCK);
            ignored
        }

        /// Keeps the signals from the process, or lets them through.
        fn mask(&self, how: libc::c_int) {
            let mut set = MaybeUninit::uninit();
            // SAFETY: `sigemptyset` fills the set before anything reads it; the old mask is not asked for.
            unsafe {
                libc::sigemptyset(set.as_mut_ptr());
                for signal in &self.signals {
                    libc::sigaddset(set.as_mut_ptr(), *signal);
                }
                libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut());
            }
        }
    }

    impl Drop for Ignored {
        fn drop(&mut self) {
            self.signals.iter().for_each(|signal| ignore(*signal));
            self.mask(libc::SIG_UNBLOCK);
        }
    }

    fn is_ignored(signal: libc::c_int) -> bool {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: without a new action this only reads the old one, into memory that is read where the call succeeded.
        unsafe {
            libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    }

    fn ignore(signal: libc::c_int) {
        // SAFETY: no handler is set that could run.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }

    /// Gives the signals that are handled back to the system, which ends the process.
    pub fn end_at_once_next_time() {
        for signal in HANDLED.into_iter().filter(|signal| !is_ignored(*signal)) {
            // SAFETY: no handler is set that could run.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::{thread, time::Duration};

    /// Nothing is ignored here before a program asks for it.
    pub struct Ignored;

    impl Ignored {
        /// None.
        pub fn now() -> Self {
            Self
        }
    }

    /// A second interrupt waits here until the first is dealt with, so that one may not take long.
    pub fn end_at_once_next_time() {
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(2));
            std::process::abort();
        });
    }
}
