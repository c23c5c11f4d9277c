//! Making pictures: from flags to wishes.

use std::io::Read;

use crate::cli::{
    args::{DEFAULT_GUIDANCE, DEFAULT_PROMPT, GenerateArgs, PictureArgs},
    execute::{self, Job},
    items::{self, Wish},
    position_args::TuningArgs,
    report::Report,
    target::Target,
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    methods::{DypeSettings, Method},
    recipe::settings::Request,
    sampling::Mu,
};

/// Runs `dype` without a subcommand.
pub fn run(args: &GenerateArgs, report: &Report) -> anyhow::Result<()> {
    let position = &args.position;
    for note in position.without_effect() {
        report.on(Event::Note(note.into()));
    }
    let request = request(&args.picture, position.choice.method, position.dype(), &position.tuning)?;
    let base = Wish {
        request,
        target: Target::new(args.output.output.as_deref()),
        origin: None,
        guidance_given: args.picture.guidance.is_some(),
    };
    execute(args, &base, report)
}

/// Makes what `base` becomes with the flags that say which pictures.
pub fn execute(args: &GenerateArgs, base: &Wish, report: &Report) -> anyhow::Result<()> {
    let job = Job {
        wishes: items::wishes(base, &args.select)?,
        shard: args.select.shard.unwrap_or_default(),
        model: &args.model,
        machine: &args.machine,
        progress: &args.progress,
        output: &args.output,
    };
    execute::run(job, report, None)
}

/// The request that the flags make.
///
/// # Errors
/// [`Error::Request`] for an impossible size, or a prompt on stdin that is no text.
pub fn request(
    picture: &PictureArgs,
    method: Method,
    dype: Option<DypeSettings>,
    tuning: &TuningArgs,
) -> Result<Request> {
    Ok(Request {
        prompt: prompt(picture.prompt.as_deref())?,
        size: picture.extent.size()?,
        steps: picture.extent.steps,
        seed: picture.seed,
        guidance: picture.guidance.unwrap_or(DEFAULT_GUIDANCE),
        max_sequence_length: picture.max_sequence_length,
        rng: picture.rng,
        method,
        dype,
        base_resolution: tuning.base_resolution,
        mu: tuning.mu.unwrap_or(Mu::Pinned),
    })
}

/// The prompt: the flag's, stdin's for "-", else the default scene.
pub fn prompt(flag: Option<&str>) -> Result<String> {
    match flag {
        None => Ok(DEFAULT_PROMPT.to_owned()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| stdin_error(&error))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        Some(text) => Ok(text.to_owned()),
    }
}

fn stdin_error(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::InvalidData {
        return Error::request("the prompt from stdin is not UTF-8 text", "convert it first, for example with iconv");
    }
    Error::request(format!("cannot read the prompt from stdin: {error}"), "give it with --prompt TEXT")
}
