//! `dype replay`: the same picture again from what it says of itself, or a variation of it.

use std::{collections::HashSet, path::PathBuf};

use clap::Args;
use serde_json::Value;

use crate::cli::{
    args::{DEFAULT_GUIDANCE, DtypeArg, GenerateArgs, ModelArgs},
    commands::generate,
    items::{self, Wish},
    pictured::{self, Pictured},
    report::Report,
    target::Target,
};
use crate::{
    base::progress::{Event, Observer},
    error::Result,
    recipe::Overrides,
    recipe::settings::{DeviceChoice, Request},
};

/// Which picture, and what is to be different.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A picture made by dype: PNG, JPEG or WebP
    #[arg(value_name = "PICTURE")]
    file: PathBuf,
    /// What replaces the picture's own settings.
    #[command(flatten)]
    pub flags: GenerateArgs,
}

/// Runs `dype replay`; `typed` are the ids of the flags that were typed: only those replace the picture's settings.
pub fn run(args: &ReplayArgs, typed: &HashSet<String>, report: &Report) -> anyhow::Result<()> {
    let pictured = pictured::read(&args.file)?;
    let is_typed = |id: &str| typed.contains(id);
    let mut flags = args.flags.clone();
    if !is_typed("model") {
        flags.model = model(&pictured.json, flags.model, &is_typed);
    }
    set_dtype(&pictured.json, &mut flags, report);
    let wish = Wish {
        request: request(&pictured, &flags, &is_typed)?,
        target: Target::new(flags.output.output.as_deref()),
        origin: None,
        guidance_given: is_typed("guidance"),
    };
    generate::execute(&flags, &wish, report)
}

/// The picture's request with what was typed in its place.
fn request(pictured: &Pictured, flags: &GenerateArgs, is_typed: &dyn Fn(&str) -> bool) -> Result<Request> {
    let mut request = pictured.settings.to_request()?;
    if pictured.settings.guidance.is_none() {
        // Its model took none; should another one be typed, that takes the usual.
        request.guidance = DEFAULT_GUIDANCE;
    }
    let (picture, choice, tuning) = (&flags.picture, &flags.position.choice, &flags.position.tuning);
    if is_typed("prompt") {
        request.prompt = generate::prompt(picture.prompt.as_deref())?;
    }
    if is_typed("method")
        && choice.method != request.method
        && let Some(dype) = &mut request.dype
    {
        // The lambdas were those of the other method.
        (dype.scale, dype.exponent) = (None, None);
    }
    fn if_typed<T>(is_typed: bool, value: T) -> Option<T> {
        is_typed.then_some(value)
    }
    let overrides = Overrides {
        seed: if_typed(is_typed("seed"), picture.seed),
        method: if_typed(is_typed("method"), choice.method),
        dype: if_typed(is_typed("no_dype"), !choice.no_dype),
        dype_scale: tuning.dype_scale,
        dype_exponent: tuning.dype_exponent,
        dype_thresholds: if_typed(is_typed("dype_thresholds"), tuning.dype_thresholds),
        base_resolution: tuning.base_resolution,
        width: if_typed(is_typed("width"), picture.extent.width),
        height: if_typed(is_typed("height"), picture.extent.height),
        steps: if_typed(is_typed("steps"), picture.extent.steps),
        guidance: picture.guidance,
        mu: tuning.mu,
        rng: if_typed(is_typed("rng"), picture.rng),
        max_sequence_length: picture.max_sequence_length,
        output: None,
    };
    items::apply(&mut request, &overrides)?;
    Ok(request)
}

/// The picture's model, with the parts that were typed in place of its own.
fn model(json: &Value, typed: ModelArgs, is_typed: &dyn Fn(&str) -> bool) -> ModelArgs {
    let said = |key: &str| json["model"].get(key).and_then(Value::as_str);
    let Some(model) = said("model") else { return typed };
    let mut parts = typed.parts;
    // A variable is not typed, and stands in no picture's way.
    if !is_typed("part") {
        parts.parts.retain(|name, _| is_typed(name));
    }
    for (name, path) in json["model"]["parts"].as_object().into_iter().flatten() {
        if let (false, Some(path)) = (parts.parts.contains_key(name), path.as_str()) {
            parts.parts.insert(name.clone(), path.into());
        }
    }
    ModelArgs {
        model: said("revision").map_or_else(|| model.to_owned(), |revision| format!("{model}@{revision}")),
        parts,
    }
}

/// The picture's number type, where the device is of its kind; elsewhere the picture comes out close to it, not equal.
fn set_dtype(json: &Value, flags: &mut GenerateArgs, report: &Report) {
    let said = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
    let here = match flags.machine.device {
        DeviceChoice::Cpu => "cpu",
        DeviceChoice::Cuda(_) => "cuda",
        DeviceChoice::Metal => "metal",
        DeviceChoice::Auto if cfg!(feature = "cuda") => "cuda",
        DeviceChoice::Auto if cfg!(feature = "metal") => "metal",
        DeviceChoice::Auto => "cpu",
    };
    let dtype = match said("dtype") {
        "f32" => Some(DtypeArg::F32),
        "bf16" => Some(DtypeArg::Bf16),
        "f16" => Some(DtypeArg::F16),
        _ => None,
    };
    if flags.machine.dtype.is_some() {
        return;
    }
    if said("device") == here {
        flags.machine.dtype = dtype;
    } else {
        report.on(Event::Note(format!(
            "the picture was made on {} in {}: on {here} it comes out close to it, not equal (--device {} makes it again)",
            said("device"),
            said("dtype"),
            said("device")
        )));
    }
}
