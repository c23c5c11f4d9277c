//! `--upscale N`: a picture N times as large, from itself; one that dype made says how it was made.

use std::{collections::HashSet, path::Path};

use crate::{
    cli::{
        args::GenerateArgs,
        commands::{generate, replay},
        items::Wish,
        pictured::{self, Pictured},
        report::Report,
        target::Target,
    },
    error::Error,
    input, output,
    recipe::{FIELDS, ImageChoice, Merged, Source, Wanted},
};

/// Makes larger pictures of the one at `image`; `typed` are the ids of the flags that were typed, which go before what it says.
pub fn run(args: &GenerateArgs, image: &Path, typed: &HashSet<String>, report: &Report) -> anyhow::Result<()> {
    let mut flags = args.clone();
    let begun = Wanted { image: Some(ImageChoice::at(image)), ..Wanted::default() };
    let asked = match pictured::read(image) {
        Ok(pictured @ (Pictured::Whole { .. } | Pictured::Text { .. })) => {
            let said = replay::said(pictured, image, &mut flags, typed, report)?.wanted;
            // It is drawn again from itself, not from what it began with, at no size of its own and on no ladder.
            let said = Wanted {
                image: None,
                strength: None,
                height: None,
                width: None,
                ladder: None,
                ladder_pull: None,
                ..said
            };
            flags.select = flags.select.only(typed);
            replay::asked(said, &generate::with_stdin(&only(&flags.settings.wanted, typed), args.allow_empty_prompt)?)
        }
        // Edited, or of a newer version.
        Err(error) if output::read_provenance(image).is_ok_and(|said| said.is_some()) => return Err(error.into()),
        // Of another program, or of none that says anything: nothing is known of it but what it shows.
        Ok(Pictured::Stranger(_)) | Err(Error::Request { .. }) => {
            input::look(image)?;
            let wanted = generate::with_stdin(&args.settings.wanted, args.allow_empty_prompt)?;
            if wanted.prompt.is_none() && args.select.prompts.is_none() {
                return Err(no_prompt(image).into());
            }
            Merged::of(Source::Flag, &wanted)
        }
        Err(error) => return Err(error.into()),
    };
    let target = Target::new(flags.output.output.as_deref());
    let wish = Wish { asked: asked.with(Source::Flag, &begun), target, origin: None };
    generate::execute(&flags, &wish, None, report)
}

/// What was typed of the settings; a variable is not.
fn only(flags: &Wanted, typed: &HashSet<String>) -> Wanted {
    let mut wanted = Wanted::default();
    for field in FIELDS.iter().filter(|field| field.has_flag(&|flag| typed.contains(flag))) {
        field.copy(flags, &mut wanted);
    }
    wanted
}

fn no_prompt(image: &Path) -> Error {
    let what = format!("{} does not say what it is of, so that it cannot be drawn larger by itself", image.display());
    Error::request(what, "say what it shows with --prompt")
}
