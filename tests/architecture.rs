//! Holds the direction of imports: `main -> cli -> pipeline -> {text, flux, vae, sampling, weights, output} -> leaves`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Every module of the crate, and the modules it may import, from the leaves upwards. What stands here is the whole
/// truth: a module that is missing fails the test too.
const ALLOWED: &[(&str, &[&str])] = &[
    // Leaves.
    ("error", &[]),
    ("flash", &["error"]),
    ("geometry", &[]),
    ("position", &[]),
    ("progress", &[]),
    ("memory", &[]),
    ("cache", &[]),
    ("draw", &[]),
    // The model inside the binary: files, as a folder.
    ("demo", &["cache", "error", "output"]),
    ("batch", &["error", "geometry", "position", "sampling"]),
    ("preview", &["error", "geometry"]),
    ("compare", &["draw", "error", "geometry"]),
    // Where bytes come from. It knows no model: `model` tells it which names belong to what.
    ("weights", &["error", "memory", "progress"]),
    // The parts of a picture's making. None knows another.
    ("sampling", &["error", "geometry", "weights"]),
    ("output", &["error", "geometry"]),
    ("text", &["error", "progress", "weights"]),
    ("flux", &["error", "flash", "geometry", "position", "weights"]),
    ("vae", &["error", "flash", "geometry", "progress", "weights"]),
    // The parts together. `model` asks each part for its dimensions, whose names and shapes it checks.
    ("model", &["error", "flux", "sampling", "text", "vae", "weights"]),
    ("settings", &["error", "flux", "geometry", "position", "sampling"]),
    ("plan", &["cache", "error", "flux", "geometry", "memory", "model", "text", "vae", "weights"]),
    (
        "pipeline",
        &[
            "error", "flash", "geometry", "position", "progress", "sampling", "output", "text", "flux", "vae", "model",
            "settings", "plan",
        ],
    ),
    // Many pictures, and nothing lost.
    (
        "run",
        &[
            "error", "geometry", "flux", "memory", "model", "output", "pipeline", "plan", "preview", "progress",
            "sampling", "settings", "text",
        ],
    ),
];

/// Whoever asks for pictures may import anything; nothing above imports these.
const TOP: [&str; 3] = ["cli", "main", "lib"];

fn module_of(path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root()).ok()?;
    let first = relative.components().next()?.as_os_str().to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The first segments after each `crate::`, outside comments and outside `#[cfg(test)]` modules at the end of a file.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            top_level_names(group, &mut found);
        } else {
            found.insert(first_name(rest));
        }
    }
    found
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn top_level_names(group: &str, found: &mut BTreeSet<String>) {
    let mut depth = 0usize;
    let mut at_start = true;
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && depth == 0 && !c.is_whitespace() => {
                found.insert(first_name(&group[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
}

#[test]
fn imports_point_downwards() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 20, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let module = module_of(&file).expect("a module");
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else { continue };
        let text = std::fs::read_to_string(&file).expect("readable");
        for import in imports(&text) {
            let is_item_of_root = import.starts_with(char::is_uppercase);
            if import != module && !is_item_of_root && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_has_its_place() {
    for entry in std::fs::read_dir(root()).expect("src is readable") {
        let module = module_of(&entry.expect("entry").path()).expect("a module");
        let is_known = TOP.contains(&module.as_str()) || ALLOWED.iter().any(|(name, _)| *name == module);
        assert!(is_known, "{module} is in no layer: add it to ALLOWED");
    }
}

#[test]
fn grouped_and_single_imports_are_both_seen() {
    let text =
        "use crate::{\n    error::{Error, Result},\n    flux,\n};\nfn f() { crate::vae::go() }\n// crate::text\n";
    let names: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(names, ["error", "flux", "vae"]);
}
