//! What the user may want to know before the work begins.

use std::collections::HashSet;

use super::{items::Planned, report::Report};
use crate::{
    base::geometry::LatentGeometry,
    base::progress::{Event, Observer},
    error::Result,
    methods::{DYPE_SCALE, DYPE_THRESHOLDS, Method, Thresholds},
    models::Model,
    recipe::{Source, Wanted, declared},
    run::Item,
};

/// Tells each note once, however many pictures it holds for.
pub fn tell(planned: &[Planned], items: &[Item], geometry: &LatentGeometry, report: &Report) {
    let mut told = HashSet::new();
    for (planned, item) in planned.iter().zip(items) {
        for note in
            [cropped(item, geometry), no_effect(item, geometry), no_guidance(planned, item)].into_iter().flatten()
        {
            if told.insert(note.clone()) {
                report.on(Event::Note(note));
            }
        }
    }
}

/// What there is to tell of how a model was opened.
pub fn of_model(model: &dyn Model, report: &Report) {
    model.remarks().into_iter().for_each(|remark| report.on(Event::Note(remark)));
}

/// Tells that the model of a picture is no longer what it was; `differing` are its parts that differ.
pub fn other_model(differing: &[String], report: &Report) {
    if !differing.is_empty() {
        let parts = differing.join(", ");
        report.on(Event::Note(format!(
            "the model is not the one the picture was made with (it differs in: {parts}): the picture comes out otherwise"
        )));
    }
}

fn cropped(item: &Item, geometry: &LatentGeometry) -> Option<String> {
    let size = item.recipe.size();
    let computed = geometry.computed(size);
    (computed != size).then(|| {
        format!(
            "{} x {} px is computed as {} x {} (multiples of {}) and cropped",
            size.height_px,
            size.width_px,
            computed.height_px,
            computed.width_px,
            geometry.px_per_token()
        )
    })
}

fn no_effect(item: &Item, geometry: &LatentGeometry) -> Option<String> {
    let recipe = &item.recipe;
    let computed = geometry.computed(recipe.size());
    let longest = computed.height_px.max(computed.width_px);
    (recipe.method != Method::BASE && longest <= recipe.base_resolution).then(|| {
        let what = if recipe.dype { "DyPE has" } else { "extrapolation has" };
        format!(
            "{what} no effect at this size with --method {}: no side exceeds the training resolution of {} px",
            recipe.method, recipe.base_resolution
        )
    })
}

fn no_guidance(planned: &Planned, item: &Item) -> Option<String> {
    let asked = planned.wish.asked.by(declared::guidance.key);
    (item.recipe.guidance.is_none() && matches!(asked, Some(Source::Flag | Source::Line)))
        .then(|| "this model takes no guidance: --guidance is ignored".into())
}

/// Which weights are a variant that was not asked for, and which are not the one that was.
pub fn variants(model: &dyn Model, asked: Option<&str>) -> Result<Option<String>> {
    let found = &model.identity().variants;
    let Some(asked) = asked else {
        let parts: Vec<_> = found.iter().map(|(part, variant)| format!("{variant} of {part}")).collect();
        return Ok((!parts.is_empty()).then(|| format!("weights are there in a variant only: {}", parts.join(", "))));
    };
    let mut parts: Vec<_> = model.weights_bytes()?.iter().map(|network| network.part).collect();
    parts.retain(|part| found.get(part).is_none_or(|variant| variant != asked));
    let what = || format!("not in the variant {asked}, and taken as they are: weights of {}", parts.join(", "));
    Ok((!parts.is_empty()).then(what))
}

/// Notes about flags of positions that were given and change nothing.
pub fn without_effect(flags: &Wanted) -> Vec<&'static str> {
    let method = flags.method.unwrap_or_default();
    let has_lambdas = flags.dype_scale.is_some() || flags.dype_exponent.is_some();
    let has_thresholds = flags.dype_thresholds == Some(Thresholds::Power);
    let mut notes = Vec::new();
    if has_lambdas && !method.spec().has(&DYPE_SCALE) {
        notes.push("--dype-scale and --dype-exponent have no effect with --method base, which extrapolates nothing");
    }
    if has_thresholds && (flags.dype == Some(false) || !method.spec().has(&DYPE_THRESHOLDS)) {
        notes.push("--dype-thresholds has no effect here: it is about --method yarn with DyPE");
    }
    notes
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::setting_flags::{Position, SettingFlags};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        position: SettingFlags<Position>,
    }

    #[test]
    fn flags_that_change_nothing_are_told() {
        let notes = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["dype"], words].concat()).expect("valid");
            without_effect(&cli.position.wanted)
        };
        for words in [&[][..], &["--dype-scale", "2"], &["--dype-thresholds", "power"], &["--method", "base"]] {
            assert!(notes(words).is_empty(), "{words:?}");
        }
        assert!(notes(&["--method", "base", "--dype-exponent", "1"])[0].contains("--method base"));
        for words in [["--method", "ntk"], ["--no-dype", "--mu=1"]] {
            assert!(notes(&[&words[..], &["--dype-thresholds", "power"]].concat())[0].contains("--dype-thresholds"));
        }
    }
}
