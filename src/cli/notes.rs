//! What the user may want to know before the work begins.

use std::collections::HashMap;

use serde_json::json;

use super::{items::Planned, report::Report};
use crate::{
    base::geometry::LatentGeometry,
    base::progress::{Event, Observer, Once},
    error::Result,
    methods::{
        self, AMPLITUDE, Amplitude, DYPE_SCALE, DYPE_THRESHOLDS, FADING_START, Fading, Method, SCALING, Scaling,
        TEXT_ANCHOR, Thresholds,
    },
    models::{Facts, Model, SchedulerConfig},
    output::NEGATIVE,
    recipe::{self, Ladder, Recipe, Rng, Source, StepCache, Wanted, declared},
    run::Item,
};

/// Tells each note once, however many pictures it holds for.
pub fn tell(planned: &[Planned], items: &[Item], facts: &Facts, report: &Report) {
    let geometry = &facts.latents;
    let mut once = Once::new(report);
    for (planned, item) in planned.iter().zip(items) {
        for note in [
            cropped(item, geometry),
            no_effect(item, geometry),
            sharper(&item.recipe),
            no_guidance(planned, item),
            no_cfg(planned, item),
            no_mu(planned, &facts.scheduler),
            no_image(planned, item),
            nothing_kept(item),
            no_ladder(planned, item),
            drawn(item),
            negative(item),
            hardly_skipped(item),
        ]
        .into_iter()
        .flatten()
        {
            once.note(note);
        }
    }
}

/// What there is to tell of where a model's parts were found.
pub fn of_search(remarks: Vec<String>, report: &Report) {
    remarks.into_iter().for_each(|remark| report.on(Event::Note(remark)));
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

/// Tells of a whole batch what no picture tells alone.
pub fn of_batch(items: &[Item], report: &Report) {
    same_noise(items).into_iter().for_each(|note| report.on(Event::Note(note)));
    if let Some(what) = items.iter().find_map(|item| prompt_syntax(&item.recipe.prompt)) {
        report.on(Event::Note(format!(
            "prompts are read literally, {what} too: weights, LoRAs and BREAK of other programs have no effect; give a LoRA with \
             --lora FILE:STRENGTH, say in words what matters, and what matters most first"
        )));
    }
}

fn drawn(item: &Item) -> Option<String> {
    let seed = item.recipe.seed;
    recipe::is_drawn(seed).then(|| format!("seed {seed} was drawn for this run; --seed {seed} makes the picture again"))
}

/// A step cache computes the first steps, and two that follow each other before it skips one.
fn hardly_skipped(item: &Item) -> Option<String> {
    const FEW: usize = 8;
    let Recipe { step_cache: cache, steps, .. } = item.recipe;
    (cache != StepCache::Off && steps < FEW).then(|| {
        format!(
            "among {steps} steps there is hardly a step to skip without harm: --cache is made for runs of 20 and more"
        )
    })
}

/// A1111 and its kin take what follows such a line for another prompt.
fn negative(item: &Item) -> Option<String> {
    let mut lines = item.recipe.prompt.lines();
    lines.any(|line| line.trim_start().starts_with(NEGATIVE)).then(|| {
        format!(
            "a prompt holds a line that begins with {NEGATIVE:?}: it is drawn like the rest, and other programs that read the \
             picture's parameters take it for a negative prompt (dype's own JSON has it whole)"
        )
    })
}

/// PyTorch's CPU generator looks at the lower 32 bits of a seed.
fn same_noise(items: &[Item]) -> Option<String> {
    // Without a larger one no two are congruent, and settings need not be compared.
    if items.iter().all(|item| item.recipe.seed <= u64::from(u32::MAX)) {
        return None;
    }
    let mut seen: HashMap<String, u64> = HashMap::new();
    items.iter().filter(|item| item.recipe.rng == Rng::TorchCpu).find_map(|item| {
        let seed = item.recipe.seed;
        let alike = Recipe { seed: seed & u64::from(u32::MAX), ..item.recipe.clone() };
        let other = *seen.entry(json!(alike).to_string()).or_insert(seed);
        (other != seed).then(|| {
            format!(
                "seeds {other} and {seed} give the same picture: torch-cpu takes a seed modulo 2^32, as PyTorch does; choose seeds \
                 below 4294967296, or --rng torch-cuda"
            )
        })
    })
}

/// What a prompt holds that means something to other programs, as it stands there.
fn prompt_syntax(prompt: &str) -> Option<String> {
    let lower = prompt.to_ascii_lowercase();
    let tag = ["<lora:", "<lyco:", "<hypernet:"].iter().find_map(|tag| lower.find(tag));
    if let Some(at) = tag {
        return Some(prompt[at..].chars().take_while(|c| *c != '>').chain(['>']).take(MOST_SHOWN).collect());
    }
    let is_break = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()) == "BREAK";
    if prompt.split_whitespace().any(is_break) {
        return Some("BREAK".to_owned());
    }
    weighted(prompt).or_else(|| switched(prompt)).or_else(|| repeated(prompt))
}

/// `[cat:dog:0.5]`, which draws one and then the other.
fn switched(prompt: &str) -> Option<String> {
    let inside = prompt.match_indices('[').filter_map(|(at, _)| prompt[at + 1..].split_once(']'));
    let is_number = |field: &str| field.trim().parse::<f64>().is_ok();
    let is_switch = |inside: &str| {
        let fields: Vec<&str> = inside.split(':').collect();
        let Some((when, words)) = fields.split_last() else { return false };
        matches!(words.len(), 1 | 2)
            && is_number(when)
            && !words.iter().any(|word| word.contains('[') || is_number(word))
    };
    let found = inside.map(|(inside, _)| inside).find(|inside| is_switch(inside))?;
    Some(format!("[{found}]").chars().take(MOST_SHOWN).collect())
}

/// `((a word))` and `(a word)++`, which are weights too.
fn repeated(prompt: &str) -> Option<String> {
    let signs = [("((", "((...))"), (")++", "(...)++")];
    signs.into_iter().find(|(sign, _)| prompt.contains(sign)).map(|(_, shown)| shown.to_owned())
}

/// Characters of a prompt that a note shows.
const MOST_SHOWN: usize = 40;

/// `(a word:1.3)`; not `(16:9)` or `(at 10:30)`, which are text.
fn weighted(prompt: &str) -> Option<String> {
    for (at, _) in prompt.match_indices('(') {
        let inside = prompt[at + 1..].split([')', '(']).next().unwrap_or_default();
        let Some((words, weight)) = inside.rsplit_once(':') else { continue };
        let is_closed = prompt[at + 1 + inside.len()..].starts_with(')');
        let is_text = words.trim_end().ends_with(|c: char| c.is_ascii_digit()) || words.trim().is_empty();
        if is_closed && !is_text && weight.trim().parse::<f64>().is_ok() {
            return Some(prompt[at..].chars().take((inside.chars().count() + 2).min(MOST_SHOWN)).collect());
        }
    }
    None
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
    let longest = geometry.computed(recipe.size()).longer_px();
    (recipe.method != Method::BASE && longest <= recipe.base_resolution).then(|| {
        let what = if recipe.dype { "DyPE has" } else { "extrapolation has" };
        format!(
            "{what} no effect at this size with --method {}: no side exceeds the training resolution of {} px",
            recipe.method, recipe.base_resolution
        )
    })
}

/// Sharpened twice: worth a warning and no error, since it is computed as it is asked for, and may be compared.
pub fn sharper(recipe: &Recipe) -> Option<String> {
    let is_twice = recipe.proportional_attention && methods::sharpens(&*recipe.scaler());
    let others = Method::ALL.iter().filter(|method| !methods::sharpens(&*method.scaler(None)));
    let others: Vec<&str> = others.map(|method| method.name()).collect();
    let (last, others) = others.split_last().map_or(("", String::new()), |(last, others)| (*last, others.join(", ")));
    is_twice.then(|| {
        format!(
            "--proportional-attention comes on top of the amplitude of --method {}, which sharpens attention already: it is meant \
             for {others} and {last}",
            recipe.method
        )
    })
}

/// Whether somebody asks for the setting with this key now: a picture that is made again does not.
fn is_asked(planned: &Planned, key: &str) -> bool {
    matches!(planned.wish.asked.by(key), Some(Source::Flag | Source::Line))
}

fn no_guidance(planned: &Planned, item: &Item) -> Option<String> {
    (item.recipe.guidance.is_none() && is_asked(planned, declared::guidance.key))
        .then(|| "this model takes no guidance: --guidance is ignored".into())
}

/// A strength that begins at the first step: there is nothing but noise.
fn nothing_kept(item: &Item) -> Option<String> {
    let Recipe { steps, strength, .. } = item.recipe;
    let strength = strength.filter(|_| item.recipe.first_step() == 0)?;
    let more = match steps {
        1 => "more --steps keep some".to_owned(),
        // The first step is left out from here on downwards.
        _ => format!("a strength of {:.2} keeps some", ((steps - 1) as f64 / steps as f64 * 100.0).floor() / 100.0),
    };
    Some(format!(
        "--strength {strength} begins at the first of {steps} steps, where there is noise alone: nothing of the picture is kept; {more}"
    ))
}

/// A strength that nothing is made anew by.
fn no_image(planned: &Planned, item: &Item) -> Option<String> {
    (is_asked(planned, declared::strength.key) && item.recipe.image.is_none())
        .then(|| "--strength has no effect without --image, the picture to begin with".into())
}

/// What is asked of a ladder where there is none.
fn no_ladder(planned: &Planned, item: &Item) -> Option<String> {
    let recipe = &item.recipe;
    if recipe.ladder != Ladder::Off {
        return None;
    }
    match (&planned.wish.asked.wanted.ladder, is_asked(planned, declared::ladder_pull.key)) {
        (Some(Ladder::Auto), _) => Some(format!(
            "--ladder auto makes no stages of {} x {} px: they are no more pixels than the training resolution of {} px has",
            recipe.height, recipe.width, recipe.base_resolution
        )),
        (_, true) => Some("--ladder-pull changes nothing without --ladder".into()),
        _ => None,
    }
}

/// What is asked of classifier-free guidance where that is off, or goes by another rule.
fn no_cfg(planned: &Planned, item: &Item) -> Option<String> {
    let keys = [declared::negative_prompt.key, declared::cfg_normalization.key];
    let [negative, normalization] = keys.map(|key| is_asked(planned, key));
    let is_off = item.recipe.cfg().is_none();
    match (is_off, negative, normalization && !item.recipe.cfg_normalization) {
        (true, true, _) => Some("cfg is off, so --negative-prompt changes nothing; --cfg SCALE turns it on".into()),
        (true, _, true) => Some("cfg is off, so --cfg-normalization changes nothing; --cfg SCALE turns it on".into()),
        (false, _, true) => Some("--cfg-normalization changes nothing: the cfg of this model has no such rule".into()),
        _ => None,
    }
}

/// A mu for a schedule whose shift is the same at every size.
fn no_mu(planned: &Planned, scheduler: &SchedulerConfig) -> Option<String> {
    let shift = scheduler.shift;
    (is_asked(planned, declared::mu.key) && !scheduler.use_dynamic_shifting)
        .then(|| format!("--mu changes nothing: the time shift of this model is static, {shift} at every size"))
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
    let has_thresholds = flags.dype_thresholds.is_some_and(|rule| rule != Thresholds::default());
    let mut notes = Vec::new();
    if has_lambdas && !method.spec().has(&DYPE_SCALE) {
        notes.push(if method == Method::BASE {
            "--dype-scale and --dype-exponent have no effect with --method base, which extrapolates nothing"
        } else {
            "--dype-scale and --dype-exponent have no effect here: they are about --method ntk, pi and yarn"
        });
    }
    if has_thresholds && (flags.dype == Some(false) || !method.spec().has(&DYPE_THRESHOLDS)) {
        notes.push("--dype-thresholds has no effect here: it is about --method yarn with DyPE");
    }
    if flags.scaling.is_some_and(|rule| rule != Scaling::default()) && !method.spec().has(&SCALING) {
        notes.push("--scaling has no effect here: it is about --method ntk, pi and yarn");
    }
    if flags.amplitude.is_some_and(|rule| rule != Amplitude::default()) {
        if !method.spec().has(&AMPLITUDE) {
            notes.push("--amplitude has no effect here: it is about --method yarn");
        } else if flags.text_anchor == Some(true) {
            notes.push("--amplitude has no effect with --text-anchor, which has amplitudes of its own");
        }
    }
    let fades = method.spec().has(&FADING_START) && flags.amplitude == Some(Amplitude::Fading);
    if flags.fading_start.is_some_and(|start| start != Fading::default().start) && !fades {
        notes.push("--fading-start has no effect here: it is about --amplitude fading");
    }
    if flags.text_anchor == Some(true) && !method.spec().has(&TEXT_ANCHOR) {
        notes.push("--text-anchor has no effect here: it is about --method yarn");
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
    fn what_other_programs_read_in_prompts_is_seen_and_text_is_not() {
        for (prompt, what) in [
            ("a (red:1.3) fox", "(red:1.3)"),
            ("((a fox):0.8), (bold: 1.2)", "(bold: 1.2)"),
            ("fox <lora:snow:0.8> in snow", "<lora:snow:0.8>"),
            ("fox <LoRA:snow:1>", "<LoRA:snow:1>"),
            ("a fox BREAK snow", "BREAK"),
            ("a fox, BREAK, snow", "BREAK"),
            ("fox <lyco:snow:1>", "<lyco:snow:1>"),
            ("a [red fox:blue fox:0.5]", "[red fox:blue fox:0.5]"),
            ("a fox [snow:12]", "[snow:12]"),
            ("((masterpiece)), a fox", "((...))"),
            ("a (fox)++", "(...)++"),
        ] {
            assert_eq!(prompt_syntax(prompt).as_deref(), Some(what), "{prompt}");
        }
        for prompt in [
            "a clock (at 10:30)",
            "wide (16:9)",
            "a (red) fox",
            "BREAKING news",
            "break of dawn",
            "a: b",
            "(x:y)",
            "(a:1",
            "a sign [open: 10:30]",
            "[9:16] a fox",
            "a fox (small) and [red]",
            "[a, b: c]",
            "",
        ] {
            assert_eq!(prompt_syntax(prompt), None, "{prompt}");
        }
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
