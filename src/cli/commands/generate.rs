//! Making pictures: from flags to wishes.

use std::{collections::HashSet, path::Path};

use crate::cli::{
    args::GenerateArgs,
    commands::upscale,
    execute::{self, MadeOn, Order},
    items::{self, Wish},
    notes,
    report::Report,
    target::Target,
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    recipe::{self, Merged, Source, Wanted},
};

/// Runs `dype` without a subcommand.
pub fn run(args: &GenerateArgs, typed: &HashSet<String>, report: &Report) -> anyhow::Result<()> {
    let wanted = &args.settings.wanted;
    if let (Some(_), Some(image)) = (args.upscale, &wanted.image) {
        return upscale::run(args, Path::new(&image.path), typed, report);
    }
    for note in notes::without_effect(wanted) {
        report.on(Event::Note(note.into()));
    }
    let base = Wish {
        asked: Merged::of(Source::Flag, &with_stdin(wanted, args.allow_empty_prompt)?),
        target: Target::new(args.output.output.as_deref()),
        origin: None,
    };
    execute(args, &base, None, report)
}

/// Makes what `base` becomes with the flags that say which pictures.
pub fn execute(args: &GenerateArgs, base: &Wish, like: Option<MadeOn>, report: &Report) -> anyhow::Result<()> {
    let order = Order {
        wishes: items::wishes(base, &args.select, args.allow_empty_prompt)?,
        shard: args.select.shard.unwrap_or_default(),
        model: &args.model,
        machine: &args.machine,
        progress: &args.progress,
        output: &args.output,
        like,
        upscale: args.upscale,
    };
    execute::run(order, report, None)
}

/// What the flags want, with stdin's text in place of the prompt "-".
///
/// # Errors
/// [`Error::Request`] for a prompt on stdin that is no text, and for an empty one that is not `may_be_empty`.
pub fn with_stdin(flags: &Wanted, may_be_empty: bool) -> Result<Wanted> {
    let mut wanted = flags.clone();
    if wanted.prompt.as_deref() == Some("-") {
        wanted.prompt = Some(recipe::read_prompt(std::io::stdin().lock())?);
    }
    if !may_be_empty && wanted.prompt.as_deref().is_some_and(|prompt| prompt.trim().is_empty()) {
        let hint = "say what to draw; --allow-empty-prompt makes a picture of no prompt";
        return Err(Error::request("the prompt is empty", hint));
    }
    Ok(wanted)
}
