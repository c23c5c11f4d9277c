//! What is known of published models: their configs against the lists of their real tensors, plans without any weight, the list of
//! models, and autoencoders that are told apart by what they hold.

#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "tests/hub uses all of it")]
mod hub_server;
#[path = "../support/mod.rs"]
mod support;

mod decode;
mod dry_runs;
mod lent;
mod list;
mod plans;
mod published;
mod told;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dype::testing::models::{Family, Published, Registry};
use hub_server::COMMIT;
use support::program::{Place, Run};

/// What this program knows of a repository.
fn published(repo: &str) -> (&'static dyn Family, &'static Published) {
    Registry::default().published().find(|(_, published)| published.repo == repo).expect("known")
}

/// The folder of a repository's copy in the cache of a place, which is made.
fn cached(place: &Place, repo: &str) -> PathBuf {
    let repo = place.path("hf/hub").join(format!("models--{}", repo.replace('/', "--")));
    fs::create_dir_all(repo.join("refs")).expect("folders");
    fs::write(repo.join("refs/main"), COMMIT).expect("written");
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).expect("folders");
    snapshot
}

/// Puts a file below a folder.
fn put(folder: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, bytes).expect("written");
}

/// The program with the cache of the place, offline.
fn command(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(args);
    command.env("HF_HOME", place.path("hf"));
    command
}

fn run(mut command: Command) -> Run {
    command.output().expect("the program starts").into()
}
