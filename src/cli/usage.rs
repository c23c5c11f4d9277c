//! A command line that makes no sense, told like every other error: what is wrong, and a hint.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, error::ErrorKind};

use super::{args::Cli, report::Report};
use crate::error::Error;

/// Prints the help that was asked for, or what is wrong with the command line; gives the exit code.
pub fn tell(error: &clap::Error, report: &Report) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has seen enough of the help is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let word = std::env::args_os().nth(1).unwrap_or_default().to_string_lossy().into_owned();
    let is_command = Cli::command().get_subcommands().any(|known| known.get_name() == word);
    let command = if is_command { format!("dype {word}") } else { "dype".to_owned() };
    let error = if error.kind() == ErrorKind::InvalidUtf8 {
        let variables = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DYPE_"));
        not_text(std::env::args_os().skip(1).chain(variables.map(|(_, value)| value)))
    } else {
        as_request(&error.render().to_string(), &command)
    };
    let code = error.exit_code();
    report.error(&error.into());
    ExitCode::from(code)
}

/// That a flag which takes text was given something else, which is among these words.
fn not_text(words: impl Iterator<Item = OsString>) -> Error {
    let odd: Vec<String> = words.filter(|word| word.to_str().is_none()).map(|word| format!("{word:?}")).collect();
    let what = format!("what was given is not UTF-8 text: {}", odd.join(", "));
    let hint = "convert a prompt, for example with iconv; give a model or picture of such a name by a link to it (ln -s NAME plain)";
    Error::request(what, hint)
}

/// clap's text, whose paragraphs are the message, tips and the usage, as an error with its hint.
fn as_request(text: &str, command: &str) -> Error {
    let (mut what, mut hint) = (String::new(), String::new());
    for paragraph in text.split("\n\n") {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(message) = line.strip_prefix("error: ") {
            what = message.to_owned();
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            hint = tip.replace(" tip: ", "; ");
        }
    }
    if let Some(word) = subcommand(&what) {
        // Every word without a flag is a subcommand to clap; most often it is a prompt.
        return match Cli::command().get_subcommands().any(|known| known.get_name() == word) {
            true => Error::request(what, "put the flags behind the subcommand"),
            false if hint.is_empty() => Error::request(
                format!("unexpected argument '{word}' found"),
                "a prompt is given with --prompt, in quotes; `dype --help` lists every flag",
            ),
            false => Error::request(what, hint),
        };
    }
    if hint.is_empty() {
        hint = format!("`{command} --help` lists every flag and what it takes");
    }
    Error::request(what, hint)
}

/// The subcommand that a message is about.
fn subcommand(what: &str) -> Option<&str> {
    let rest = what.strip_prefix("the subcommand '").or_else(|| what.strip_prefix("unrecognized subcommand '"))?;
    Some(rest.rsplit_once("' cannot be used with").map_or_else(|| rest.trim_end_matches('\''), |(word, _)| word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_and_its_tip_are_kept_and_the_usage_is_not() {
        let text = "error: invalid value 'yarm' for '--method <METHOD>'\n  [possible values: base, ntk, yarn]\n\n  \
                    tip: a similar value exists: 'yarn'\n\nFor more information, try '--help'.\n";
        let error = as_request(text, "dype inspect");
        assert_eq!(
            error.to_string(),
            "invalid value 'yarm' for '--method <METHOD>' [possible values: base, ntk, yarn]"
        );
        assert_eq!(error.hint().as_deref(), Some("a similar value exists: 'yarn'"));
    }

    #[test]
    fn a_prompt_without_its_flag_is_told_where_to_go() {
        for text in [
            "error: unrecognized subcommand 'it's a castle'\n\nUsage: dype [OPTIONS]",
            "error: the subcommand 'it's a castle' cannot be used with '--width <PX>'\n\nUsage: dype [OPTIONS]",
        ] {
            let error = as_request(text, "dype inspect");
            assert_eq!(error.to_string(), "unexpected argument 'it's a castle' found");
            assert!(error.hint().expect("advice").contains("--prompt"));
        }
        let error = as_request("error: the subcommand 'inspect' cannot be used with '--width <PX>'", "dype");
        assert!(error.hint().expect("advice").contains("behind the subcommand"));
    }

    #[test]
    fn without_a_tip_the_help_is_named() {
        let text = "error: unexpected argument 'x' found\n\nUsage: dype inspect [OPTIONS]\n\nFor more information";
        let error = as_request(text, "dype inspect");
        assert_eq!(error.to_string(), "unexpected argument 'x' found");
        assert!(error.hint().expect("advice").contains("dype inspect --help"));
    }
}
