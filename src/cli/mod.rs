//! The command line: flags, commands, and what they tell.

mod args;
pub mod inspect;
pub mod plot;
pub mod position_args;
mod report;
mod values;

pub use args::Cli;
pub use report::{Report, Verbosity};
