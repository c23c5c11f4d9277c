//! Making a picture: from flags to a file.

use std::{io::Read, path::PathBuf, time::Instant};

use anyhow::Context;
use candle_core::{DType, Device};

use super::{
    args::{DEFAULT_GUIDANCE, DEFAULT_PROMPT, GenerateArgs},
    dry_run,
    model_source::ModelSource,
    provenance,
    report::Report,
    target::Target,
};
use crate::{
    error::Error,
    geometry::ImageSize,
    model::ModelFiles,
    output,
    pipeline::Pipeline,
    plan::{Machine, Plan, Speed, SpeedBook, Task},
    progress::{Event, Observer},
    sampling::Mu,
    settings::{DeviceChoice, ModelDtype, ModelFacts, Request, Settings},
};

/// Runs `dype` without a subcommand.
pub fn run(args: &GenerateArgs, report: &Report) -> anyhow::Result<()> {
    let request = request(args)?;
    let device = open_device(args.machine.device)?;
    let dtype = compute_dtype(args.machine.dtype.map(Into::into), &device);
    let target = Target::new(args.output.output.as_deref());
    if !args.machine.dry_run {
        target.check(request.size)?;
        check_latents_target(args)?;
    }
    let source = ModelSource::find(&args.model, report)?;
    let machine = Machine {
        budget: Machine::budget(&device, args.machine.memory),
        weights: args.machine.weights.into(),
        device,
        dtype,
    };
    if args.machine.dry_run {
        return dry_run::run(&request, source, &machine, args.output.json, report);
    }
    let files = source.open(report)?;
    let settings = request.resolve(&ModelFacts::of(&files.transformer.config));
    tell(args, &request, &settings, report);
    let path = make(args, &request, &settings, &target, &files, &machine, report)?;
    report.result(&path.display().to_string());
    Ok(())
}

/// Makes one picture and writes it.
fn make(
    args: &GenerateArgs,
    request: &Request,
    settings: &Settings,
    target: &Target,
    files: &ModelFiles,
    machine: &Machine,
    report: &Report,
) -> anyhow::Result<PathBuf> {
    let pipeline = Pipeline::open(files, machine.device.clone(), machine.dtype, report)?;
    let plan = Plan::new(files, &task(settings), machine)?;
    report.detail(&dry_run::table(&plan, settings, None));
    let embeddings = pipeline.encode(&[request.prompt.as_str()], settings.max_sequence_length)?.remove(0);
    let started = Instant::now();
    let latents = {
        let transformer = pipeline.load_transformer(&plan.choices)?;
        let noise = pipeline.noise(request)?;
        pipeline.denoise(&transformer, request, &embeddings, (0, noise), &mut |_, _| Ok(()))?
    };
    let denoised = started.elapsed();
    if let Some(file) = &args.output.save_latents {
        let saved = output::save_latents(file, &latents, args.output.overwrite)?;
        report.detail(&format!("latents   {}", saved.display()));
    }
    let started = Instant::now();
    let picture = pipeline.decode(&latents, request.size, &plan.choices)?;
    let speed = Speed {
        denoise_flops_per_s: plan.step_flops as f64 * request.steps as f64 / denoised.as_secs_f64(),
        decode_flops_per_s: plan.decode_flops as f64 / started.elapsed().as_secs_f64(),
    };
    SpeedBook::open().note(&dry_run::machine_name(machine), speed);
    let provenance = provenance::of(settings, &files.identity, machine);
    Ok(output::save(&target.file(settings), &picture, &provenance, args.output.overwrite)?)
}

/// What a plan needs to know of a picture.
pub fn task(settings: &Settings) -> Task {
    Task {
        size: ImageSize { height_px: settings.height, width_px: settings.width },
        steps: settings.steps,
        text_tokens: settings.max_sequence_length,
        prompts: 1,
    }
}

/// The request that the flags make.
fn request(args: &GenerateArgs) -> anyhow::Result<Request> {
    let (picture, position) = (&args.picture, &args.position);
    Ok(Request {
        prompt: prompt(picture.prompt.as_deref())?,
        size: ImageSize::new(picture.height, picture.width).map_err(Error::from)?,
        steps: picture.steps,
        seed: picture.seed,
        guidance: picture.guidance.unwrap_or(DEFAULT_GUIDANCE),
        max_sequence_length: picture.max_sequence_length,
        rng: picture.rng,
        method: position.method,
        dype: position.dype(),
        base_resolution: position.base_resolution,
        mu: position.mu.unwrap_or(Mu::Pinned),
    })
}

/// The prompt: the flag's, stdin's for "-", else the default scene.
fn prompt(flag: Option<&str>) -> anyhow::Result<String> {
    match flag {
        None => Ok(DEFAULT_PROMPT.to_owned()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(stdin_error)?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        Some(text) => Ok(text.to_owned()),
    }
}

fn stdin_error(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::InvalidData {
        return Error::request("the prompt from stdin is not UTF-8 text", "convert it first, for example with iconv");
    }
    Error::request(format!("cannot read the prompt from stdin: {error}"), "give it with --prompt TEXT")
}

/// The device that was asked for.
pub fn open_device(choice: DeviceChoice) -> anyhow::Result<Device> {
    let absent = |name: &str, feature: &str| {
        let what = format!("--device {name}: this dype was built without {feature}");
        Error::request(
            what,
            format!("build it with `cargo install --path . --features {feature}`, or use --device cpu"),
        )
    };
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if cfg!(feature = "cuda") => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
        DeviceChoice::Auto if cfg!(feature = "metal") => Ok(Device::new_metal(0).unwrap_or(Device::Cpu)),
        DeviceChoice::Auto => Ok(Device::Cpu),
        DeviceChoice::Cuda(_) if !cfg!(feature = "cuda") => Err(absent("cuda", "cuda").into()),
        DeviceChoice::Cuda(number) => {
            Ok(Device::new_cuda(number).map_err(Error::from).context(format!("cannot open cuda:{number}"))?)
        }
        DeviceChoice::Metal if !cfg!(feature = "metal") => Err(absent("metal", "metal").into()),
        DeviceChoice::Metal => Ok(Device::new_metal(0).map_err(Error::from).context("cannot open metal")?),
    }
}

/// The number type of the computation: f32 on the CPU, bf16 on a GPU, unless asked otherwise.
pub fn compute_dtype(asked: Option<ModelDtype>, device: &Device) -> DType {
    match asked {
        Some(ModelDtype::F32) => DType::F32,
        Some(ModelDtype::Bf16) => DType::BF16,
        Some(ModelDtype::F16) => DType::F16,
        None if device.is_cpu() => DType::F32,
        None => DType::BF16,
    }
}

fn check_latents_target(args: &GenerateArgs) -> anyhow::Result<()> {
    let Some(file) = &args.output.save_latents else { return Ok(()) };
    if file.is_dir() {
        let what = format!("--save-latents {} is a folder", file.display());
        return Err(Error::request(what, "name a file, such as latents.safetensors").into());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(output::check_writable(folder.unwrap_or(std::path::Path::new(".")))?)
}

/// What the user may want to know before the work begins.
fn tell(args: &GenerateArgs, request: &Request, settings: &Settings, report: &Report) {
    let size = request.size;
    if size.is_cropped() {
        let computed = size.computed();
        report.on(Event::Note(format!(
            "{} x {} px is computed as {} x {} (multiples of 16) and cropped",
            size.height_px, size.width_px, computed.height_px, computed.width_px
        )));
    }
    let longest = size.computed().height_px.max(size.computed().width_px);
    if settings.method != "base" && longest <= settings.base_resolution {
        let what = if settings.dype { "DyPE has" } else { "extrapolation has" };
        report.on(Event::Note(format!(
            "{what} no effect at this size with --method {}: no side exceeds the training resolution of {} px",
            settings.method, settings.base_resolution
        )));
    }
    for note in args.position.without_effect() {
        report.on(Event::Note(note.into()));
    }
    if settings.guidance.is_none() && args.picture.guidance.is_some() {
        report.on(Event::Note("this model takes no guidance: --guidance is ignored".into()));
    }
}
