//! The house itself, by its source: who imports whom, and where a setting is named.

#[path = "../support/sources.rs"]
mod sources;

mod architecture;
mod settings;
