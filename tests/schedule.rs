//! The sigmas against diffusers, and the scheduler files that are refused.

use std::{fs, path::PathBuf};

use dype::testing::{
    Error,
    recipe::Mu,
    sampling::{SchedulerConfig, TimeShift, resolve_mu, sigmas},
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
        let found = sigmas(&config, case.steps, 1280, mu).expect("a schedule");
        assert_eq!(found.len(), case.sigmas.len());
        for (i, (found, expected)) in found.iter().zip(&case.sigmas).enumerate() {
            assert!((found - expected).abs() <= 1e-6, "{} {} {i}: {found} {expected}", case.kind, case.steps);
        }
    }
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
        assert_eq!(resolve_mu(&config, tokens, Mu::Pinned), Some(1.15));
    }
    let stock = |tokens| resolve_mu(&config, tokens, Mu::Stock).expect("dynamic");
    assert!((stock(256) - 0.5).abs() < 1e-12);
    assert!((stock(4096) - 1.15).abs() < 1e-12);
    // 4096 x 4096 px: the value that ruins pictures.
    assert!((stock(65_536) - 11.55).abs() < 0.01);
    let ruined = sigmas(&config, 28, 65_536, Mu::Stock).expect("decreasing even so");
    assert!(ruined[27] > 0.99);
    let schnell = SchedulerConfig { use_dynamic_shifting: false, ..config };
    assert_eq!(resolve_mu(&schnell, 4096, Mu::Value(2.0)), None);
}

#[test]
fn a_linear_shift_uses_mu_itself() {
    let config = SchedulerConfig { time_shift_type: TimeShift::Linear, ..tiny_flux() };
    let found = sigmas(&config, 2, 0, Mu::Value(3.0)).expect("a schedule");
    assert_eq!(found, [1.0, 3.0 / (3.0 + 1.0), 0.0]);
}

#[test]
fn the_terminal_is_where_the_last_step_starts() {
    let config = SchedulerConfig { shift_terminal: Some(0.1), ..tiny_flux() };
    let found = sigmas(&config, 8, 0, Mu::Pinned).expect("a schedule");
    assert!((found[7] - 0.1).abs() < 1e-12);
    assert_eq!((found[0], found[8]), (1.0, 0.0));
    assert_eq!(sigmas(&config, 1, 0, Mu::Pinned).expect("a schedule"), [1.0, 0.0]);
}

#[test]
fn requests_without_a_schedule_are_refused() {
    let config = tiny_flux();
    assert_eq!(sigmas(&config, 0, 0, Mu::Pinned).expect_err("no steps").exit_code(), 2);
    for mu in [1e6, -1e6, 60.0] {
        let error = sigmas(&config, 28, 0, Mu::Value(mu)).expect_err("extreme");
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
