//! Every flag's environment variable: `--max-sequence-length` is `DYPE_MAX_SEQUENCE_LENGTH`.
//!
//! A flag on the command line comes before any variable, also before the variable of a flag that it excludes: with
//! `DYPE_PROMPT` set, `--prompts FILE` reads the file.

use std::{collections::HashSet, ffi::OsString};

use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, builder::FalseyValueParser, error::ErrorKind,
    parser::ValueSource,
};

use super::{args::Cli, batch_args::SelectArgs, commands::inspect::OF_TOKENS, part_args};
use crate::recipe::FIELDS;

/// Flags that `dype decode` takes from the file.
const SAID_BY_LATENTS: [&str; 2] = ["height", "width"];

/// Flags that `dype convert` has too and that mean something else there: a variable for pictures changes no file of weights.
const OF_PICTURES: [&str; 2] = ["part", "lora"];

/// A command line as it was meant.
pub struct Parsed {
    /// Its values.
    pub cli: Cli,
    /// Ids of the flags that were typed, of the command that was typed.
    pub typed: HashSet<String>,
}

/// Parses a command line with the variables that stand behind it.
///
/// # Errors
/// clap's, help and version among them.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    // Without variables first, to see what was typed; what is wrong then is told below, with the full help.
    let bare_matches = bare().try_get_matches_from(&words);
    let typed = bare_matches.as_ref().map(typed).unwrap_or_default();
    // Help shows every variable.
    let is_help = bare_matches.is_err_and(|error| error.kind() == ErrorKind::DisplayHelp);
    let unneeded = if is_help { HashSet::new() } else { unneeded(&typed) };
    let matches = with_variables(bare(), &typed, &unneeded).try_get_matches_from(&words)?;
    Ok(Parsed { cli: Cli::from_arg_matches(&matches)?, typed })
}

/// Flags that `dype replay` takes from the picture, its settings, the model and its parts, and those for other pictures than this one: no
/// variable may stand in their way.
fn replayed() -> impl Iterator<Item = &'static str> {
    let others = ["model", "variant", "upscale"].into_iter().chain(SelectArgs::WHICH);
    FIELDS.iter().map(|field| field.flag()).chain(others).chain(part_args::ids())
}

/// The command without variables, its help as each subcommand means it.
fn bare() -> Command {
    let of_picture = |arg: Arg| {
        let is_setting = FIELDS.iter().any(|field| field.flag() == arg.get_id().as_str());
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        match help.split_once(" [default: ").filter(|_| is_setting) {
            Some((help, _)) => arg.help(help.to_owned()),
            None => arg.hide_default_value(is_setting),
        }
    };
    let folder =
        |arg: Arg| arg.help("Folder of the pictures and their comparison, ending in \"/\" [default: outputs/]");
    Cli::command()
        .mut_subcommand("replay", |command| command.mut_args(of_picture))
        .mut_subcommand("compare", |command| command.mut_arg("output", folder))
}

/// The whole command with all its variables, for help, completions and man pages.
pub fn command() -> Command {
    with_variables(bare(), &HashSet::new(), &HashSet::new())
}

/// A flag of a command, or of all where none is named.
type Flag = (Option<&'static str>, &'static str);

/// Flags that another flag gives a sense which is not given: their variables say nothing.
fn unneeded(typed: &HashSet<String>) -> HashSet<Flag> {
    let of_tokens = OF_TOKENS.map(|id| ((Some("inspect"), id), "tokens"));
    let needs = [((None, "preview_every"), "preview")].into_iter().chain(of_tokens);
    let is_set = |id: &str| std::env::var_os(variable(id)).is_some_and(|value| !value.is_empty());
    needs.filter(|(_, other)| !typed.contains(*other) && !is_set(other)).map(|(flag, _)| flag).collect()
}

fn typed(matches: &ArgMatches) -> HashSet<String> {
    if let Some((_, matches)) = matches.subcommand() {
        return typed(matches);
    }
    let is_typed = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    matches.ids().map(clap::Id::as_str).filter(is_typed).map(str::to_owned).collect()
}

fn with_variables(command: Command, typed: &HashSet<String>, unneeded: &HashSet<Flag>) -> Command {
    let excluded = excluded(&command, typed);
    let own = command.get_name().to_owned();
    let has_variable = |arg: &Arg| {
        let id = arg.get_id().as_str();
        // What is hidden is the opposite of a flag that has one.
        let is_flag = arg.get_long().is_some() && !arg.is_hide_set() && !["help", "version"].contains(&id);
        let is_told = match own.as_str() {
            "replay" => replayed().any(|told| told == id),
            "decode" => SAID_BY_LATENTS.contains(&id),
            "convert" => OF_PICTURES.contains(&id),
            _ => false,
        };
        let is_unneeded = unneeded.iter().any(|(of, flag)| *flag == id && of.is_none_or(|of| of == own));
        is_flag && !excluded.contains(id) && !is_unneeded && !is_told
    };
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| if has_variable(&arg) { with_variable(arg) } else { arg });
    names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |sub| with_variables(sub, typed, unneeded)))
}

/// Flags that a typed one excludes.
fn excluded(command: &Command, typed: &HashSet<String>) -> HashSet<String> {
    let mut excluded = HashSet::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        for other in command.get_arg_conflicts_with(arg).iter().map(|other| other.get_id().as_str()) {
            // Each excludes the other, whichever says so.
            for (typed_id, hidden) in [(id, other), (other, id)] {
                if typed.contains(typed_id) && !typed.contains(hidden) {
                    excluded.insert(hidden.to_owned());
                }
            }
        }
    }
    excluded
}

fn with_variable(arg: Arg) -> Arg {
    let Some(name) = variable_of(&arg) else { return arg };
    // An empty variable is one that is not set.
    if std::env::var_os(&name).is_some_and(|value| value.is_empty()) {
        return arg;
    }
    let arg =
        if matches!(arg.get_action(), ArgAction::SetTrue) { arg.value_parser(FalseyValueParser::new()) } else { arg };
    arg.env(name).hide_env_values(true)
}

/// The variable of an argument that is a flag; a setting's goes by the setting, whatever its flag is called.
fn variable_of(arg: &Arg) -> Option<String> {
    let is_it = |id: &&str| FIELDS.iter().any(|field| field.flag() == *id);
    Some(arg.get_id().as_str()).filter(is_it).or(arg.get_long()).map(variable)
}

/// The variable of a flag of this name.
fn variable(long: &str) -> String {
    format!("DYPE_{}", long.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_variable_and_they_are_shown() {
        let command = command();
        let is_shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
        for arg in command.get_arguments().filter(is_shown) {
            let env = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(env, variable_of(arg), "{}", arg.get_id());
        }
    }

    #[test]
    fn clap_finds_no_fault_with_any_command() {
        command().debug_assert();
    }

    #[test]
    fn what_is_replayed_hears_no_variable() {
        let command = command();
        let replay = command.get_subcommands().find(|command| command.get_name() == "replay").expect("a command");
        for id in replayed() {
            let arg = replay.get_arguments().find(|arg| arg.get_id() == id).expect(id);
            assert!(arg.get_env().is_none(), "{id}");
        }
        assert!(replay.get_arguments().any(|arg| arg.get_id() == "memory" && arg.get_env().is_some()));
    }

    #[test]
    fn latents_say_their_size_themselves() {
        let command = command();
        let decode = command.get_subcommands().find(|command| command.get_name() == "decode").expect("a command");
        let env = |id: &str| decode.get_arguments().find(|arg| arg.get_id() == id).expect(id).get_env().is_some();
        assert!(!env("height") && !env("width") && env("memory"));
    }

    #[test]
    fn what_is_converted_hears_no_variable_for_pictures() {
        let command = command();
        let convert = command.find_subcommand("convert").expect("a command");
        let env = |id: &str| convert.get_arguments().find(|arg| arg.get_id() == id).expect(id).get_env().is_some();
        assert!(OF_PICTURES.iter().all(|id| !env(id)) && env("model_dir"));
    }

    #[test]
    fn what_another_flag_gives_a_sense_hears_its_variable_with_that_flag_alone() {
        let hears = |typed: &[&str], of: Option<&str>, id: &str| {
            let typed = typed.iter().map(|id| (*id).to_owned()).collect();
            let command = with_variables(bare(), &typed, &unneeded(&typed));
            let command = of.map_or(&command, |of| command.find_subcommand(of).expect(of));
            command.get_arguments().find(|arg| arg.get_id() == id).expect(id).get_env().is_some()
        };
        for (typed, of, id, expected) in [
            (None, Some("inspect"), "prompt", false),
            (None, Some("inspect"), "max_sequence_length", false),
            (Some("tokens"), Some("inspect"), "max_sequence_length", true),
            (None, None, "prompt", true),
            (None, None, "max_sequence_length", true),
            (None, None, "preview_every", false),
            (Some("preview"), None, "preview_every", true),
        ] {
            assert_eq!(hears(typed.as_slice(), of, id), expected, "{typed:?} {of:?} {id}");
        }
    }

    #[test]
    fn a_typed_flag_silences_what_it_excludes() {
        let typed = HashSet::from(["prompts".to_owned()]);
        let command = with_variables(bare(), &typed, &HashSet::new());
        let env = |id: &str| command.get_arguments().find(|arg| arg.get_id() == id).expect(id).get_env().is_some();
        assert!(!env("prompt"));
        assert!(env("prompts") && env("seed"));
        let command = with_variables(bare(), &HashSet::from(["no_text_anchor".to_owned()]), &HashSet::new());
        let anchor = command.get_arguments().find(|arg| arg.get_id() == "text_anchor").expect("a switch");
        assert!(anchor.get_env().is_none());
    }
}
