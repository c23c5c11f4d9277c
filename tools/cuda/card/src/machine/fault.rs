//! What goes wrong while a kernel runs.

use std::fmt;

/// What a thread did that a device does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Memory that is not allocated: `CUDA_ERROR_ILLEGAL_ADDRESS`.
    IllegalAddress,
    /// An address that is no multiple of the access: `CUDA_ERROR_MISALIGNED_ADDRESS`.
    Misaligned,
    /// Memory that nothing has written. A card would go on with whatever lay there.
    Uninitialised,
    /// An instruction that this card does not know, or an assertion: `CUDA_ERROR_ILLEGAL_INSTRUCTION`.
    Instruction,
    /// Threads wait for others that never come: a card would hang.
    Deadlock,
}

/// A fault, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// Kernel, block, thread, line of its PTX, and what happened.
    pub message: String,
}

impl Fault {
    /// A fault whose place is added on the way.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The same with what led there.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        Self { message: format!("{}\n  {place}", self.message), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::IllegalAddress => "illegal address",
            FaultKind::Misaligned => "misaligned address",
            FaultKind::Uninitialised => "uninitialised memory",
            FaultKind::Instruction => "illegal instruction",
            FaultKind::Deadlock => "deadlock",
        };
        write!(f, "{kind}: {}", self.message)
    }
}
