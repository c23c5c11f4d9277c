//! The program as a process: exit code, stdout and stderr.

#[path = "../support/mod.rs"]
mod support;

mod bad_models;
mod bad_requests;
mod commands;
mod model;
mod output;
mod picture;
mod position;
mod telling;
