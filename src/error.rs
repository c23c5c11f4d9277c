//! The library's one error type: what went wrong, what to do about it, and the exit code it deserves.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// A result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. `Display` says what was asked and what was found; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request makes no sense, whatever the machine: an impossible size, an unknown option.
    #[error("{what}")]
    Request {
        /// What was asked and why it cannot be.
        what: String,
        /// What to ask instead.
        hint: String,
    },
    /// A model's files are missing, broken, or of another kind than asked for.
    #[error("{what}")]
    Model {
        /// Which file, what was expected and what was found.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The run does not fit into the memory it may use.
    #[error("{what}")]
    Memory {
        /// What is needed and what there is.
        what: String,
        /// What would fit.
        hint: String,
    },
    /// The Hub, or the way to it, failed.
    #[error("{what}")]
    Network {
        /// What was fetched and what came back.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A file or folder could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    Disk {
        /// What was tried, for example "cannot write".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written where it should be, and was kept in another place: nothing that was made is lost.
    #[error("{error}; what was made is kept as {}", kept.display())]
    KeptElsewhere {
        /// Why it is not where it should be.
        error: Box<Error>,
        /// Where it is.
        kept: PathBuf,
    },
    /// A number that is not finite, where only finite numbers make sense.
    #[error("{what}")]
    Numeric {
        /// Where it appeared.
        what: String,
        /// What to try.
        hint: String,
    },
    /// Some pictures of a run could not be made; each was told of as it failed.
    #[error("{what}")]
    Unfinished {
        /// How many of how many.
        what: String,
        /// What to do about them.
        hint: String,
    },
    /// A tensor operation failed: a bug of ours, or a device that gave up.
    #[error("{}", without_backtrace(.0))]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for Error {
    /// Not its source: what it says is said already, and it would say it again with a call stack.
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}

impl Error {
    /// A request that makes no sense (exit code 2).
    pub fn request(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Request { what: what.into(), hint: hint.into() }
    }

    /// A model whose files are missing, broken or of another kind.
    pub fn model(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Model { what: what.into(), hint: hint.into() }
    }

    /// A file or folder that could not be read or written; `what` completes "… PATH: reason".
    pub fn disk(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Disk { what, path: path.to_path_buf(), source }
    }

    /// The same error about a model, with the file it was found in.
    #[must_use]
    pub(crate) fn in_file(self, file: &str) -> Self {
        match self {
            Self::Model { what, hint } => Self::Model { what: format!("{file}: {what}"), hint },
            other => other,
        }
    }

    /// What the user can do about it, when there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Request { hint, .. }
            | Self::Model { hint, .. }
            | Self::Memory { hint, .. }
            | Self::Network { hint, .. }
            | Self::Unfinished { hint, .. }
            | Self::Numeric { hint, .. } => (!hint.is_empty()).then(|| hint.clone()),
            Self::Disk { source, .. } => disk_hint(source.kind()).map(str::to_owned),
            Self::KeptElsewhere { error, .. } => {
                let why = error.hint().map_or_else(String::new, |hint| format!("; for the next run, {hint}"));
                Some(format!("move it from there to where it should be{why}"))
            }
            Self::Tensor(_) if self.is_out_of_memory() => Some(
                "close what else uses the device, set --memory to less than --dry-run plans, add --weights stream, or \
                 ask for a smaller picture"
                    .into(),
            ),
            Self::Tensor(_) => Some(
                "either the device gave up (for want of memory?) or this is a bug in dype: please report it with the \
                 command line"
                    .into(),
            ),
        }
    }

    /// Whether a device had no room for a tensor.
    pub fn is_out_of_memory(&self) -> bool {
        /// The names the CUDA driver and cuBLAS have for it, and Metal's message.
        const NAMES: [&str; 3] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory"];
        let Self::Tensor(error) = self else { return false };
        let text = error.to_string();
        NAMES.iter().any(|name| text.contains(name))
    }

    /// The process exit code: 2 for a request that makes no sense, 1 for a run that could not be done.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Request { .. } => 2,
            _ => 1,
        }
    }
}

/// What to do about a file or folder that the system refuses.
fn disk_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space, or choose another folder with --output or HF_HOME")
        }
        ErrorKind::FileTooLarge => Some("raise the limit on the size of a file (ulimit -f), or choose another disk"),
        ErrorKind::OutOfMemory => Some(
            "this process may not take that much memory: raise its limits (ulimit -v, which mapped files count against too, and \
             ulimit -d), or ask for a smaller picture",
        ),
        ErrorKind::InvalidFilename => Some("name it shorter"),
        ErrorKind::BrokenPipe => Some("see why whoever reads the picture ended first"),
        ErrorKind::PermissionDenied => Some("choose another place, or change the permissions of this one"),
        ErrorKind::ReadOnlyFilesystem => Some("this disk cannot be written to; choose a folder on another one"),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            Some("a file is where a folder should be; choose another folder, or move that file away")
        }
        ErrorKind::IsADirectory => Some("this is a folder; name a file in it"),
        ErrorKind::NotFound => Some("check the path"),
        _ => None,
    }
}

/// What went wrong without the call stack, which candle appends where RUST_BACKTRACE is set: it tells users nothing.
fn without_backtrace(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_senseless_requests_exit_with_2() {
        assert_eq!(Error::request("width 0", "at least 16").exit_code(), 2);
        assert_eq!(Error::model("no such folder", "").exit_code(), 1);
        let full = Error::disk("cannot write", Path::new("x.png"), ErrorKind::StorageFull.into());
        assert_eq!(full.exit_code(), 1);
        assert!(full.hint().expect("a full disk has a hint").contains("space"));
    }

    #[test]
    fn a_tensor_error_is_one_line_with_a_hint() {
        let error = Error::from(candle_core::Error::msg("shapes do not fit").bt());
        assert_eq!(error.to_string(), "shapes do not fit");
        assert!(error.hint().expect("advice").contains("report"));
    }

    #[test]
    fn a_full_device_is_told_what_would_fit() {
        let error =
            Error::from(candle_core::Error::msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")").bt());
        let hint = error.hint().expect("advice");
        assert!(hint.contains("--memory") && hint.contains("--weights stream") && !hint.contains("report"), "{hint}");
    }

    #[test]
    fn an_empty_hint_is_no_hint() {
        assert_eq!(Error::model("broken", "").hint(), None);
    }
}
