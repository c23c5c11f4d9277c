//! What a picture says about itself: its settings, the model, the program.

use serde_json::json;

use crate::{
    methods,
    models::Identity,
    output::{Provenance, parameters_text},
    plan::Machine,
    recipe::settings::Settings,
};

/// The layout of the JSON; a reader of a later one must refuse what it does not know.
pub const VERSION: u64 = 1;

/// The provenance of a picture.
pub fn of(settings: &Settings, model: &Identity, machine: &Machine) -> Provenance {
    Provenance { parameters: parameters(settings, model), json: json(settings, model, machine) }
}

/// The text that A1111's web UI writes and other tools read.
fn parameters(settings: &Settings, model: &Identity) -> String {
    let mut list = vec![
        ("Steps", settings.steps.to_string()),
        ("Sampler", "Euler".to_owned()),
        ("Seed", settings.seed.to_string()),
        ("Size", format!("{}x{}", settings.width, settings.height)),
        ("Model", model.to_string()),
        ("Position", methods::label(&settings.method, settings.dype)),
        ("RNG", settings.rng.clone()),
        ("Version", format!("dype {}", env!("CARGO_PKG_VERSION"))),
    ];
    if let Some(guidance) = settings.guidance {
        list.insert(2, ("Distilled CFG Scale", guidance.to_string()));
    }
    parameters_text(&settings.prompt, &list)
}

fn json(settings: &Settings, model: &Identity, machine: &Machine) -> serde_json::Value {
    json!({
        "program": "dype",
        "program_version": env!("CARGO_PKG_VERSION"),
        "provenance_version": VERSION,
        "settings": settings,
        "model": model,
        "device": machine.device_name(),
        "dtype": machine.dtype.as_str(),
    })
}
