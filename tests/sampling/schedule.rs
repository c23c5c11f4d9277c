//! The sigmas against diffusers, and the scheduler files that are refused.

use std::{fs, path::PathBuf};

use dype::testing::{
    Error,
    recipe::{Mu, SamplerName, Spacing},
    sampling::{MuRule, ScheduleFor, SchedulerConfig, Shift, TimeShift, sigmas},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    kind: String,
    steps: usize,
    mu: Option<f64>,
    shift: Option<f64>,
    sigmas: Vec<f64>,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tiny_flux() -> SchedulerConfig {
    SchedulerConfig::read(&fixture("tiny-flux/scheduler/scheduler_config.json")).expect("reads")
}

fn schedule_for(steps: usize, image_tokens: usize, mu: Mu) -> ScheduleFor {
    ScheduleFor { steps, spacing: Spacing::Uniform, sampler: SamplerName::Euler, image_tokens, base_tokens: 4096, mu }
}

fn mu_of(config: &SchedulerConfig, image_tokens: usize, mu: Mu) -> Option<f64> {
    Shift::of(config, &schedule_for(28, image_tokens, mu)).mu()
}

fn read(json: &str) -> dype::testing::Result<SchedulerConfig> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scheduler_config.json");
    fs::write(&path, json).expect("written");
    SchedulerConfig::read(&path)
}

#[test]
fn sigmas_are_those_of_diffusers() {
    let text = fs::read_to_string(fixture("expected/schedule.json")).expect("golden");
    let golden: Vec<Golden> = serde_json::from_str(&text).expect("golden");
    assert_eq!(golden.len(), 30);
    for case in golden {
        let config = SchedulerConfig {
            use_dynamic_shifting: case.kind == "dynamic",
            shift: case.shift.unwrap_or(3.0),
            ..tiny_flux()
        };
        let mu = case.mu.map_or(Mu::Pinned, Mu::Value);
        let found = sigmas(&config, &schedule_for(case.steps, 1280, mu)).expect("a schedule");
        assert_eq!(found.len(), case.sigmas.len());
        for (i, (found, expected)) in found.iter().zip(&case.sigmas).enumerate() {
            assert!((found - expected).abs() <= 1e-6, "{} {} {i}: {found} {expected}", case.kind, case.steps);
        }
    }
}

/// A schedule of another family.
#[derive(Deserialize)]
struct Family {
    kind: Option<String>,
    steps: usize,
    tokens: Option<usize>,
    mu: Option<f64>,
    shift: Option<f64>,
    sigmas: Option<Vec<f64>>,
}

fn families(name: &str) -> Vec<Family> {
    let text = fs::read_to_string(fixture(&format!("expected/schedule-{name}.json"))).expect("golden");
    serde_json::from_str(&text).expect("golden")
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-6, "{what}, {i}: {found} {expected}");
    }
}

#[test]
fn a_static_shift_is_that_of_diffusers_and_has_no_mu() {
    let golden = families("z-image");
    assert_eq!(golden.len(), 18);
    for case in golden {
        let config = SchedulerConfig { shift: case.shift.expect("static"), ..SchedulerConfig::default() };
        let wanted = schedule_for(case.steps, 65_536, Mu::Value(9.0));
        let found = sigmas(&config, &wanted).expect("a schedule");
        assert_close(&found, &case.sigmas.expect("sigmas"), &format!("shift {:?}, {}", case.shift, case.steps));
        assert_eq!(Shift::of(&config, &wanted), Shift::Static(config.shift));
    }
}

#[test]
fn the_empirical_mu_is_that_of_diffusers_and_is_pinned_beyond_the_base_resolution() {
    let config = SchedulerConfig { mu_rule: MuRule::Empirical, ..tiny_flux() };
    let golden = families("flux2-klein");
    assert_eq!(golden.len(), 54);
    for case in golden {
        let (mu, expected) = (case.mu.expect("mu"), case.sigmas.expect("sigmas"));
        let Some(tokens) = case.tokens else {
            // The pinned mu is the formula's at the base resolution and this number of steps.
            let large = schedule_for(case.steps, 65_536, if mu == 1.15 { Mu::Value(mu) } else { Mu::Pinned });
            assert_close(&sigmas(&config, &large).expect("a schedule"), &expected, "pinned");
            assert!((Shift::of(&config, &large).mu().expect("dynamic") - mu).abs() < 1e-12);
            continue;
        };
        let wanted = schedule_for(case.steps, tokens, Mu::Stock);
        assert!((Shift::of(&config, &wanted).mu().expect("dynamic") - mu).abs() < 1e-12, "{tokens} {}", case.steps);
        assert_close(&sigmas(&config, &wanted).expect("a schedule"), &expected, &format!("{tokens} tokens"));
        let usual = Shift::of(&config, &ScheduleFor { mu: Mu::Pinned, ..wanted });
        match tokens > 4096 {
            true => assert!(matches!(usual, Shift::Held(_, 4096, stock) if (stock - mu).abs() < 1e-12), "{usual:?}"),
            false => assert_eq!(usual, Shift::of(&config, &wanted)),
        }
        assert_eq!(Shift::of(&config, &ScheduleFor { mu: Mu::Value(0.5), ..wanted }), Shift::Asked(0.5));
    }
    // Against another base resolution, another value: 16 x 16 tokens.
    let small = ScheduleFor { base_tokens: 256, ..schedule_for(8, 288, Mu::Pinned) };
    assert!((Shift::of(&config, &small).mu().expect("dynamic") - 1.9356576230124463).abs() < 1e-12);
}

#[test]
fn the_unbounded_line_is_that_of_diffusers_and_held_where_its_authors_stop() {
    let (max_image_seq_len, max_shift, shift_terminal) = (8192, 0.9, Some(0.02));
    let mu_rule = MuRule::LineUpTo(36_864);
    let config = SchedulerConfig { max_image_seq_len, max_shift, shift_terminal, mu_rule, ..tiny_flux() };
    let golden = families("qwen-image");
    assert_eq!(golden.len(), 54);
    for case in golden {
        assert!(case.kind.is_none());
        let (tokens, mu) = (case.tokens.expect("tokens"), case.mu.expect("mu"));
        let wanted = schedule_for(case.steps, tokens, Mu::Stock);
        assert!((Shift::of(&config, &wanted).mu().expect("dynamic") - mu).abs() < 1e-12);
        let found = sigmas(&config, &wanted).expect("a schedule");
        match case.sigmas {
            Some(expected) => assert_close(&found, &expected, &format!("{tokens} tokens, {} steps", case.steps)),
            // One step: the reference divides 0 by 0; here nothing is stretched.
            None => assert_eq!((case.steps, found.as_slice()), (1, [1.0, 0.0].as_slice())),
        }
        let usual = Shift::of(&config, &ScheduleFor { mu: Mu::Pinned, ..wanted }).mu().expect("dynamic");
        assert!((usual - mu.min(2.3451612903225807)).abs() < 1e-12, "{tokens}: {usual}");
    }
    let held = Shift::of(&config, &schedule_for(40, 65_536, Mu::Pinned)).to_string();
    assert_eq!(held, "mu 2.345, held from 36864 tokens on; the stock formula says 3.790");
}

#[test]
fn the_rule_of_mu_is_the_familys_and_told_where_it_is_not_the_usual_one() {
    let usual = serde_json::to_value(tiny_flux()).expect("JSON");
    assert_eq!(usual.get("mu_rule"), None, "pictures from before there were rules stay what they are");
    let other = SchedulerConfig { mu_rule: MuRule::Empirical, ..tiny_flux() };
    assert_eq!(serde_json::to_value(other).expect("JSON")["mu_rule"], "empirical");
    let read = read(r#"{"use_dynamic_shifting": true, "mu_rule": "empirical"}"#).expect("reads");
    assert_eq!(read.mu_rule, MuRule::MaxShift, "no file says it");
}

#[test]
fn the_config_of_tiny_flux_is_read() {
    let config = tiny_flux();
    assert!(config.use_dynamic_shifting);
    assert_eq!((config.shift, config.base_shift, config.max_shift), (3.0, 0.5, 1.15));
    assert_eq!((config.base_image_seq_len, config.max_image_seq_len), (256, 4096));
    assert_eq!(config.shift_terminal, None);
    assert_eq!(config.time_shift_type, TimeShift::Exponential);
}

#[test]
fn missing_keys_take_the_defaults_of_diffusers() {
    assert_eq!(read("{}").expect("reads"), SchedulerConfig::default());
}

#[test]
fn mu_is_pinned_and_the_stock_formula_is_an_option() {
    let config = tiny_flux();
    for tokens in [256, 4096, 65_536] {
        assert_eq!(mu_of(&config, tokens, Mu::Pinned), Some(1.15));
    }
    let stock = |tokens| mu_of(&config, tokens, Mu::Stock).expect("dynamic");
    assert!((stock(256) - 0.5).abs() < 1e-12);
    assert!((stock(4096) - 1.15).abs() < 1e-12);
    // 4096 x 4096 px: the value that ruins pictures.
    assert!((stock(65_536) - 11.55).abs() < 0.01);
    let ruined = sigmas(&config, &schedule_for(28, 65_536, Mu::Stock)).expect("decreasing even so");
    assert!(ruined[27] > 0.99);
    let schnell = SchedulerConfig { use_dynamic_shifting: false, ..config };
    assert_eq!(mu_of(&schnell, 4096, Mu::Value(2.0)), None);
}

/// TIDE's values: 1.15 at 1024 x 1024 px as the pinned one, and 1.8 at 4096 x 4096.
#[test]
fn mu_may_follow_the_logarithm_of_the_tokens() {
    let text = fs::read_to_string(fixture("expected/tide.json")).expect("cases");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let rows = &cases.iter().find(|case| case["case"] == "log_mu").expect("a table")["rows"];
    let rows: Vec<(usize, f64)> = serde_json::from_value(rows.clone()).expect("tokens and mu");
    let config = tiny_flux();
    assert_eq!(rows.len(), 8);
    for (tokens, expected) in rows {
        let mu = mu_of(&config, tokens, "log".parse().expect("a word")).expect("a dynamic shift");
        assert!((mu - expected).abs() < 1e-12, "{tokens}: {mu} for {expected}");
    }
}

#[test]
fn a_linear_shift_uses_mu_itself() {
    let config = SchedulerConfig { time_shift_type: TimeShift::Linear, ..tiny_flux() };
    let found = sigmas(&config, &schedule_for(2, 0, Mu::Value(3.0))).expect("a schedule");
    assert_eq!(found, [1.0, 3.0 / (3.0 + 1.0), 0.0]);
}

#[test]
fn the_terminal_is_where_the_last_step_starts() {
    let config = SchedulerConfig { shift_terminal: Some(0.1), ..tiny_flux() };
    let found = sigmas(&config, &schedule_for(8, 0, Mu::Pinned)).expect("a schedule");
    assert!((found[7] - 0.1).abs() < 1e-12);
    assert_eq!((found[0], found[8]), (1.0, 0.0));
    assert_eq!(sigmas(&config, &schedule_for(1, 0, Mu::Pinned)).expect("a schedule"), [1.0, 0.0]);
}

#[test]
fn requests_without_a_schedule_are_refused() {
    let config = tiny_flux();
    assert_eq!(sigmas(&config, &schedule_for(0, 0, Mu::Pinned)).expect_err("no steps").exit_code(), 2);
    for mu in [1e6, -1e6, 60.0] {
        let error = sigmas(&config, &schedule_for(28, 0, Mu::Value(mu))).expect_err("extreme");
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn mu_is_read_and_written() {
    for text in ["stock", "pinned", "1.15", "-0.5"] {
        assert_eq!(text.parse::<Mu>().expect("reads").to_string(), text);
    }
    for text in ["", "stok", "nan", "inf", "1,15"] {
        assert_eq!(text.parse::<Mu>().expect_err("refused").exit_code(), 2);
    }
}

#[test]
fn schedulers_that_are_not_implemented_are_named() {
    let cases = [
        (r#"{"use_karras_sigmas": true}"#, "use_karras_sigmas"),
        (r#"{"use_exponential_sigmas": true}"#, "use_exponential_sigmas"),
        (r#"{"use_beta_sigmas": true}"#, "use_beta_sigmas"),
        (r#"{"invert_sigmas": true}"#, "invert_sigmas"),
        (r#"{"stochastic_sampling": true}"#, "stochastic_sampling"),
        (r#"{"_class_name": "DDIMScheduler"}"#, "DDIMScheduler"),
        (r#"{"time_shift_type": "cubic"}"#, "cubic"),
        (r#"{"shift": 0.0}"#, "shift"),
        (r#"{"shift": "3"}"#, r#"shift is "3", expected a number"#),
        (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps 0"),
        (r#"{"num_train_timesteps": 500}"#, "num_train_timesteps 500"),
        ("[]", "scheduler_config.json"),
        (r#"{"base_image_seq_len": 4096}"#, "base_image_seq_len"),
        (r#"{"shift_terminal": 1.5}"#, "shift_terminal"),
        ("not json", "scheduler_config.json"),
    ];
    for (json, named) in cases {
        let error = read(json).expect_err(json);
        assert!(matches!(error, Error::Model { .. }), "{json}: {error}");
        assert!(error.to_string().contains(named), "{json}: {error}");
    }
    assert!(
        read(r#"{"use_karras_sigmas": null, "stochastic_sampling": false, "num_train_timesteps": 1000.0}"#).is_ok()
    );
}
