//! What a picture says about itself: its settings, the model, the program.

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    models::KnownModel,
    output::{NEGATIVE, Parameters, Provenance, parameters_text},
    plan::Machine,
    recipe::{CFG_SCALE, Recipe, Wanted},
};

/// What the text of other tools calls the model.
pub const MODEL: &str = "Model";
/// What it calls the program.
pub const PROGRAM: &str = "Version";
/// How the program's name and version begin.
const OURS: &str = "dype ";

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
        (60, MODEL, model.identity.name()),
        (u8::MAX, PROGRAM, format!("{OURS}{}", env!("CARGO_PKG_VERSION"))),
    ]);
    list.sort_by_key(|(rank, ..)| *rank);
    let list: Vec<_> = list.into_iter().map(|(_, name, text)| (name, text)).collect();
    // A scale that is said and changes nothing has no negative prompt; who reads it looks for one.
    let last = recipe.prompt.rsplit_once('\n').map(|(_, last)| last);
    let is_misread = recipe.cfg.is_some() && last.is_some_and(|last| last.starts_with(NEGATIVE));
    let above = match recipe.cfg() {
        None if is_misread => format!("{}\n{NEGATIVE} ", recipe.prompt),
        None => recipe.prompt.clone(),
        Some((_, negative)) => format!("{}\n{NEGATIVE} {}", recipe.prompt, in_one_line(negative)),
    };
    parameters_text(&above, &list)
}

/// As it is, or as a JSON string where it would not be read back as one line.
fn in_one_line(negative: &str) -> String {
    let is_plain = negative.trim() == negative && !negative.starts_with('"') && !negative.contains(['\n', '\r']);
    if is_plain { negative.to_owned() } else { Value::from(negative).to_string() }
}

/// The prompt and the negative one that a text of this program says: with classifier-free guidance the last line is that.
pub fn prompts(text: &Parameters) -> (String, Option<String>) {
    let of_cfg = |name: &str| text.get(name).filter(|_| name == CFG_SCALE);
    let wanted = Wanted::of_parameters("", of_cfg).unwrap_or_default();
    let lines = text.above.rsplit_once('\n').and_then(|(above, last)| Some((above, last.strip_prefix(NEGATIVE)?)));
    match lines.filter(|_| wanted.cfg.is_some()) {
        None => (text.above.clone(), None),
        Some((above, negative)) => {
            let negative = negative.strip_prefix(' ').unwrap_or(negative);
            let unquoted = serde_json::from_str(negative).ok().filter(|_| negative.starts_with('"'));
            (above.to_owned(), Some(unquoted.unwrap_or_else(|| negative.to_owned())))
        }
    }
}

fn json(recipe: &Recipe, model: &KnownModel, machine: &Machine) -> Value {
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

/// Whether this program wrote the text.
pub fn is_ours(text: &Parameters) -> bool {
    text.get(PROGRAM).is_some_and(|program| program.starts_with(OURS))
}

/// What a text of this program says of the settings; `None` for a text of another program.
///
/// # Errors
/// [`Error::Request`] when it says what this version does not know, or what no flag would be allowed to say.
pub fn of_parameters(text: &Parameters) -> Result<Option<Wanted>> {
    if !is_ours(text) {
        return Ok(None);
    }
    let is_known = |name: &str| [MODEL, PROGRAM].contains(&name) || Recipe::has_entry(name);
    for (name, value) in &text.settings {
        if !is_known(name) {
            return Err(Error::request(format!("\"{name}: {value}\" is no setting of this version"), "update dype"));
        }
    }
    let (prompt, negative_prompt) = prompts(text);
    let wanted = Wanted::of_parameters(&prompt, |name| text.get(name))?;
    Ok(Some(Wanted { negative_prompt, ..wanted }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::models::{Identity, SchedulerConfig};

    #[test]
    fn a_negative_prompt_is_the_last_line_above_the_settings() {
        let (parts, variants) = (BTreeMap::new(), BTreeMap::new());
        let identity = Identity { model: "m".into(), revision: None, layout: "diffusers", parts, variants };
        let model = KnownModel { identity, contents: BTreeMap::new(), schedule: SchedulerConfig::default() };
        let usual = Recipe::draft(&Wanted::default()).expect("the usual");
        let prompt = "a lake\nNegative prompt: painted as it stands";
        for negative in ["", "fog, rain: heavy", "in\ntwo lines", " ", "\"quoted\"", "Negative prompt: no"] {
            let (prompt, negative) = (prompt.to_owned(), negative.to_owned());
            let led = Recipe {
                prompt: prompt.clone(),
                cfg: Some(4.0),
                negative_prompt: Some(negative.clone()),
                ..usual.clone()
            };
            let text = Parameters::parse(&parameters(&led, &model));
            assert_eq!(prompts(&text), (prompt, Some(negative.clone())));
            let wanted = of_parameters(&text).expect("its own").expect("dype's");
            assert_eq!((wanted.cfg, wanted.negative_prompt), (Some(4.0), Some(negative)));
        }
        // A model whose own cfg is on may be asked for one that changes nothing.
        let off = Recipe { prompt: prompt.to_owned(), cfg: Some(1.0), ..usual.clone() };
        let text = Parameters::parse(&parameters(&off, &model));
        assert_eq!(prompts(&text).0, prompt, "the prompt keeps its last line");
        let plain = Recipe { prompt: prompt.to_owned(), ..usual };
        let text = Parameters::parse(&parameters(&plain, &model));
        assert_eq!(prompts(&text), (prompt.to_owned(), None), "without cfg all of it is the prompt");
    }
}
