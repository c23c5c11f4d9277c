//! A command line that makes no sense, told like every other error: what is wrong, and a hint.

use std::process::ExitCode;

use super::report::Report;
use crate::error::Error;

/// Prints the help that was asked for, or what is wrong with the command line; gives the exit code.
pub fn tell(error: &clap::Error, report: &Report) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has seen enough of the help is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let error = as_request(&error.render().to_string());
    let code = error.exit_code();
    report.error(&error.into());
    ExitCode::from(code)
}

/// clap's text, whose paragraphs are the message, tips and the usage, as an error with its hint.
fn as_request(text: &str) -> Error {
    let (mut what, mut hint) = (String::new(), String::new());
    for paragraph in text.split("\n\n") {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(message) = line.strip_prefix("error: ") {
            what = message.to_owned();
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            hint = tip.replace(" tip: ", "; ");
        }
    }
    if hint.is_empty() {
        let command = if text.contains(" inspect [") { "dype inspect" } else { "dype" };
        hint = match what.starts_with("the subcommand") {
            true => "put the flags behind the subcommand".into(),
            false => format!("`{command} --help` lists every flag and what it takes"),
        };
    }
    Error::request(what, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_and_its_tip_are_kept_and_the_usage_is_not() {
        let text = "error: invalid value 'yarm' for '--method <METHOD>'\n  [possible values: base, ntk, yarn]\n\n  \
                    tip: a similar value exists: 'yarn'\n\nFor more information, try '--help'.\n";
        let error = as_request(text);
        assert_eq!(
            error.to_string(),
            "invalid value 'yarm' for '--method <METHOD>' [possible values: base, ntk, yarn]"
        );
        assert_eq!(error.hint().as_deref(), Some("a similar value exists: 'yarn'"));
    }

    #[test]
    fn without_a_tip_the_help_is_named() {
        let text = "error: unexpected argument 'x' found\n\nUsage: dype inspect [OPTIONS]\n\nFor more information";
        let error = as_request(text);
        assert_eq!(error.to_string(), "unexpected argument 'x' found");
        assert!(error.hint().expect("advice").contains("dype inspect --help"));
    }
}
