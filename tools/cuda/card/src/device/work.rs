//! Operations of streams.

use std::{fmt, sync::Arc};

use crate::{libraries::gemm::Gemm, ptx::code::Kernel};

/// A pointer of the program's own memory.
#[derive(Debug, Clone, Copy)]
pub struct Host(pub *mut u8);

// SAFETY: the program keeps the memory until the copy is done, as it must on a card.
unsafe impl Send for Host {}

/// What a stream is asked to do.
pub enum Work {
    /// `cuLaunchKernel`
    Launch {
        /// The kernel.
        kernel: Arc<Kernel>,
        /// Blocks by axis.
        grid: [u32; 3],
        /// Threads of a block by axis.
        block: [u32; 3],
        /// Bytes of shared memory asked for at the launch.
        shared: usize,
        /// Bytes of its parameters.
        parameters: Vec<u8>,
    },
    /// cuBLAS
    Gemm(Gemm),
    /// Host to device, read when it is executed.
    Upload { to: u64, from: Host, bytes: usize },
    /// Host to device, of bytes that were read when it was asked for.
    UploadStaged { to: u64, from: Vec<u8> },
    /// Device to host.
    Download { to: Host, from: u64, bytes: usize },
    /// Within the device.
    Copy { to: u64, from: u64, bytes: usize },
    /// `cuMemsetD8`
    Set { to: u64, value: u8, bytes: usize },
    /// An allocation begins to live.
    Allocate { at: u64, bytes: usize },
    /// An allocation ends.
    Free { at: u64 },
    /// `cuEventRecord`
    Record { event: u64, recording: u64 },
    /// `cuStreamWaitEvent`
    Wait { event: u64, recording: u64 },
    /// Nothing.
    #[cfg(test)]
    Nothing,
}

impl Work {
    /// The recording of an event that it waits for.
    pub fn awaits(&self) -> Option<(u64, u64)> {
        match self {
            Self::Wait { event, recording } => Some((*event, *recording)),
            _ => None,
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch { kernel, grid, block, shared, .. } => {
                write!(f, "launch {} over {grid:?} blocks of {block:?}, {shared} bytes", kernel.name)
            }
            Self::Gemm(gemm) => write!(f, "{gemm:?}"),
            Self::Upload { to, bytes, .. } => write!(f, "upload {bytes} bytes to {to:#x}"),
            Self::UploadStaged { to, from } => write!(f, "upload {} staged bytes to {to:#x}", from.len()),
            Self::Download { from, bytes, .. } => write!(f, "download {bytes} bytes from {from:#x}"),
            Self::Copy { to, from, bytes } => write!(f, "copy {bytes} bytes from {from:#x} to {to:#x}"),
            Self::Set { to, value, bytes } => write!(f, "set {bytes} bytes at {to:#x} to {value}"),
            Self::Allocate { at, bytes } => write!(f, "allocate {bytes} bytes at {at:#x}"),
            Self::Free { at } => write!(f, "free {at:#x}"),
            Self::Record { event, recording } => write!(f, "record {event:#x} #{recording}"),
            Self::Wait { event, recording } => write!(f, "wait for {event:#x} #{recording}"),
            #[cfg(test)]
            Self::Nothing => write!(f, "nothing"),
        }
    }
}
