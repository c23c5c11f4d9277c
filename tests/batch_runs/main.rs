//! Batches, comparisons and replays as processes: nothing is lost, repeated or overwritten.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod compared;
#[cfg(unix)]
mod disk_full;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(unix)]
mod kills;
mod replayed;
mod resumed;
mod shell;
mod stripped;
#[cfg(unix)]
mod wordless;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::program::{Place, Run, rgb8};

/// Six pictures: three prompts with two seeds each.
const PROMPTS: &str = "a lake\n# a comment\n\n{\"prompt\": \"a hill\", \"method\": \"ntk\"}\na small red boat\n";

/// The flags of [`PROMPTS`] in three steps, and these.
fn batch<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--steps", "3", "--prompts", "prompts.txt", "--seeds", "1,5"], more].concat()
}

/// The arguments of a small picture without its prompt.
fn arguments(args: &[&str]) -> Vec<String> {
    let mut all = support::program::small(&[]);
    let at = all.iter().position(|word| word == "--prompt").expect("a prompt");
    all.drain(at..at + 2);
    all.extend(args.iter().map(|word| (*word).to_owned()));
    all
}

/// A folder with [`PROMPTS`] in prompts.txt.
fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("prompts.txt"), PROMPTS).expect("written");
    place
}

fn dype(place: &Place, args: &[&str]) -> Run {
    place.dype(&arguments(args))
}

/// The lines of stdout.
fn lines(run: &Run) -> Vec<&str> {
    run.stdout.lines().collect()
}

/// What a picture says of itself.
fn provenance(path: &Path) -> Value {
    dype::testing::output::read_provenance(path).expect("readable").expect("made by dype")
}

/// The pictures in a folder: name to settings and pixels.
fn pictures(folder: &Path) -> BTreeMap<String, (Value, Vec<u8>)> {
    let paths = files(folder).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "png"));
    paths.map(|path| (name(&path), (provenance(&path)["settings"].clone(), rgb8(&path)))).collect()
}

/// Every file and folder in a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|path| name(path)).collect()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}
