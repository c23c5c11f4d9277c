//! `dype info` of files of weights and folders of models: what is inside, what is missing, and what it would take to run.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};

use crate::cli::{
    args::ModelArgs,
    model_source::{ModelSource, Opened},
    needs::{Need, SIDES_PX},
    part_args::PartArgs,
    paths,
    report::Report,
    search_args::SearchArgs,
};
use crate::{
    base::{device::DeviceKind, memory::Bytes, printable::printable, progress::Silent},
    error::{Error, Result},
    models::{ELSEWHERE, Inventory, Model, ModelRequest, PartKind, Registry},
    weights::{has_weights_ending, lora},
};

/// Whether `info` is asked about weights, not about a picture.
pub fn is_meant(file: &Path) -> bool {
    file.is_dir() || has_weights_ending(&file.to_string_lossy())
}

/// Tells what a file or folder of weights holds.
///
/// # Errors
/// [`crate::Error::Model`] for what holds no weights; [`crate::Error::Disk`] when a file cannot be read.
pub fn run(file: &Path, search: &SearchArgs, as_json: bool, report: &Report) -> Result<()> {
    let inventory = Registry::default().inventory(&ModelRequest::new(file))?;
    let running = inventory.is_model().then(|| Running::of(file, &inventory, search));
    let text = if as_json {
        json_of(file, &inventory, running.as_ref()).to_string()
    } else {
        lines(&inventory, running.as_ref())
    };
    report.result(text.trim_end());
    Ok(())
}

/// What it would take to run a model.
enum Running {
    /// It can be run.
    Ready(Ready),
    /// What keeps it from that, and what to do; and what it would take with the parts of a published model.
    Lacking { what: String, hint: String, like: Option<Like> },
}

/// What a transformer takes with the other parts of a published model, by the configs inside this program.
struct Like {
    repo: &'static str,
    needs: Vec<Need>,
}

/// A model whose parts are all known.
struct Ready {
    /// Where each part comes from that did not come with the file.
    parts: Vec<(&'static str, String)>,
    remarks: Vec<String>,
    /// What has to be fetched first.
    fetch_bytes: u64,
    needs: Vec<Need>,
}

impl Running {
    fn of(file: &Path, inventory: &Inventory, search: &SearchArgs) -> Self {
        let lacking = |error: Error| Self::Lacking {
            what: error.to_string(),
            hint: error.hint().unwrap_or_default(),
            like: Like::of(file, inventory),
        };
        Ready::of(file, search).map_or_else(lacking, Self::Ready)
    }
}

impl Like {
    /// By the first model of its family whose parts fit.
    fn of(file: &Path, inventory: &Inventory) -> Option<Self> {
        let registry = Registry::default();
        let mut published = registry.published().filter(|(family, _)| Some(family.name()) == inventory.family);
        published.find_map(|(family, published)| {
            let transformer = family.parts().iter().find(|part| part.kind == PartKind::Denoiser)?;
            let request = published.request(family).ok()?.with(transformer.name, file);
            let needs = needs(&*registry.open(&request).ok()?).ok()?;
            Some(Self { repo: published.repo, needs })
        })
    }
}

/// What a picture of each usual side takes on a CPU.
fn needs(model: &dyn Model) -> Result<Vec<Need>> {
    SIDES_PX.iter().map(|side| Need::of(model, *side, DeviceKind::Cpu)).collect()
}

/// The same in words, a line each.
fn needs_lines(needs: &[Need]) -> impl Iterator<Item = (&'static str, String)> {
    needs.iter().map(|need| {
        let (side_px, memory, work) = (need.side_px, need.memory(), need.step_flops as f64 / 1e12);
        ("to run", format!("{side_px} x {side_px} px on a CPU: {memory}, {work:.1} TFLOP a step"))
    })
}

impl Ready {
    fn of(file: &Path, search: &SearchArgs) -> Result<Self> {
        let model = file.to_string_lossy().into_owned();
        let args = ModelArgs { model, variant: None, parts: PartArgs::default(), search: search.clone() };
        let source = ModelSource::find(&args, &Silent)?;
        let fetch_bytes = source.missing().iter().map(|plan| plan.bytes_to_fetch).sum();
        let Opened { model, mut remarks } = source.look(&Silent)?;
        remarks.extend(model.remarks());
        let parts = model.identity().parts.iter().map(|(part, origin)| (*part, origin.text().to_owned())).collect();
        let needs = needs(&*model)?;
        Ok(Self { parts, remarks, fetch_bytes, needs })
    }
}

/// What people want to know, a line each.
fn lines(inventory: &Inventory, running: Option<&Running>) -> String {
    let mut entries =
        vec![("model", inventory.family.map_or_else(|| "none of a known family".to_owned(), str::to_owned))];
    entries.extend(inventory.lora.as_ref().map(|lora| ("changes", changes(lora))));
    entries.extend(inventory.remark.clone().map(|remark| ("remark", remark)));
    if !inventory.parts.is_empty() {
        entries.push(("inside", inventory.parts.join(", ")));
    }
    for (kind, count) in &inventory.types {
        let text = format!("{} tensors, {}, {}", count.tensors, in_words(count.parameters), Bytes(count.bytes));
        entries.push(("numbers", format!("{kind}: {text}")));
    }
    let all = &inventory.all;
    entries.push(("in all", format!("{} tensors, {}, {}", all.tensors, in_words(all.parameters), Bytes(all.bytes))));
    match running {
        None => {}
        Some(Running::Lacking { what, hint, like }) => {
            entries.extend([("missing", what.clone()), ("hint", hint.clone())]);
            if let Some(Like { repo, needs }) = like {
                entries.push(("with", format!("the other parts of {repo}, as far as this program knows them:")));
                entries.extend(needs_lines(needs));
            }
        }
        Some(Running::Ready(ready)) => entries.extend(ready.lines()),
    }
    let mut text = String::new();
    for (name, value) in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10} {}", printable(&value));
    }
    text
}

impl Ready {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut entries: Vec<_> = self.parts.iter().map(|(part, from)| ("with", format!("{part} {from}"))).collect();
        entries.extend(
            self.remarks.iter().filter(|remark| !remark.starts_with(ELSEWHERE)).map(|it| ("remark", it.clone())),
        );
        if self.fetch_bytes > 0 {
            entries.push(("to fetch", Bytes(self.fetch_bytes).to_string()));
        }
        entries.extend(needs_lines(&self.needs));
        entries
    }
}

/// LoRA of 19 layers, LoHa of 2, rank 4 to 16, names of kohya's sd-scripts
fn changes(lora: &lora::Summary) -> String {
    let mut words: Vec<String> = lora.layers.iter().map(|(kind, count)| format!("{kind} of {count} layers")).collect();
    words.extend(match (lora.ranks.first(), lora.ranks.last()) {
        (Some(least), Some(most)) if least < most => Some(format!("rank {least} to {most}")),
        (Some(rank), _) => Some(format!("rank {rank}")),
        _ => None,
    });
    words.push(lora.dialect.map_or_else(|| "names of layers as they are".to_owned(), |of| format!("names of {of}")));
    words.join(", ")
}

/// 11.90 billion parameters
fn in_words(parameters: u64) -> String {
    match parameters {
        1_000_000_000.. => format!("{:.2} billion parameters", parameters as f64 / 1e9),
        1_000_000.. => format!("{:.1} million parameters", parameters as f64 / 1e6),
        _ => format!("{parameters} parameters"),
    }
}

fn json_of(file: &Path, inventory: &Inventory, running: Option<&Running>) -> Value {
    let mut told = json!(inventory);
    told["path"] = file.to_string_lossy().into();
    paths::add_bytes(&mut told, file);
    match running {
        None => {}
        Some(Running::Lacking { what, hint, like }) => {
            told["missing"] = json!({ "what": what, "hint": hint });
            if let Some(Like { repo, needs }) = like {
                told["with_parts_of"] = json!(repo);
                told["needs"] = needs.iter().map(Need::json).collect();
            }
        }
        Some(Running::Ready(ready)) => {
            told["parts_from"] = ready.parts.iter().map(|(part, from)| ((*part).to_owned(), json!(from))).collect();
            told["remarks"] = json!(ready.remarks);
            told["bytes_to_fetch"] = json!(ready.fetch_bytes);
            told["needs"] = ready.needs.iter().map(Need::json).collect();
        }
    }
    told
}
