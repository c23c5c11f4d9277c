//! The schedules `simple` and `beta`, and where ER-SDE begins.

use dype::testing::{
    base::json::read_json,
    recipe::{Mu, SamplerName, Spacing},
    sampling::{ScheduleFor, SchedulerConfig, sigmas},
};
use serde::Deserialize;

use crate::support::fixture;

#[derive(Deserialize)]
struct Golden {
    schedules: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    steps: usize,
    mu: f64,
    simple: Vec<f64>,
    beta: Vec<f64>,
}

fn tiny_flux() -> SchedulerConfig {
    SchedulerConfig::read(&fixture("tiny-flux/scheduler/scheduler_config.json")).expect("reads")
}

fn wanted(steps: usize, spacing: Spacing, mu: Mu) -> ScheduleFor {
    ScheduleFor { steps, spacing, sampler: SamplerName::Euler, image_tokens: 4096, base_tokens: 4096, mu }
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "step {step}: {found} {expected}");
    }
}

#[test]
fn simple_and_beta_are_comfyuis() {
    let golden: Golden = read_json(&fixture("expected/samplers.json")).expect("golden");
    assert_eq!(golden.schedules.len(), 24);
    for Row { steps, mu, simple, beta } in golden.schedules {
        for (spacing, expected) in [(Spacing::Simple, simple), (Spacing::Beta, beta)] {
            let found = sigmas(&tiny_flux(), &wanted(steps, spacing, Mu::Value(mu))).expect("a schedule");
            assert_near(&found, &expected, 1e-7);
        }
    }
}

/// The table's grain is all that parts them.
#[test]
fn simple_is_uniform_to_a_ten_thousandth() {
    for steps in [1, 7, 28, 50] {
        let of = |spacing| sigmas(&tiny_flux(), &wanted(steps, spacing, Mu::Pinned)).expect("a schedule");
        assert_near(&of(Spacing::Simple), &of(Spacing::Uniform), 5e-4);
    }
}

#[test]
fn sigmas_that_come_twice_are_left_out() {
    let of = |steps| sigmas(&tiny_flux(), &wanted(steps, Spacing::Beta, Mu::Pinned)).expect("a schedule").len() - 1;
    assert_eq!([100, 500, 1000].map(of), [100, 500, 997]);
    assert_eq!(sigmas(&tiny_flux(), &wanted(10_000, Spacing::Simple, Mu::Pinned)).expect("all").len(), 10_001);
}

/// schnell's shift of 1 leaves the table's sigmas as they are.
#[test]
fn a_static_shift_spreads_them_too() {
    let config = SchedulerConfig { use_dynamic_shifting: false, shift: 1.0, ..tiny_flux() };
    let of = |spacing| sigmas(&config, &wanted(4, spacing, Mu::Pinned)).expect("a schedule");
    assert_eq!(of(Spacing::Simple), [1.0, 0.75, 0.5, 0.25, 0.0]);
    assert_near(&of(Spacing::Beta), &[1.0, 0.8243, 0.5001, 0.1758, 0.0], 1e-12);
}

#[test]
fn er_sde_begins_below_one_and_the_others_do_not() {
    let mut asked = wanted(28, Spacing::Uniform, Mu::Value(1.15));
    let usual = sigmas(&tiny_flux(), &asked).expect("a schedule");
    asked.sampler = SamplerName::ErSde;
    let found = sigmas(&tiny_flux(), &asked).expect("a schedule");
    assert!((found[0] - 0.9999683341591349).abs() < 1e-12, "{}", found[0]);
    assert_eq!((usual[0], &found[1..]), (1.0, &usual[1..]));
    for sampler in [SamplerName::Heun, SamplerName::Dpmpp2m] {
        asked.sampler = sampler;
        assert_eq!(sigmas(&tiny_flux(), &asked).expect("a schedule"), usual);
    }
}
