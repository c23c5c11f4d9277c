//! A ladder of resolutions: its arithmetic and a whole run against the reference, its flags, and going on with it.

#[path = "../support/mod.rs"]
mod support;

mod families;
mod maths;
mod resumed;
mod runs;
