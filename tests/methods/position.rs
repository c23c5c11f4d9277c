//! Frequency tables of every scaler against the reference: 496 cases of method, revision, t, size and rotary width.

use std::collections::HashMap;

use crate::support::golden::assert_tables;
use dype::testing::methods::{
    Amplitude, Detail, DypeSettings, Fading, Knobs, Looks, Method, Moment, RotaryAxis, Scaling, Spectrum, Thresholds,
    proportional,
};
use safetensors::SafeTensors;
use serde::Deserialize;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(crate::support::fixture("expected").join(name)).expect("the fixture is part of the repository")
}

fn f64s(tensors: &SafeTensors, key: &str) -> Vec<f64> {
    let bytes = tensors.tensor(key).expect("a table for each case").data();
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect()
}

fn relative(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected.abs()
}

#[test]
fn every_table_is_the_references() {
    assert_eq!(assert_tables(&crate::support::fixture("expected")).len(), 496);
}

#[test]
fn what_varies_with_t_says_so() {
    let dype = Some(DypeSettings::default());
    assert_eq!(Method::NTK.scaler(dype).looks(), Looks::Time);
    assert_eq!(Method::YARN.scaler(dype).looks(), Looks::Time);
    assert_eq!(Method::BASE.scaler(dype).looks(), Looks::Nothing);
    assert_eq!(Method::PI.scaler(dype).looks(), Looks::Time);
    for method in [Method::BASE, Method::NTK, Method::YARN, Method::PI] {
        assert_eq!(method.scaler(None).looks(), Looks::Nothing);
    }
    assert_eq!(Method::SEGA.scaler(dype).looks(), Looks::Spectrum);
}

#[test]
fn every_temperature_and_bias_of_anchored_text_is_the_references() {
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&fixture("tide.json")).expect("valid JSON");
    let file = fixture("tide.safetensors");
    let tensors = SafeTensors::deserialize(&file).expect("valid safetensors");
    let knobs = Knobs { text_anchor: true, ..Knobs::default() };
    let anchored = Method::YARN.tuned(Some(DypeSettings::default()), knobs);
    let (mut tables, mut biases) = (0, 0);
    for case in &cases {
        let name = case["case"].as_str().expect("a name");
        if name == "text_bias" {
            let rows: Vec<[f64; 4]> = serde_json::from_value(case["rows"].clone()).expect("numbers");
            for [width, height, base, expected] in rows {
                let [width, height, base] = [width, height, base].map(|px| px as usize / 16);
                let axes = RotaryAxis::of_picture([56; 2], 10_000.0, base, [height, width]);
                let found = anchored.key_bias(&axes, &Moment::at(0.5)).map_or(0.0, |bias| bias.0);
                assert!((found - expected).abs() <= 1e-12 * expected.max(1.0), "{found} for {expected}");
                biases += 1;
            }
        } else if name.starts_with("amplitude_") {
            let number = |key: &str| case[key].as_f64().expect("a number");
            let (dim, theta, scale) = (number("dim") as usize, number("theta"), number("s"));
            let axis = RotaryAxis::of_picture([dim; 2], theta, 64, [(64.0 * scale) as usize; 2])[0];
            let expected = f64s(&tensors, &format!("{name}/raw"));
            let times: Vec<f64> = serde_json::from_value(case["t"].clone()).expect("numbers");
            for (t, expected) in times.iter().zip(expected.chunks(dim / 2)) {
                let found = anchored.frequencies(&axis, &Moment::at(*t)).amplitude;
                let worst = found.iter().zip(expected).map(|(a, b)| relative(*a, *b)).fold(0.0, f64::max);
                assert!(worst <= 1e-12, "{name} at {t}: off by {worst:e}");
            }
            tables += 1;
        }
    }
    assert_eq!((tables, biases), (15, 14));
    assert!(
        Method::NTK
            .tuned(None, knobs)
            .key_bias(&RotaryAxis::of_picture([56; 2], 1e4, 64, [256; 2]), &Moment::at(1.0))
            .is_none()
    );
}

/// A case of ComfyUI-DyPE's rules, and the knobs that are that rule here.
#[derive(Debug, Deserialize)]
struct ScalingCase {
    case: String,
    rule: String,
    rows: usize,
    columns: usize,
    dim: usize,
    theta: f64,
    base_patches: usize,
    /// Where the amplitude begins to fade.
    start_sigma: Option<f64>,
    t: Vec<f64>,
    amplitude: Vec<f64>,
}

impl ScalingCase {
    fn scaler(&self) -> Box<dyn dype::testing::methods::PositionScaler> {
        let (method, scaling, amplitude) = match self.rule.as_str() {
            "vision_yarn" => (Method::YARN, Scaling::Mixed, Amplitude::Fading),
            "isotropic_yarn" => (Method::YARN, Scaling::Longest, Amplitude::Damped),
            "isotropic_pi" => (Method::PI, Scaling::Longest, Amplitude::Yarn),
            "isotropic_ntk" => (Method::NTK, Scaling::Longest, Amplitude::Yarn),
            other => panic!("no such rule: {other}"),
        };
        let fading = self.start_sigma.map_or_else(Fading::default, |start| Fading { start });
        let dype = DypeSettings { thresholds: Thresholds::Power, ..DypeSettings::default() };
        method.tuned(Some(dype), Knobs { scaling, amplitude, fading, text_anchor: false })
    }
}

#[test]
fn every_table_by_the_longer_side_is_the_references() {
    let cases: Vec<ScalingCase> = serde_json::from_slice(&fixture("scaling.json")).expect("valid JSON");
    let file = fixture("scaling.safetensors");
    let tensors = SafeTensors::deserialize(&file).expect("valid safetensors");
    let mut tables = 0;
    for case in &cases {
        let scaler = case.scaler();
        let axes = RotaryAxis::of_picture([case.dim; 2], case.theta, case.base_patches, [case.rows, case.columns]);
        for (axis, letter) in axes.iter().zip(["h", "w"]) {
            let table = format!("{}/inv_freq_{letter}", case.case);
            let expected = tensors.tensor(&table).is_ok().then(|| f64s(&tensors, &table));
            tables += usize::from(expected.is_some());
            for (step, (t, amplitude)) in case.t.iter().zip(&case.amplitude).enumerate() {
                let found = scaler.frequencies(axis, &Moment::at(*t));
                let pairs = step * case.dim / 2..(step + 1) * case.dim / 2;
                let expected = expected.as_ref().map_or(&found.inv_freq[..], |table| &table[pairs]);
                let worst = found.inv_freq.iter().zip(expected).map(|(a, b)| relative(*a, *b)).fold(0.0, f64::max);
                assert!(worst <= 1e-12, "{letter} at {t} off by {worst:e}: {case:?}");
                assert!(found.amplitude.iter().all(|found| relative(*found, *amplitude) <= 1e-12), "{t}: {case:?}");
            }
        }
    }
    // The case with a start has one axis' table.
    assert_eq!((cases.len(), tables), (23, 45));
}

#[test]
fn every_scale_of_proportional_attention_is_the_references() {
    let rows: Vec<(usize, usize, usize, f64)> =
        serde_json::from_slice(&fixture("proportional.json")).expect("valid JSON");
    assert_eq!(rows.len(), 20);
    for (tokens, head_dim, trained, expected) in rows {
        let found = proportional(tokens, trained) / (head_dim as f64).sqrt();
        assert!(relative(found, expected) <= 1e-12, "{found} for {expected}: {tokens} of {trained}");
    }
}

/// A case of SEGA's: the picture, and the rotary embedding of its two axes.
#[derive(Debug, Deserialize)]
struct SegaCase {
    case: String,
    rows: usize,
    columns: usize,
    dims: [usize; 2],
    theta: f64,
    base_px: usize,
    /// Of the rings, where something is extrapolated.
    spread: Option<f64>,
}

#[test]
fn every_amplitude_of_sega_is_the_references() {
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&fixture("sega.json")).expect("valid JSON");
    // Those without an axis are inputs.
    let cases = cases.into_iter().filter(|case| case.get("dims").is_some());
    let cases: Vec<SegaCase> = cases.map(|case| serde_json::from_value(case).expect("a case")).collect();
    let file = fixture("sega.safetensors");
    let tensors = SafeTensors::deserialize(&file).expect("valid safetensors");
    let sega = Method::SEGA.scaler(None);
    assert_eq!((cases.len(), sega.looks()), (24, Looks::Spectrum));
    for case in &cases {
        let of = |field: &str| f64s(&tensors, &format!("{}/{field}", case.case));
        let has_spectrum = tensors.tensor(&format!("{}/radial", case.case)).is_ok();
        let spectrum =
            has_spectrum.then(|| Spectrum { height: of("profile_h"), width: of("profile_w"), rings: of("radial") });
        let at = Moment { spectrum: spectrum.as_ref(), ..Moment::at(0.5) };
        let axes = RotaryAxis::of_picture(case.dims, case.theta, case.base_px / 16, [case.rows, case.columns]);
        for (axis, letter) in axes.iter().zip(["h", "w"]) {
            let details: HashMap<_, _> = sega.details(axis, &at).into_iter().collect();
            assert_eq!(details.contains_key("spread"), case.spread.is_some(), "{case:?}");
            if let (Some(Detail::One(found)), Some(expected)) = (details.get("spread"), case.spread) {
                assert!(relative(*found, expected) <= 1e-8, "spread {found}: {case:?}");
            }
            if let Some(Detail::Many(found)) = details.get("correction") {
                let pairs = found.iter().zip(of(&format!("correction_{letter}")));
                let worst = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
                assert!(worst <= 1e-8, "correction_{letter} off by {worst:e}: {case:?}");
            }
            let found = sega.frequencies(axis, &at);
            for (name, found) in [("inv_freq", found.inv_freq), ("amplitude", found.amplitude)] {
                let expected = of(&format!("{name}_{letter}"));
                assert_eq!(found.len(), expected.len(), "{case:?}");
                let worst = found.iter().zip(&expected).map(|(a, b)| relative(*a, *b)).fold(0.0, f64::max);
                assert!(worst <= 1e-8, "{name}_{letter} off by {worst:e}: {case:?}");
            }
        }
    }
}
