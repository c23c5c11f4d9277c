//! `--dry-run`: what a run would need, as a table or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    base::{geometry::ImageSize, memory::Bytes},
    cli::{
        execute,
        image_source::ImageSource,
        items::{Batch, Planned},
        lora_source::LoraSource,
        model_source::{ModelSource, Opened},
        notes, paths, report,
    },
    hub::DownloadPlan,
    models::Model,
    nn::WeightsMode,
    output,
    plan::{Estimate, Machine, Plan, SpeedBook},
    recipe::{Recipe, StepCache},
    run::{Item, Job},
    sampling::{ScheduleFor, Shift},
};

/// Prints what must be fetched and what the pictures need; fetches and loads nothing. JSON is one line a picture, text a table of
/// the most demanding one.
pub fn run(
    batch: &mut Batch,
    (source, loras, images): (&ModelSource, &LoraSource, &ImageSource),
    machine: &Machine,
    as_json: bool,
    report: &report::Report,
) -> anyhow::Result<()> {
    downloads(source, loras, as_json, report);
    let Opened { model, remarks } = source.look_to_plan(report)?;
    notes::of_search(remarks, report);
    notes::of_model(&*model, report);
    batch.name_by(&model.facts().recipe)?;
    let planned = &batch.planned;
    let adapted = loras.models(planned, &*model, report)?;
    let items = execute::plan_items(planned, (&*model, &adapted), images, machine, None)?;
    notes::tell(planned, &items, model.facts(), report);
    notes::of_batch(&items, report);
    let speeds = SpeedBook::open();
    let time = |item: &Item| speeds.estimate(&item.plan.machine, &item.plan.all_amounts());
    if as_json {
        for (item, planned) in items.iter().zip(planned) {
            report.result(&json_of(item, planned, &*model, time(item)).to_string());
        }
        return Ok(());
    }
    if let Some(most) = items.iter().max_by_key(|item| item.plan.total_flops) {
        report.result(&table(&most.plan, &most.recipe, shift(&*model, &most.recipe), time(most)));
    }
    if items.len() > 1 {
        let all: Option<Estimate> = items.iter().map(time).sum();
        let all = all.map_or_else(|| "unknown".to_owned(), in_words);
        report.result(&format!(
            "{:<10} {} pictures, the above is the largest; time of all: {all}",
            "batch",
            items.len()
        ));
    }
    Ok(())
}

/// What must be fetched.
fn downloads(source: &ModelSource, loras: &LoraSource, as_json: bool, report: &report::Report) {
    for missing in source.missing().into_iter().chain(loras.missing()) {
        report.result(&if as_json {
            json!({ "download": download_json(missing) }).to_string()
        } else {
            download_table(missing)
        });
    }
    if let Some(published) = source.stands_in() {
        report.result(&if as_json {
            let (model, bytes) = (published.repo, published.bytes());
            json!({ "download": { "model": model, "bytes_to_fetch": bytes, "built_in": true } }).to_string()
        } else {
            format!("{} to fetch of {}, as far as this program knows", Bytes(published.bytes()), published.repo)
        });
    }
}

/// The line of a picture.
fn json_of(item: &Item, planned: &Planned, model: &dyn Model, estimate: Option<Estimate>) -> Value {
    let path = output::numbered(&planned.path, planned.number);
    let seconds = estimate.map(|time| time.about.as_secs_f64());
    let range = estimate.map(|time| [time.least.as_secs_f64(), time.most.as_secs_f64()]);
    let said = path.to_string_lossy();
    let mut line = json!({ "path": said, "settings": item.recipe, "plan": *item.plan, "seconds": seconds });
    line["seconds_range"] = json!(range);
    let shift = shift(model, &item.recipe);
    line["shift"] = json!({ "mu": shift.mu(), "why": shift.to_string() });
    let stages: Vec<_> = stages(&item.plan).map(|stage| stage_json(stage, &item.recipe)).collect();
    if !stages.is_empty() {
        line["stages"] = json!(stages);
    }
    if !model.identity().parts.is_empty() {
        line["parts"] = json!(model.identity().parts);
    }
    paths::add_bytes(&mut line, &path);
    line
}

/// The time shift of a model's schedule for a recipe; stages follow that of the first.
pub fn shift(model: &dyn Model, recipe: &Recipe) -> Shift {
    let facts = model.facts();
    let first = Job::of(recipe, facts).passes()[0].recipe(recipe);
    Shift::of(&facts.scheduler, &ScheduleFor::recipe(&first, facts))
}

/// The stages of a ladder, the picture's own last; none where there is no ladder.
fn stages(plan: &Plan) -> impl Iterator<Item = (usize, &Plan)> {
    let last = (!plan.below.is_empty()).then_some(plan);
    plan.below.iter().chain(last).enumerate()
}

/// Floating point operations of the steps of a stage.
fn own_flops(plan: &Plan) -> u128 {
    plan.step_flops * plan.task.evaluations() as u128
}

fn stage_json((stage, plan): (usize, &Plan), recipe: &Recipe) -> Value {
    json!({
        "height": plan.task.size.height_px,
        "width": plan.task.size.width_px,
        "steps": plan.task.steps,
        "guidance": recipe.guidance_at(stage),
        "image_tokens": plan.image_tokens,
        "step_flops": plan.step_flops as f64,
        "denoise_flops": own_flops(plan) as f64,
        "encode_flops": plan.encode_flops,
        "decode_flops": plan.decode_flops,
    })
}

/// A plan as a table of at most 80 columns.
pub fn table(plan: &Plan, recipe: &Recipe, shift: Shift, estimate: Option<Estimate>) -> String {
    let tera = |flops: u128| format!("{:.1} TFLOP", flops as f64 / 1e12);
    let weights = plan.weights_bytes.iter().map(|network| format!("{} {}", network.word, Bytes(network.bytes)));
    let weights = weights.collect::<Vec<_>>().join(", ");
    let peaks = plan.peak_bytes;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    let passes: Vec<_> = stages(plan).collect();
    let steps = match passes.len() {
        0 => report::steps(plan.task.steps),
        count => {
            let all = passes.iter().map(|(_, plan)| plan.task.steps).sum();
            format!("{} in {count} stages", report::steps(all))
        }
    };
    line("machine", plan.machine.clone());
    line("picture", format!("{} x {} px, {steps}", recipe.height, recipe.width));
    for (stage, plan) in passes {
        let ImageSize { height_px, width_px } = plan.task.size;
        let guidance = recipe.guidance_at(stage).map(|scale| format!(", guidance {scale:.3}")).unwrap_or_default();
        let steps = report::steps(plan.task.steps);
        let work = tera(own_flops(plan));
        line(&format!("stage {}", stage + 1), format!("{height_px} x {width_px} px, {steps}, {work}{guidance}"));
    }
    if let Some((image, strength)) = recipe.image.as_ref().zip(recipe.strength) {
        let first = recipe.first_step() + 1;
        line("image", format!("{}, strength {strength}: from step {first} of {}", image.in_words(), recipe.steps));
    }
    line("tokens", format!("{} image + {} text", plan.image_tokens, plan.text_tokens));
    line("shift", shift.to_string());
    let passes = if plan.passes > 1 { " (two forward passes: cfg)" } else { "" };
    let skips = if plan.task.cache == StepCache::Off { "" } else { ", less what the cache skips" };
    let of_one = match plan.evaluations {
        None => format!("a step{passes}"),
        Some(count) => format!("an evaluation{passes}, {count} evaluations"),
    };
    line("work", format!("{} {of_one}, {} in all{skips}", tera(plan.step_flops), tera(plan.total_flops)));
    line("weights", weights);
    if let Some(loras) = recipe.lora.in_words() {
        line("LoRA", loras);
    }
    if recipe.int8_products {
        line("products", "in 8 bits where weights are Q8_0".into());
    }
    line(
        "memory",
        format!(
            "text {}, {}denoise {}, decode {}",
            Bytes(peaks.text),
            peaks.encode.map_or_else(String::new, |bytes| format!("encode {}, ", Bytes(bytes))),
            Bytes(peaks.denoise),
            Bytes(peaks.decode)
        ),
    );
    let budget = plan.budget_bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
    line("budget", format!("{budget}; the run's peak is {}", Bytes(peaks.most())));
    line(
        "choices",
        format!(
            "weights {}, {} tokens at once, decoder bands of {} rows",
            mode(plan),
            plan.token_chunk,
            plan.band_rows
        ),
    );
    let time = estimate
        .map_or_else(|| "unknown until this machine has made a picture of about this size".to_owned(), in_words);
    line("time", time);
    text.truncate(text.trim_end().len());
    text
}

/// Where they live, and how many blocks stay where some do.
fn mode(plan: &Plan) -> String {
    match plan.choices.weights {
        WeightsMode::Part { stay } => format!("in part (blocks that stay: {stay}, the others are streamed)"),
        WeightsMode::Resident | WeightsMode::Stream => plan.weights.to_owned(),
    }
}

/// `about 37 min 10 s (32 min 00 s to 43 min 00 s)`
fn in_words(Estimate { about, least, most }: Estimate) -> String {
    let [about, least, most] = [about, least, most].map(report::seconds);
    format!("about {about} ({least} to {most})")
}

fn download_table(plan: &DownloadPlan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        let state = if file.cached { "here" } else { "to fetch" };
        let _ = writeln!(text, "{:>9}  {state:<8}  {}", Bytes(file.size_bytes).to_string(), file.path);
    }
    let free = plan.disk_free_bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
    let _ =
        write!(text, "{} to fetch, {free} free on the disk of {}", Bytes(plan.bytes_to_fetch), plan.snapshot.display());
    text
}

fn download_json(plan: &DownloadPlan) -> Value {
    let files =
        plan.files.iter().map(|file| json!({ "path": file.path, "bytes": file.size_bytes, "cached": file.cached }));
    json!({
        "model": plan.model.to_string(),
        "files": files.collect::<Vec<_>>(),
        "bytes_to_fetch": plan.bytes_to_fetch,
        "disk_free_bytes": plan.disk_free_bytes,
    })
}
