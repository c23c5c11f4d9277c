//! The flags of a picture's settings, as their declarations say: each command takes some of them.

use std::marker::PhantomData;

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    builder::{PossibleValue, PossibleValuesParser, ValueParser},
    parser::ValueSource,
};

use crate::recipe::{FIELDS, Field, Group, Style, Wanted};

/// Which settings a command takes.
pub trait Choice {
    /// Whether it takes those of this group.
    fn takes(group: Group) -> bool;

    /// The heading of a group in help.
    fn heading(group: Group) -> Option<&'static str> {
        Some(match group {
            Group::Picture | Group::Extent => "Picture",
            Group::Choice | Group::Tuning => "Position",
        })
    }
}

/// What a picture is made with: all settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct All;

impl Choice for All {
    fn takes(_group: Group) -> bool {
        true
    }
}

/// All but the method: what several methods have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnyMethod;

impl Choice for AnyMethod {
    fn takes(group: Group) -> bool {
        group != Group::Choice
    }
}

/// Size and steps, among the flags of no heading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent;

impl Choice for Extent {
    fn takes(group: Group) -> bool {
        group == Group::Extent
    }

    fn heading(_group: Group) -> Option<&'static str> {
        None
    }
}

/// How positions are extrapolated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position;

impl Choice for Position {
    fn takes(group: Group) -> bool {
        matches!(group, Group::Choice | Group::Tuning)
    }
}

/// What the flags of settings ask for; flags that were not given, with no variable behind them, ask for nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingFlags<C> {
    /// It.
    pub wanted: Wanted,
    choice: PhantomData<C>,
}

fn taken<C: Choice>() -> impl Iterator<Item = &'static dyn Field> {
    FIELDS.iter().copied().filter(|field| C::takes(field.face().group))
}

impl<C: Choice> Args for SettingFlags<C> {
    fn augment_args(command: Command) -> Command {
        taken::<C>().fold(command, |command, field| {
            command
                .arg(arg(field, C::heading(field.face().group)))
                .args(field.opposite().map(|name| opposite(field, name)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: Choice> FromArgMatches for SettingFlags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut wanted = Wanted::default();
        for field in taken::<C>() {
            let is_given =
                |flag: &str| matches.value_source(flag).is_some_and(|source| source != ValueSource::DefaultValue);
            if let Some(text) = field.has_flag(&is_given).then(|| text_of(field, matches)).flatten() {
                let refuse = |what| clap::Error::raw(clap::error::ErrorKind::ValueValidation, what);
                field.set_text(&mut wanted, &text).map_err(refuse)?;
            }
        }
        Ok(Self { wanted, choice: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What a flag says, as its setting reads it. A variable may say that a flag is not given.
fn text_of(field: &dyn Field, matches: &ArgMatches) -> Option<String> {
    match field.style() {
        Style::Switch => {
            let is_off_flag = field.face().off.is_some();
            let said = |flag: &str, on: bool| matches.get_flag(flag).then(|| on.to_string());
            said(field.flag(), !is_off_flag).or_else(|| said(field.opposite()?, is_off_flag))
        }
        Style::Many => {
            let texts: Vec<String> = matches.get_many::<String>(field.flag())?.cloned().collect();
            Some(texts.join("\n"))
        }
        _ => matches.get_one::<String>(field.flag()).cloned(),
    }
}

fn arg(field: &'static dyn Field, heading: Option<&'static str>) -> Arg {
    let face = field.face();
    let help = face.default.map_or_else(|| face.help.to_owned(), |words| format!("{} [default: {words}]", face.help));
    let own = field.flag().replace('_', "-");
    let arg = match face.long {
        Some(long) => Arg::new(field.flag()).long(long).alias(own),
        None => Arg::new(field.flag()).long(own),
    };
    let arg = arg.help(help).help_heading(heading);
    let arg = match field.style() {
        Style::Switch => return switch(arg, field),
        Style::Prose => arg.allow_hyphen_values(true).value_parser(checked(field)),
        Style::Number => arg.allow_negative_numbers(true).value_parser(checked(field)),
        Style::Name | Style::Many => arg.value_parser(checked(field)),
        Style::OneOf(words) => arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true),
        Style::Spelt(words) => {
            let values = words.iter().map(|word| PossibleValue::new(word.name).aliases(word.also));
            arg.value_parser(PossibleValuesParser::new(values)).hide_possible_values(true).ignore_case(true)
        }
    };
    let action = if field.style() == Style::Many { ArgAction::Append } else { ArgAction::Set };
    let arg = arg.value_name(face.value_name).action(action);
    let arg = field.shown_default().into_iter().fold(arg, |arg, text| arg.default_value(text));
    face.short.into_iter().fold(arg, |arg, letter| arg.short(letter))
}

/// A flag without a value; one of two words is taken in both spellings, as the reference has it.
fn switch(arg: Arg, field: &dyn Field) -> Arg {
    let arg = arg.action(ArgAction::SetTrue);
    match field.face().off {
        Some(off) => arg.alias(off.name).conflicts_with_all(off.excludes),
        None => arg,
    }
}

/// The flag that says the opposite of a switch, where a picture or a variable says the switch; help needs no line for it.
fn opposite(field: &dyn Field, name: &'static str) -> Arg {
    let kebab = name.replace('_', "-");
    let help = format!("The opposite of --{}", field.flag().replace('_', "-"));
    Arg::new(name).long(kebab).help(help).hide(true).action(ArgAction::SetTrue).conflicts_with(field.flag())
}

/// Takes the text that the setting takes.
fn checked(field: &'static dyn Field) -> ValueParser {
    let check = move |text: &str| field.set_text(&mut Wanted::default(), text).map(|()| text.to_owned());
    ValueParser::new(check)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        methods::{DypeSettings, Method, Thresholds},
        recipe::{Mu, Recipe},
    };

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        flags: SettingFlags<All>,
    }

    fn parse(words: &[&str]) -> Result<Wanted, clap::Error> {
        Cli::try_parse_from([&["dype"], words].concat()).map(|cli| cli.flags.wanted)
    }

    fn recipe(words: &[&str]) -> Recipe {
        Recipe::draft(&parse(words).expect("valid")).expect("in range")
    }

    #[test]
    fn without_flags_it_is_the_papers_dy_yarn() {
        assert_eq!(parse(&[]).expect("no flags are needed"), Wanted::default());
        let usual = recipe(&[]);
        let paper = DypeSettings { scale: Some(1.0), exponent: Some(2.0), ..DypeSettings::default() };
        assert_eq!((usual.method, usual.dype_settings(), usual.mu), (Method::YARN, Some(paper), Mu::Pinned));
    }

    #[test]
    fn both_spellings_of_no_dype_make_it_static() {
        for flag in ["--no-dype", "--no_dype"] {
            assert_eq!(parse(&[flag]).expect("a flag").dype, Some(false));
            assert_eq!(recipe(&[flag]).dype_settings(), None);
        }
    }

    #[test]
    fn every_switch_has_an_opposite() {
        let on = Wanted { fp8_products: Some(true), text_anchor: Some(true), dype: Some(false), ..Wanted::default() };
        let off = Wanted { fp8_products: Some(false), text_anchor: Some(false), dype: Some(true), ..Wanted::default() };
        assert_eq!(parse(&["--fp8-products", "--text-anchor", "--no-dype"]).expect("switches"), on);
        assert_eq!(parse(&["--no-fp8-products", "--no-text-anchor", "--dype"]).expect("opposites"), off);
        let switches = FIELDS.iter().filter(|field| field.style() == Style::Switch);
        for (flag, opposite) in switches.map(|field| (field.flag(), field.opposite().expect("of a switch"))) {
            let [flag, opposite] = [flag, opposite].map(|name| format!("--{}", name.replace('_', "-")));
            assert_ne!(parse(&[&opposite]).expect("a flag"), Wanted::default(), "{opposite}");
            assert!(parse(&[&flag, &opposite]).expect_err("both").to_string().contains(&opposite), "{flag}");
        }
    }

    #[test]
    fn flags_are_kept_one_by_one() {
        let wanted = parse(&["--dype-scale", "0.5", "--dype-thresholds", "power"]).expect("valid");
        let expected = Wanted { dype_scale: Some(0.5), dype_thresholds: Some(Thresholds::Power), ..Wanted::default() };
        assert_eq!(wanted, expected);
        assert_eq!(parse(&["--base-resolution", "512"]).expect("valid").base_resolution, Some(512));
        assert_eq!(parse(&["--mu", "stock"]).expect("valid").mu, Some(Mu::Stock));
    }

    #[test]
    fn an_unknown_method_names_the_nearest() {
        let error = parse(&["--method", "yarm"]).expect_err("no such method");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("yarn"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_requests_that_make_no_sense() {
        let wrong =
            [["--dype-scale", "-1"], ["--dype-exponent", "nan"], ["--dype-scale", "inf"], ["--base-resolution", "15"]];
        for words in wrong {
            assert_eq!(parse(&words).expect_err("out of range").exit_code(), 2);
        }
        assert!(parse(&["--no-dype", "--dype-scale", "1"]).is_err());
    }

    #[test]
    fn seeds_are_64_bits() {
        assert_eq!(parse(&["--seed", "18446744073709551615"]).expect("the last").seed, Some(u64::MAX));
        for text in ["random", "-1"] {
            assert!(parse(&["--seed", text]).expect("a fresh one").seed.expect("drawn") < 1 << 32);
        }
        for text in ["-2", "18446744073709551616", "x", "1.5"] {
            assert!(parse(&["--seed", text]).expect_err(text).to_string().contains("18446744073709551615"));
        }
    }

    #[test]
    fn steps_start_at_one() {
        assert!(parse(&["--steps", "0"]).is_err());
        assert_eq!(parse(&["--steps", "1"]).expect("one").steps, Some(1));
    }
}
