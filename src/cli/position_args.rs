//! The flags that say how positions are extrapolated: the same for a run and for `dype inspect`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::values;
use crate::methods::{DYPE_SCALE, DYPE_THRESHOLDS, DypeSettings, Method, Thresholds};
use crate::sampling::Mu;

/// Flags of position extrapolation, as typed.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct PositionArgs {
    /// Which method.
    #[command(flatten)]
    pub choice: MethodArgs,
    /// How it is tuned.
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// The method, and whether DyPE drives it.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[command(next_help_heading = "Position")]
pub struct MethodArgs {
    /// How positions beyond the training resolution are made: yarn and ntk rescale the rotary frequencies, base keeps them
    #[arg(long, value_name = "METHOD", default_value_t = Method::YARN, value_parser = methods(), hide_possible_values = true)]
    pub method: Method,

    /// Extrapolate the same at every step: no DyPE
    #[arg(long, alias = "no_dype", conflicts_with_all = ["dype_scale", "dype_exponent"])]
    pub no_dype: bool,
}

/// What is the same for every method.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[command(next_help_heading = "Position")]
pub struct TuningArgs {
    /// DyPE's strength at the first step, lambda_s [default: the paper's, 1 for yarn and 2 for ntk]
    #[arg(long, value_name = "NUMBER", value_parser = values::not_negative, allow_negative_numbers = true)]
    pub dype_scale: Option<f64>,

    /// How soon DyPE fades, lambda_t in kappa = lambda_s * t^lambda_t [default: 2]
    #[arg(long, value_name = "NUMBER", value_parser = values::not_negative, allow_negative_numbers = true)]
    pub dype_exponent: Option<f64>,

    /// How DyPE moves yarn's thresholds: product multiplies by kappa, power is the method's 2025-10 revision
    #[arg(long, value_name = "RULE", default_value_t = Thresholds::Product, value_parser = rules(), hide_possible_values = true)]
    pub dype_thresholds: Thresholds,

    /// The resolution the model was trained at, in pixels [default: what the model says, else 1024]
    #[arg(long, value_name = "PX", value_parser = values::side_px, allow_negative_numbers = true)]
    pub base_resolution: Option<usize>,

    /// Time shift: a number, or "stock" for FLUX's size-dependent formula [default: the scheduler's max_shift]
    #[arg(long, value_name = "MU", value_parser = values::mu, allow_negative_numbers = true)]
    pub mu: Option<Mu>,
}

impl PositionArgs {
    /// DyPE's settings as far as flags give them, or none with `--no-dype`.
    pub fn dype(&self) -> Option<DypeSettings> {
        (!self.choice.no_dype).then(|| self.tuning.dype())
    }

    /// Notes about flags that were given and change nothing.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let MethodArgs { method, no_dype } = self.choice;
        let has_lambdas = self.tuning.dype_scale.is_some() || self.tuning.dype_exponent.is_some();
        let has_thresholds = self.tuning.dype_thresholds == Thresholds::Power;
        let mut notes = Vec::new();
        if has_lambdas && !method.spec().has(&DYPE_SCALE) {
            notes
                .push("--dype-scale and --dype-exponent have no effect with --method base, which extrapolates nothing");
        }
        if has_thresholds && (no_dype || !method.spec().has(&DYPE_THRESHOLDS)) {
            notes.push("--dype-thresholds has no effect here: it is about --method yarn with DyPE");
        }
        notes
    }
}

impl TuningArgs {
    /// DyPE's settings as far as flags give them.
    pub fn dype(&self) -> DypeSettings {
        DypeSettings { scale: self.dype_scale, exponent: self.dype_exponent, thresholds: self.dype_thresholds }
    }
}

/// Method names; clap names the nearest for an unknown one.
fn methods() -> impl TypedValueParser<Value = Method> {
    PossibleValuesParser::new(Method::NAMES).try_map(|name| name.parse::<Method>())
}

/// Threshold rules; clap names the nearest for an unknown one.
fn rules() -> impl TypedValueParser<Value = Thresholds> {
    PossibleValuesParser::new(Thresholds::NAMES).try_map(|name| name.parse::<Thresholds>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        position: PositionArgs,
    }

    fn parse(words: &[&str]) -> Result<PositionArgs, clap::Error> {
        Cli::try_parse_from([&["dype"], words].concat()).map(|cli| cli.position)
    }

    #[test]
    fn without_flags_it_is_the_papers_dy_yarn() {
        let args = parse(&[]).expect("no flags are needed");
        assert_eq!(args.choice.method, Method::YARN);
        assert_eq!(args.dype(), Some(DypeSettings::default()));
        assert_eq!(args.tuning.mu, None);
    }

    #[test]
    fn both_spellings_of_no_dype_make_it_static() {
        for flag in ["--no-dype", "--no_dype"] {
            assert_eq!(parse(&[flag]).expect("a flag").dype(), None);
        }
    }

    #[test]
    fn flags_are_kept_one_by_one() {
        let args = parse(&["--dype-scale", "0.5", "--dype-thresholds", "power"]).expect("valid");
        let expected = DypeSettings { scale: Some(0.5), exponent: None, thresholds: Thresholds::Power };
        assert_eq!(args.dype(), Some(expected));
        assert_eq!(parse(&["--base-resolution", "512"]).expect("valid").tuning.base_resolution, Some(512));
        assert_eq!(parse(&["--mu", "stock"]).expect("valid").tuning.mu, Some(Mu::Stock));
    }

    #[test]
    fn flags_that_change_nothing_are_told() {
        let notes = |words: &[&str]| parse(words).expect("valid").without_effect();
        for words in [&[][..], &["--dype-scale", "2"], &["--dype-thresholds", "power"], &["--method", "base"]] {
            assert!(notes(words).is_empty(), "{words:?}");
        }
        assert!(notes(&["--method", "base", "--dype-exponent", "1"])[0].contains("--method base"));
        for words in [["--method", "ntk"], ["--no-dype", "--mu=1"]] {
            assert!(notes(&[&words[..], &["--dype-thresholds", "power"]].concat())[0].contains("--dype-thresholds"));
        }
    }

    #[test]
    fn an_unknown_method_names_the_nearest() {
        let error = parse(&["--method", "yarm"]).expect_err("no such method");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("yarn"), "{error}");
    }

    #[test]
    fn lambdas_and_resolutions_out_of_range_are_requests_that_make_no_sense() {
        let wrong =
            [["--dype-scale", "-1"], ["--dype-exponent", "nan"], ["--dype-scale", "inf"], ["--base-resolution", "15"]];
        for words in wrong {
            assert_eq!(parse(&words).expect_err("out of range").exit_code(), 2);
        }
        assert!(parse(&["--no-dype", "--dype-scale", "1"]).is_err());
    }
}
