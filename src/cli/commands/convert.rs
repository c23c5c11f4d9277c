//! `dype convert`: a model's transformer, or another of its networks, in another number type as one file.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use crate::cli::{
    args::ThreadsArgs,
    device,
    lora_source::{self, Found},
    model_source,
    report::Report,
    search_args::SearchArgs,
    values,
};
use crate::{
    base::{
        disk::is_same_disk,
        progress::{Event, Observer},
    },
    convert::{self, Format, Kind, Plan},
    error::{Error, Result},
    hub::DownloadPlan,
    models::{ModelRequest, Registry, adapt_part},
    output,
    recipe::{LoraChoice, Loras},
    weights::TensorSource,
};

/// What becomes what.
#[derive(Debug, Clone, Args)]
#[allow(rustdoc::broken_intra_doc_links, reason = "help texts, printed as they stand")]
pub struct ConvertArgs {
    /// Hub id (owner/name[@revision][:file]), folder in diffusers layout, single file of a transformer or text encoder, or demo
    #[arg(value_name = "MODEL")]
    model: String,
    /// File to write, of the layout its ending says: .gguf, or .safetensors in the layout of MODEL
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Number type of most of it: q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k, q2_k (.gguf); fp8 (with a scale a
    /// tensor), fp8_e4m3fn (plain) (.safetensors); bf16, f16, f32 (both)
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    kind: Kind,
    /// Which network of a model: transformer, text_encoder, text_encoder_2 [default: the transformer]
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// LoRA (file, or owner/name[:file]) to add to the weights before they are rounded, with its strength; may come again
    #[arg(long, value_name = "FILE[:STRENGTH]", value_parser = values::lora)]
    lora: Vec<Loras>,
    /// Weights in this variant where the model has it, such as fp16
    #[arg(long, value_name = "NAME", value_parser = values::variant)]
    variant: Option<String>,
    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
    /// Where else to look.
    #[command(flatten)]
    search: SearchArgs,
    /// Threads of the processor.
    #[command(flatten)]
    threads: ThreadsArgs,
}

impl ConvertArgs {
    fn loras(&self) -> impl Iterator<Item = &LoraChoice> {
        self.lora.iter().flat_map(|Loras(loras)| loras)
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    text.parse()
}

/// Runs `dype convert`.
pub fn run(args: &ConvertArgs, report: &Report) -> anyhow::Result<()> {
    check_output(args)?;
    let (variant, part) = (args.variant.as_deref(), args.part.as_deref());
    let model = model_source::network(&args.model, part, variant, &args.search, report)?;
    let mut loras = lora_source::find_each(args.loras(), &args.model, &args.search, report)?;
    // Headers tell whether it can be done at all, before gigabytes are fetched.
    let mut job = Job::of(args, &model.ahead(report)?, &loras)?;
    let missing: Vec<_> =
        model.missing().into_iter().chain(loras.iter().filter_map(|(lora, _)| lora.missing())).collect();
    if !missing.is_empty() {
        check_room(&missing, &args.output, job.plan.bytes)?;
        let request = model.fetch(report)?;
        for (lora, _) in &mut loras {
            lora.fetch(report)?;
        }
        job = Job::of(args, &request, &loras)?;
    }
    job.remarks.iter().for_each(|remark| report.on(Event::Note(remark.clone())));
    device::start_threads(&args.threads)?;
    let path = convert::write(&job.plan, &*job.source, &args.output, args.overwrite, report)?;
    report.path(&path);
    Ok(())
}

/// What is to be written, and what it is made of.
struct Job {
    plan: Plan,
    source: Arc<dyn TensorSource>,
    remarks: Vec<String>,
}

impl Job {
    /// Of a model and LoRA files, by their headers.
    fn of(args: &ConvertArgs, request: &ModelRequest, loras: &[(Found, f64)]) -> Result<Self> {
        let format = Format::of(&args.output, args.kind)?;
        check_not_of_the_model(request, &args.output)?;
        let exchange = Registry::default().exchange(request, args.part.as_deref())?;
        let loras: Vec<_> = loras.iter().map(|(lora, strength)| (lora.file().clone(), *strength)).collect();
        let (source, mut remarks) = adapt_part(exchange.network.clone(), &loras)?;
        let plan = Plan::new(&exchange, &*source, args.kind, format, &said(args, exchange.network.part))?;
        remarks.extend(plan.remarks.iter().cloned());
        Ok(Self { plan, source, remarks })
    }
}

/// Whether there is room for what must be fetched, and for the file.
fn check_room(missing: &[&DownloadPlan], output: &Path, bytes: u64) -> Result<()> {
    DownloadPlan::check_disk_for(missing)?;
    let beside = missing.iter().filter(|plan| is_same_disk(&plan.snapshot, output));
    convert::check_disk(output, bytes, beside.map(|plan| plan.bytes_to_fetch).sum())
}

/// What the file says it is of: names alone, for paths are of no use elsewhere.
fn said(args: &ConvertArgs, part: &str) -> String {
    let bare = |name: &str| {
        let last = Path::new(name).file_name().map_or_else(|| name.into(), |last| last.to_string_lossy());
        // The file of OWNER/NAME:FILE.
        last.rsplit(':').next().unwrap_or_default().to_owned()
    };
    let with: Vec<String> = args.loras().map(|lora| format!("{} at {}", bare(&lora.name), lora.strength)).collect();
    let with = if with.is_empty() { String::new() } else { format!(" with {}", with.join(", ")) };
    format!("{part} of {}{with}", bare(&args.model))
}

/// The output can be written, and replaces nothing that it is not to replace.
fn check_output(args: &ConvertArgs) -> Result<()> {
    let path = &args.output;
    if output::is_stream(path) {
        let what = format!("-o {} is no file, and a model goes to one", path.display());
        return Err(Error::request(what, "name a file, such as -o MODEL.gguf"));
    }
    if path.is_dir() || path.to_string_lossy().ends_with(std::path::is_separator) {
        let what = format!("-o {} is a folder", path.display());
        return Err(Error::request(what, format!("name a file in it, such as {}", path.join("MODEL.gguf").display())));
    }
    Format::of(path, args.kind)?;
    if path.exists() && !args.overwrite {
        let what = format!("{} is there already", path.display());
        return Err(Error::request(what, "name another file, or replace it with --overwrite"));
    }
    let mut inputs = args.loras().map(|lora| &lora.name).chain([&args.model]);
    if inputs.any(|input| is_same(Path::new(input), path)) {
        let what = format!("{} is read and cannot be written meanwhile", path.display());
        return Err(Error::request(what, "name another file with --output"));
    }
    output::check_place(path, 1, args.overwrite, &mut HashSet::new())
}

/// Nothing of the model itself is replaced: it may be mapped.
fn check_not_of_the_model(request: &ModelRequest, path: &Path) -> Result<()> {
    let inside = fs::canonicalize(&request.model).ok().filter(|folder| folder.is_dir());
    let (Some(folder), Ok(path)) = (inside, fs::canonicalize(path)) else { return Ok(()) };
    if path.starts_with(&folder) {
        let what = format!("{} is a file of the model that is read", path.display());
        return Err(Error::request(what, "name another file with --output"));
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}
