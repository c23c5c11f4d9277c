//! `dype decode`: latents to a picture, with the autoencoder alone.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use crate::cli::{
    args::{DEFAULT_MODEL, ThreadsArgs},
    commands::replay,
    device::{self, DeviceChoice, DtypeArg},
    latents_file, model_source, pictured,
    report::Report,
    search_args::SearchArgs,
    values,
};
use crate::{
    base::device::DeviceKind,
    base::memory::Bytes,
    base::progress::{Event, Observer},
    error::{Error, Result},
    output::{self, Format, LatentsFile, Provenance},
    plan::{self, Machine, PIXEL_BYTES, Process},
    run::pipeline,
};

/// Which latents, and how they are decoded.
#[derive(Debug, Clone, Args)]
#[allow(rustdoc::broken_intra_doc_links, reason = "help texts, printed as they stand")]
pub struct DecodeArgs {
    /// Latents that --save-latents wrote, or a checkpoint in .dype/
    #[arg(value_name = "LATENTS")]
    file: PathBuf,
    /// File (.png, .jpg, .webp) of the picture, or "-" for stdout
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Replace an existing file instead of adding _2, _3, ... to the name
    #[arg(long)]
    overwrite: bool,
    /// Height in pixels [default: what the file says, else a square's]
    #[arg(long, value_name = "PX", value_parser = values::side_px, requires = "width", allow_negative_numbers = true)]
    height: Option<usize>,
    /// Width in pixels [default: what the file says, else a square's]
    #[arg(long, value_name = "PX", value_parser = values::side_px, requires = "height", allow_negative_numbers = true)]
    width: Option<usize>,
    /// Hub id, folder or file of the model (or demo) whose autoencoder decodes [default: the one that the latents name, else
    /// black-forest-labs/FLUX.1-Krea-dev]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The autoencoder itself: a file or a folder
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Where the autoencoder of a single file is looked for.
    #[command(flatten)]
    search: SearchArgs,
    /// auto, cpu, cuda[:N] or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = values::device)]
    device: DeviceChoice,
    /// f32, bf16 or f16 [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_name = "DTYPE", hide_possible_values = true)]
    dtype: Option<DtypeArg>,
    /// The most memory to take, such as 6GB [default: what is free]
    #[arg(long, value_name = "LIMIT", value_parser = values::bytes)]
    memory: Option<Bytes>,
    /// Threads of the processor.
    #[command(flatten)]
    threads: ThreadsArgs,
}

/// Runs `dype decode`.
pub fn run(args: &DecodeArgs, report: &Report) -> anyhow::Result<()> {
    let file = LatentsFile::read(&args.file)?;
    let said = || replay::named(&said_model(&file.metadata)?, &args.file);
    let model = args.model.clone().or_else(said).unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    let vae = model_source::autoencoder(&model, args.vae.as_deref(), &args.search, report)?;
    let geometry = vae.geometry();
    check_class(args, &file, vae.class())?;
    let asked = args.height.zip(args.width);
    let (latents, size) = latents_file::of_model(&args.file, &file, asked, &geometry)?;
    Format::from_path(&args.output)?.check_size(size)?;
    output::check_place(&args.output, 1, args.overwrite, &mut HashSet::new())?;
    device::start_threads(&args.threads)?;
    let device = device::open(args.device, report)?;
    let dtype = device::compute_dtype(args.dtype, DeviceKind::of(&device))?;
    let budget = Machine::budget(&device, args.memory);
    let (on, budget) = ((DeviceKind::of(&device), dtype), budget.map_or(u64::MAX, |bytes| bytes.0));
    let chosen = plan::decode_choice(&*vae, on, (size, PIXEL_BYTES), (Process::on(on.0), 0), budget)?;
    let picture = pipeline::decode(&*vae, &latents.to_device(&device)?, size, &chosen.way.options, dtype, report)?;
    let provenance = provenance(&file.metadata, &args.file, report);
    let path = output::save_or_keep(&args.output, 1, &picture, &provenance, args.overwrite)?;
    if !output::is_stdout(&path) {
        report.path(&path);
    }
    Ok(())
}

/// The model that latents say they were made with.
fn said_model(metadata: &BTreeMap<String, String>) -> Option<Value> {
    let mut json: Value = serde_json::from_str(metadata.get("provenance")?).ok()?;
    Some(json.get_mut("model")?.take())
}

/// Latents that say whose they are go with an autoencoder of that class. Others of as many channels would make noise of them.
fn check_class(args: &DecodeArgs, file: &LatentsFile, class: Option<&str>) -> Result<()> {
    let (Some(said), Some(class)) = (file.metadata.get(output::AUTOENCODER), class) else { return Ok(()) };
    if said == class {
        return Ok(());
    }
    let what = format!("{} holds latents of an {said}, and this autoencoder is an {class}", args.file.display());
    let model = said_model(&file.metadata);
    let model = model.as_ref().and_then(|model| model["model"].as_str());
    let model = model.map_or_else(String::new, |model| format!(": they were made with {model}"));
    Err(Error::model(what, format!("give the model that made them with --model, or its autoencoder with --vae{model}")))
}

/// What the latents say of how they were made, for the picture; what no picture would say is left out, and told. A checkpoint
/// says nothing: its picture is not done.
fn provenance(metadata: &BTreeMap<String, String>, file: &Path, report: &Report) -> Provenance {
    let Some(text) = metadata.get("provenance") else { return Provenance::default() };
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    if let Err(error) = pictured::recipe(&json, file) {
        report.on(Event::Note(format!("the picture will not say how it was made: {error}")));
        return Provenance::default();
    }
    Provenance { parameters: metadata.get("parameters").cloned().unwrap_or_default(), json }
}
