//! What a picture says about itself: its settings, the model, the program.

use serde_json::json;

use crate::{
    models::KnownModel,
    output::{Provenance, parameters_text},
    plan::Machine,
    recipe::Recipe,
};

/// The layout of the JSON; a reader of a later one must refuse what it does not know.
pub const VERSION: u64 = 1;

/// The provenance of a picture.
pub fn of(recipe: &Recipe, model: &KnownModel, machine: &Machine) -> Provenance {
    Provenance { parameters: parameters(recipe, model), json: json(recipe, model, machine) }
}

/// The text that A1111's web UI writes and other tools read: what the recipe says, and between it what the program adds.
fn parameters(recipe: &Recipe, model: &KnownModel) -> String {
    let mut list = recipe.parameters();
    list.extend([
        (20, "Sampler", "Euler".to_owned()),
        // Guidance is distilled into the model: who reads this must not add its own on top.
        (25, "CFG scale", "1".to_owned()),
        (60, "Model", model.identity.name()),
        (u8::MAX, "Version", format!("dype {}", env!("CARGO_PKG_VERSION"))),
    ]);
    list.sort_by_key(|(rank, ..)| *rank);
    let list: Vec<_> = list.into_iter().map(|(_, name, text)| (name, text)).collect();
    parameters_text(&recipe.prompt, &list)
}

fn json(recipe: &Recipe, model: &KnownModel, machine: &Machine) -> serde_json::Value {
    json!({
        "program": "dype",
        "program_version": env!("CARGO_PKG_VERSION"),
        "provenance_version": VERSION,
        "settings": recipe,
        "model": model,
        "device": machine.device_name(),
        "dtype": machine.dtype.as_str(),
    })
}
