//! The program as a process: exit code, stdout and stderr.

#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "tests/hub uses all of it")]
mod hub_server;
#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
mod apart;
mod bad_models;
mod bad_requests;
mod commands;
mod hub;
#[cfg(target_os = "linux")]
mod limits;
mod model;
mod output;
mod picture;
#[cfg(unix)]
mod places;
mod position;
#[cfg(unix)]
mod signals;
mod telling;
mod threads;
