//! dype, the command line: parse, run, exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: dype::Allocator = dype::Allocator;

fn main() -> ExitCode {
    dype::main()
}
