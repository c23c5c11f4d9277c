//! dype, the command line.

fn main() {}
