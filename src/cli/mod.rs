//! The command line: flags, commands, and what they tell.

pub mod inspect;
pub mod plot;
pub mod position_args;
