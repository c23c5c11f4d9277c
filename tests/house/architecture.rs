//! Holds the direction of imports: `base < {recipe, methods, weights, hub} < nn < models < {plan, sampling} < run < cli`, `lab`
//! beside `cli`; and families do not know each other.

use std::{collections::BTreeSet, path::Path};

use crate::sources::{root, sources};

/// Every module of the crate and the modules it may import, from the ground floor upwards. What stands here is the whole
/// truth: a module that is missing fails the test too. When two places need one thing, it moves down a floor.
const FLOORS: &[(&str, &[&str])] = &[
    // What everybody speaks of.
    ("error", &[]),
    ("base", &["error"]),
    // What a picture is asked to be, how positions are scaled, where bytes come from. None of them knows a network.
    ("methods", &["error", "base"]),
    ("recipe", &["error", "base", "methods"]),
    ("weights", &["error", "base"]),
    ("hub", &["error", "base", "weights"]),
    // Pictures as files.
    ("output", &["error", "base"]),
    ("input", &["error", "base"]),
    // What networks are made of, and the networks.
    ("nn", &["error", "base", "methods", "weights"]),
    ("models", &["error", "base", "methods", "recipe", "weights", "hub", "nn"]),
    // What is done with a network, and what it will need.
    ("sampling", &["error", "base", "methods", "recipe", "nn", "models"]),
    ("plan", &["error", "base", "methods", "recipe", "weights", "hub", "nn", "models", "sampling"]),
    // A model's weights as a file in another number type.
    ("convert", &["error", "base", "weights", "models", "output"]),
    // Many pictures, and nothing lost.
    (
        "run",
        &[
            "error", "base", "methods", "recipe", "weights", "hub", "nn", "models", "sampling", "plan", "output",
            "input",
        ],
    ),
    // Pictures and methods looked at.
    ("lab", &["error", "base", "methods", "output"]),
];

/// Imports against the rule that are still there, as (file, module). The list may only shrink: one that is gone fails too.
const STILL_THERE: &[(&str, &str)] = &[("models/demo.rs", "output")];

/// Whoever asks for pictures may import anything; nothing above imports these.
const TOP: [&str; 4] = ["cli", "main", "lib", "testing"];

fn module_of(path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root()).ok()?;
    let first = relative.components().next()?.as_os_str().to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// The first segments after each `crate::`, outside comments, in the whole file: its tests keep the rule too.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
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
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else { continue };
        let text = std::fs::read_to_string(&file).expect("readable");
        let name = file.strip_prefix(root()).expect("below src").to_string_lossy().replace('\\', "/");
        for import in imports(&text) {
            let is_item_of_root = import.starts_with(char::is_uppercase);
            if import != module && !is_item_of_root && !allowed.contains(&import.as_str()) {
                wrong.push((name.clone(), import));
            }
        }
    }
    let still: Vec<_> = STILL_THERE.iter().map(|(file, module)| ((*file).to_owned(), (*module).to_owned())).collect();
    let new: Vec<_> = wrong.iter().filter(|found| !still.contains(found)).collect();
    assert!(new.is_empty(), "(file, module it may not import): {new:#?}");
    let gone: Vec<_> = still.iter().filter(|known| !wrong.contains(known)).collect();
    assert!(gone.is_empty(), "good news: take these out of STILL_THERE: {gone:#?}");
}

/// The families: folders of `models/` but for the parts that serve them all.
#[test]
fn families_do_not_know_each_other() {
    let folders = std::fs::read_dir(root().join("models")).expect("readable").map(|entry| entry.expect("entry").path());
    let families: Vec<String> = folders
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "parts")
        .collect();
    assert!(families.contains(&"flux1".to_owned()), "{families:?}");
    for folder in families.iter().map(String::as_str).chain(["parts"]) {
        let mut files = Vec::new();
        sources(&root().join("models").join(folder), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("readable");
            let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            for other in families.iter().filter(|family| *family != folder) {
                let word = |c: char| !c.is_alphanumeric() && c != '_';
                assert!(!code.split(word).any(|found| found == other), "{} knows {other}", file.display());
            }
        }
    }
}

#[test]
fn every_module_has_its_place() {
    for entry in std::fs::read_dir(root()).expect("src is readable") {
        let module = module_of(&entry.expect("entry").path()).expect("a module");
        let is_known = TOP.contains(&module.as_str()) || FLOORS.iter().any(|(name, _)| *name == module);
        assert!(is_known, "{module} is in no layer: add it to FLOORS");
    }
}

/// What is public but on the list for tests, and what the binary itself takes, would never be called dead.
#[test]
fn only_the_list_for_tests_is_public() {
    let lib = std::fs::read_to_string(root().join("lib.rs")).expect("readable");
    let public: Vec<_> = lib.lines().filter(|line| line.starts_with("pub ")).collect();
    assert_eq!(public, ["pub mod testing;", "pub use base::allocator::Allocator;", "pub use cli::main;"]);
}

#[test]
fn grouped_and_single_imports_are_both_seen() {
    let text = "use crate::{\n    error::{Error, Result},\n    flux,\n};\nfn f() { crate::models::parts::kl::go() }\n// crate::text\n";
    let names: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(names, ["error", "flux", "models"]);
}
