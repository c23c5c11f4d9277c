//! The flags that say how positions are extrapolated: the same for a run and for `dype inspect`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::error::{Error, Result};
use crate::flux::FluxConfig;
use crate::geometry::{MAX_SIDE_PX, PX_PER_TOKEN};
use crate::position::{DypeSettings, Method, Thresholds};

/// The training resolution of FLUX.1, in pixels. Source: the reference code's `base_resolution`.
pub const BASE_RESOLUTION_PX: usize = 1024;

/// Flags of position extrapolation, as typed.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[command(next_help_heading = "Position")]
pub struct PositionArgs {
    /// How positions beyond the training resolution are made: yarn and ntk rescale the rotary frequencies, base keeps them
    #[arg(long, value_name = "METHOD", default_value_t = Method::Yarn, value_parser = methods(), hide_possible_values = true)]
    pub method: Method,

    /// Extrapolate the same at every step: no DyPE
    #[arg(long, alias = "no_dype")]
    pub no_dype: bool,

    /// DyPE's strength at the first step, lambda_s [default: the paper's, 1 for yarn and 2 for ntk]
    #[arg(long, value_name = "NUMBER", value_parser = lambda, allow_negative_numbers = true, conflicts_with = "no_dype")]
    pub dype_scale: Option<f64>,

    /// How soon DyPE fades, lambda_t in kappa = lambda_s * t^lambda_t [default: 2]
    #[arg(long, value_name = "NUMBER", value_parser = lambda, allow_negative_numbers = true, conflicts_with = "no_dype")]
    pub dype_exponent: Option<f64>,

    /// How DyPE moves yarn's thresholds: product multiplies by kappa, power is the method's 2025-10 revision
    #[arg(long, value_name = "RULE", default_value_t = Thresholds::Product, value_parser = rules(), hide_possible_values = true)]
    pub dype_thresholds: Thresholds,

    /// The resolution the model was trained at, in pixels [default: what the model says, else 1024]
    #[arg(long, value_name = "PX")]
    pub base_resolution: Option<usize>,
}

impl PositionArgs {
    /// DyPE's settings, or none with `--no-dype`: the flags', else the model's own, else the paper's.
    pub fn dype(&self, config: &FluxConfig) -> Option<DypeSettings> {
        (!self.no_dype).then_some(DypeSettings {
            scale: self.dype_scale.or(config.dype_scale),
            exponent: self.dype_exponent.or(config.dype_exponent),
            thresholds: self.dype_thresholds,
        })
    }

    /// The training resolution in pixels: the flag's, else the model's own, else [`BASE_RESOLUTION_PX`].
    ///
    /// # Errors
    /// [`Error::Request`] when it is below one token or above the longest side.
    pub fn base_resolution_px(&self, config: &FluxConfig) -> Result<usize> {
        let px = self.base_resolution.or(config.base_resolution).unwrap_or(BASE_RESOLUTION_PX);
        if (PX_PER_TOKEN..=MAX_SIDE_PX).contains(&px) {
            return Ok(px);
        }
        let hint = format!("give {PX_PER_TOKEN} to {MAX_SIDE_PX} px; FLUX.1 was trained at {BASE_RESOLUTION_PX}");
        Err(Error::request(format!("--base-resolution {px}: out of range"), hint))
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

/// A lambda of DyPE's schedule.
fn lambda(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number of 0 or more; the paper's are 1 or 2".into()),
    }
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

    fn parse(words: &[&str]) -> std::result::Result<PositionArgs, clap::Error> {
        Cli::try_parse_from([&["dype"], words].concat()).map(|cli| cli.position)
    }

    #[test]
    fn without_flags_it_is_the_papers_dy_yarn() {
        let args = parse(&[]).expect("no flags are needed");
        assert_eq!(args.method, Method::Yarn);
        assert_eq!(args.dype(&FluxConfig::flux1_dev()), Some(DypeSettings::default()));
        assert_eq!(args.base_resolution_px(&FluxConfig::flux1_dev()).expect("the default"), 1024);
    }

    #[test]
    fn both_spellings_of_no_dype_make_it_static() {
        for flag in ["--no-dype", "--no_dype"] {
            assert_eq!(parse(&[flag]).expect("a flag").dype(&FluxConfig::flux1_dev()), None);
        }
    }

    #[test]
    fn flags_come_before_the_models_own_numbers() {
        let mut config = FluxConfig::flux1_dev();
        (config.dype_scale, config.dype_exponent, config.base_resolution) = (Some(3.0), Some(4.0), Some(64));
        let args = parse(&["--dype-scale", "0.5", "--dype-thresholds", "power"]).expect("valid");
        let expected = DypeSettings { scale: Some(0.5), exponent: Some(4.0), thresholds: Thresholds::Power };
        assert_eq!(args.dype(&config), Some(expected));
        assert_eq!(args.base_resolution_px(&config).expect("the model's"), 64);
        let args = parse(&["--base-resolution", "512"]).expect("valid");
        assert_eq!(args.base_resolution_px(&config).expect("the flag's"), 512);
    }

    #[test]
    fn an_unknown_method_names_the_nearest() {
        let error = parse(&["--method", "yarm"]).expect_err("no such method");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("yarn"), "{error}");
    }

    #[test]
    fn lambdas_and_resolutions_out_of_range_are_requests_that_make_no_sense() {
        for words in [["--dype-scale", "-1"], ["--dype-exponent", "nan"], ["--dype-scale", "inf"]] {
            assert_eq!(parse(&words).expect_err("out of range").exit_code(), 2);
        }
        assert!(parse(&["--no-dype", "--dype-scale", "1"]).is_err());
        for px in ["0", "15", "1000000000"] {
            let args = parse(&["--base-resolution", px]).expect("a number");
            let error = args.base_resolution_px(&FluxConfig::flux1_dev()).expect_err("out of range");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
