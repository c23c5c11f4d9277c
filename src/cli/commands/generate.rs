//! Making pictures: from flags to wishes.

use std::io::Read;

use crate::cli::{
    args::GenerateArgs,
    execute::{self, MadeOn, Order},
    items::{self, Wish},
    notes,
    report::Report,
    target::Target,
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    recipe::{Merged, Source, Wanted},
};

/// Runs `dype` without a subcommand.
pub fn run(args: &GenerateArgs, report: &Report) -> anyhow::Result<()> {
    let wanted = &args.settings.wanted;
    for note in notes::without_effect(wanted) {
        report.on(Event::Note(note.into()));
    }
    let base = Wish {
        asked: Merged::of(Source::Flag, &with_stdin(wanted)?),
        target: Target::new(args.output.output.as_deref()),
        origin: None,
    };
    execute(args, &base, None, report)
}

/// Makes what `base` becomes with the flags that say which pictures.
pub fn execute(args: &GenerateArgs, base: &Wish, like: Option<MadeOn>, report: &Report) -> anyhow::Result<()> {
    let order = Order {
        wishes: items::wishes(base, &args.select)?,
        shard: args.select.shard.unwrap_or_default(),
        model: &args.model,
        machine: &args.machine,
        progress: &args.progress,
        output: &args.output,
        like,
    };
    execute::run(order, report, None)
}

/// What the flags want, with stdin's text in place of the prompt "-".
///
/// # Errors
/// [`Error::Request`] for a prompt on stdin that is no text.
pub fn with_stdin(flags: &Wanted) -> Result<Wanted> {
    let mut wanted = flags.clone();
    if wanted.prompt.as_deref() == Some("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| stdin_error(&error))?;
        wanted.prompt = Some(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(wanted)
}

fn stdin_error(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::InvalidData {
        return Error::request("the prompt from stdin is not UTF-8 text", "convert it first, for example with iconv");
    }
    Error::request(format!("cannot read the prompt from stdin: {error}"), "give it with --prompt TEXT")
}
