//! dype, the command line: parse, run, exit code.

use std::process::ExitCode;

/// The system allocator returns large buffers to the kernel at once and pays for every page again: up to twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dype::main()
}
