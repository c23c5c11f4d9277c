//! Flags that say which parts of a model come from elsewhere: one for each part that a family gives a flag, and `--part` for any.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::ValueParser, error::ErrorKind, value_parser,
};

use crate::models::{BUILT_IN, PartSpec};

/// The id and the long name of the flag for any part.
const ANY: &str = "part";

/// Parts that come from elsewhere, by name: a file or folder each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartArgs {
    /// By the part's name.
    pub parts: BTreeMap<String, PathBuf>,
}

/// The parts that have a flag, each flag once.
fn flagged() -> Vec<&'static PartSpec> {
    let mut parts: Vec<&PartSpec> = Vec::new();
    for part in BUILT_IN.iter().flat_map(|family| family.parts()).filter(|part| part.flag.is_some()) {
        if !parts.iter().any(|known| known.flag == part.flag) {
            parts.push(part);
        }
    }
    parts
}

/// What a part's flag is for, whatever the family.
fn help(part: &PartSpec) -> String {
    let alike = BUILT_IN.iter().flat_map(|family| family.parts()).filter(|other| other.flag == part.flag);
    let mut whats: Vec<&str> = Vec::new();
    let mut how = "";
    for (what, given) in alike.filter_map(|part| part.help.split_once(": ")) {
        if !whats.contains(&what) {
            whats.push(what);
        }
        how = if how.is_empty() { given } else { how };
    }
    format!("{}: {how}", whats.join(" or "))
}

/// The ids of all flags for parts.
pub fn ids() -> impl Iterator<Item = &'static str> {
    flagged().into_iter().map(|part| part.name).chain([ANY])
}

/// `NAME=PATH`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("a part is NAME=PATH, such as vae=ae.safetensors".into()),
    }
}

impl Args for PartArgs {
    fn augment_args(command: Command) -> Command {
        let flag = |part: &PartSpec| {
            let arg = Arg::new(part.name).long(part.flag.unwrap_or(part.name)).value_name("PATH");
            arg.value_parser(value_parser!(PathBuf)).help(help(part))
        };
        let any = Arg::new(ANY).long(ANY).value_name("NAME=PATH").action(ArgAction::Append);
        let any = any.value_parser(ValueParser::new(named)).help("Any part by its name: a file or a folder");
        command.args(flagged().into_iter().map(flag)).arg(any)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PartArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut parts = BTreeMap::new();
        for part in flagged() {
            if let Some(path) = matches.get_one::<PathBuf>(part.name) {
                parts.insert(part.name.to_owned(), path.clone());
            }
        }
        for (name, path) in matches.get_many::<(String, PathBuf)>(ANY).into_iter().flatten() {
            if parts.insert(name.clone(), path.clone()).is_some() {
                let what = format!("the part {name} is given more than once\n");
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, what));
            }
        }
        Ok(Self { parts })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        parts: PartArgs,
    }

    fn parse(words: &[&str]) -> Result<BTreeMap<String, PathBuf>, clap::Error> {
        Cli::try_parse_from([&["dype"], words].concat()).map(|cli| cli.parts.parts)
    }

    #[test]
    fn a_part_is_given_by_its_flag_or_by_its_name() {
        let found = parse(&["--text-encoder-2", "a", "--part", "vae=b=c", "--part", "scheduler=d"]).expect("parts");
        let found: Vec<_> = found.iter().map(|(name, path)| (name.as_str(), path.to_str())).collect();
        assert_eq!(found, [("scheduler", Some("d")), ("text_encoder_2", Some("a")), ("vae", Some("b=c"))]);
    }

    #[test]
    fn what_names_no_part_or_one_twice_is_refused() {
        for words in [&["--part", "vae"][..], &["--part", "=x"], &["--vae", "a", "--part", "vae=b"]] {
            assert_eq!(parse(words).expect_err("refused").exit_code(), 2, "{words:?}");
        }
    }
}
