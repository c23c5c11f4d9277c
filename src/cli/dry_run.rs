//! `--dry-run`: what a run would need, as a table or JSON.

use std::fmt::Write;

use serde_json::json;

use super::{generate, model_source::ModelSource, provenance::device_name, report};
use crate::{
    memory::Bytes,
    plan::{Machine, Plan, SpeedBook},
    settings::{ModelFacts, Request, Settings},
    weights::hub::DownloadPlan,
};

/// Prints the plan; loads nothing.
pub fn run(
    request: &Request,
    source: ModelSource,
    machine: &Machine,
    as_json: bool,
    report: &report::Report,
) -> anyhow::Result<()> {
    let download = source.missing().cloned();
    if let Some(missing) = download.as_ref().filter(|plan| plan.bytes_to_fetch > 0) {
        report.result(&if as_json {
            json!({ "download": download_json(missing) }).to_string()
        } else {
            download_table(missing)
        });
        return Ok(());
    }
    let files = source.open(&crate::progress::Silent)?;
    let settings = request.resolve(&ModelFacts::of(&files.transformer.config));
    let plan = Plan::new(&files, &generate::task(&settings), machine)?;
    let seconds = SpeedBook::open()
        .get(&machine_name(machine))
        .map(|speed| speed.time(plan.step_flops.saturating_mul(settings.steps as u64), plan.decode_flops));
    if as_json {
        let estimate = seconds.map(|time| time.as_secs_f64());
        report.result(&json!({ "settings": settings, "plan": plan, "seconds": estimate }).to_string());
    } else {
        report.result(&table(&plan, &settings, seconds));
    }
    Ok(())
}

/// The name speeds are kept under: device and number type.
pub fn machine_name(machine: &Machine) -> String {
    format!("{} {}", device_name(&machine.device), machine.dtype.as_str())
}

/// A plan as a table of at most 80 columns.
pub fn table(plan: &Plan, settings: &Settings, estimate: Option<std::time::Duration>) -> String {
    let tera = |flops: u64| format!("{:.1} TFLOP", flops as f64 / 1e12);
    let weights = plan.weights_bytes;
    let peaks = plan.peak_bytes;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("picture", format!("{} x {} px, {}", settings.height, settings.width, report::steps(settings.steps)));
    line("tokens", format!("{} image + {} text", plan.image_tokens, plan.text_tokens));
    line("work", format!("{} a step, {} in all", tera(plan.step_flops), tera(plan.total_flops)));
    line(
        "weights",
        format!(
            "transformer {}, T5 {}, CLIP {}, VAE {}",
            Bytes(weights.transformer),
            Bytes(weights.text_encoder_2),
            Bytes(weights.text_encoder),
            Bytes(weights.vae)
        ),
    );
    line(
        "memory",
        format!("text {}, denoise {}, decode {}", Bytes(peaks.text), Bytes(peaks.denoise), Bytes(peaks.decode)),
    );
    let budget = plan.budget_bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
    line("budget", format!("{budget}; the run's peak is {}", Bytes(peaks.most())));
    line(
        "choices",
        format!(
            "weights {}, {} tokens at once, decoder bands of {} rows",
            plan.weights, plan.token_chunk, plan.band_rows
        ),
    );
    let time = estimate.map_or_else(|| "unknown until this machine has made a picture".to_owned(), report::seconds);
    line("time", time);
    text.truncate(text.trim_end().len());
    text
}

fn download_table(plan: &DownloadPlan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        let state = if file.cached { "here" } else { "to fetch" };
        let _ = writeln!(text, "{:>9}  {state:<8}  {}", Bytes(file.size_bytes).to_string(), file.path);
    }
    let free = plan.disk_free_bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
    let _ = write!(
        text,
        "{} to fetch, {free} free on the disk of {}\nmemory and work are planned once the model's configs are here",
        Bytes(plan.bytes_to_fetch),
        plan.snapshot.display()
    );
    text
}

fn download_json(plan: &DownloadPlan) -> serde_json::Value {
    let files =
        plan.files.iter().map(|file| json!({ "path": file.path, "bytes": file.size_bytes, "cached": file.cached }));
    json!({
        "model": plan.model.to_string(),
        "files": files.collect::<Vec<_>>(),
        "bytes_to_fetch": plan.bytes_to_fetch,
        "disk_free_bytes": plan.disk_free_bytes,
    })
}
