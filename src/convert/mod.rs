//! A network in another number type, as one file: which tensor is rounded how ([`Plan`]), and the file, written some rows at a time.

mod kind;
mod plan;
mod write;

pub use kind::{Format, Kind};
pub use plan::Plan;
pub use write::{check_disk, write};
