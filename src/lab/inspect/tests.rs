use super::*;
use crate::methods::Thresholds;

/// The small model of the fixtures' dimensions, 256 x 128 px on a training resolution of 128 px.
fn small() -> InspectSettings {
    InspectSettings {
        method: Method::YARN,
        dype: Some(DypeSettings::default()),
        knobs: Knobs::default(),
        proportional_with: None,
        size: ImageSize::new(256, 128).expect("valid"),
        geometry: LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 },
        base_resolution_px: 128,
        axes_dim: [4, 14, 4],
        theta: 10_000.0,
        mu: Some(1.15),
        t: vec![1.0, 0.1],
        spectrum: None,
    }
}

#[test]
fn the_json_has_the_promised_layout() {
    let json = serde_json::to_string(&inspect(&small()).expect("valid")).expect("plain data");
    let expected_start = r#"{"method":"yarn","dype":true,"height":256,"width":128,"mu":1.15,"steps":[{"step":1,"t":1.0,"kappa":1.0,"axes":[{"axis":"height","patches":16,"scale":2.0,"inv_freq":[1.0,"#;
    assert!(json.starts_with(expected_start), "{json}");
    let width = r#"{"axis":"width","patches":8,"scale":1.0,"inv_freq":[1.0,0.01],"amplitude":[1.0,1.0]}]}"#;
    assert!(json.contains(width), "{json}");
    assert!(json.contains(r#"{"step":2,"t":0.1,"kappa":0.010000000000000002,"axes":["#), "{json}");
    assert!(!json.contains("native") && !json.contains("schedule"), "{json}");
}

#[test]
fn a_last_step_that_still_extrapolates_is_told() {
    let table = |t: &[f64]| inspect(&InspectSettings { t: t.to_vec(), ..small() }).expect("valid").table();
    assert!(table(&[1.0, 0.77]).contains("still extrapolates (kappa 0.59)"));
    assert!(table(&[1.0, 0.77]).lines().all(|line| line.len() <= 80));
    for quiet in [&[1.0, 0.1][..], &[1.0, 0.3], &[0.77]] {
        assert!(!table(quiet).contains("still extrapolates"), "{quiet:?}");
    }
}

#[test]
fn a_ramp_that_turns_round_is_told_with_its_steps() {
    let told = |t: &[f64], thresholds| {
        let dype = Some(DypeSettings { thresholds, ..DypeSettings::default() });
        let settings = InspectSettings { t: t.to_vec(), theta: 256.0, axes_dim: [4, 48, 48], dype, ..small() };
        let inspection = inspect(&settings).expect("valid");
        let in_json =
            serde_json::to_string(&inspection).expect("plain data").matches(r#""ramp_inverted":true"#).count();
        let table = inspection.table();
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
        let words = table.lines().skip_while(|line| !line.contains("turns round")).nth(1).unwrap_or_default();
        (words.split(';').next().unwrap_or_default().to_owned(), in_json)
    };
    // 8 patches are trained on: beta's ramp begins behind the last of 24 pairs below t = 0.057.
    let said = |words: &str, times| (words.to_owned(), times);
    assert_eq!(told(&[1.0, 0.05], Thresholds::Product), said("it are interpolated in step 2", 1));
    assert_eq!(told(&[1.0, 0.05, 0.04], Thresholds::Product), said("it are interpolated in steps 2 to 3", 2));
    assert_eq!(told(&[1.0, 0.2], Thresholds::Product), said("", 0));
    assert_eq!(told(&[1.0, 0.05], Thresholds::Settled), said("", 0));
}

#[test]
fn the_json_reads_back_to_the_same_bits() {
    let inspection = inspect(&small()).expect("valid");
    let json = serde_json::to_string(&inspection).expect("plain data");
    let lists = json.split(r#""inv_freq":["#).skip(1).map(|rest| rest.split(']').next().expect("a list"));
    let read: Vec<f64> = lists.flat_map(|list| list.split(',').map(|word| word.parse().expect("a number"))).collect();
    let axes = inspection.steps.iter().flat_map(|step| &step.axes);
    let held: Vec<f64> = axes.flat_map(|axis| axis.inv_freq.iter().copied()).collect();
    assert_eq!(read, held);
}

#[test]
fn kappa_is_null_where_nothing_depends_on_t() {
    for (method, dype) in [(Method::BASE, Some(DypeSettings::default())), (Method::YARN, None), (Method::NTK, None)] {
        let inspection = inspect(&InspectSettings { method, dype, ..small() }).expect("valid");
        let json = serde_json::to_string(&inspection).expect("plain data");
        assert!(json.contains(r#""dype":false"#) && json.contains(r#""kappa":null"#), "{json}");
    }
}

#[test]
fn the_frequencies_are_the_scalers() {
    let inspection = inspect(&InspectSettings { method: Method::NTK, ..small() }).expect("valid");
    let [axis, _] = RotaryAxis::of_picture([14, 14], 10_000.0, 8, [16, 16]);
    for step in &inspection.steps {
        let expected = Method::NTK.scaler(Some(DypeSettings::default())).frequencies(&axis, &Moment::at(step.t));
        assert_eq!(step.axes[0].inv_freq, expected.inv_freq);
        assert_eq!(step.axes[0].amplitude, expected.amplitude);
    }
    assert_ne!(inspection.steps[0].axes[0].inv_freq, inspection.steps[1].axes[0].inv_freq);
}

#[test]
fn the_table_is_this_one() {
    // D ln(8 / 2 pi r) / (2 ln theta) of 7 pairs: at t = 1 gamma (16 and 2) gives pairs below 0, beta (1.25, 0.75) pair 0 and
    // 0.40; at t = 0.1 thresholds are a hundredth, 3.50 pairs later: 1.57 to 3.16 and 3.52 to 3.90.
    let expected = "\
yarn, DyPE kappa = 1 t^2, 256 x 128 px, mu 1.15
  height    16 patches, scale 2.0000, amplitude 1.0693
  width      8 patches, scale 1.0000, amplitude 1.0000
Pairs: nat native, int interpolated (native / scale), btw between.
ramp 1 leads to NTK's, ramp 2 leads to interpolated.

                                 height, 7 pairs              width, 2 pairs
step       t   kappa nat btw int  ramp 1  ramp 2 nat btw int  ramp 1  ramp 2
   1  1.0000  1.0000   1   0   6     0-0     0-1   2   0   0       -       -
   2  0.1000  0.0100   2   2   3     1-4     3-4   2   0   0       -       -
";
    assert_eq!(inspect(&small()).expect("valid").table(), expected);
}

/// At 4096 px the borders move at every step, and with them what is native.
#[test]
fn the_table_shows_what_moves() {
    let settings = InspectSettings {
        size: ImageSize::new(4096, 4096).expect("valid"),
        base_resolution_px: 1024,
        axes_dim: [16, 56, 56],
        t: vec![1.0, 0.7, 0.4, 0.1],
        ..small()
    };
    let rows = |settings: &InspectSettings| -> Vec<String> {
        let table = inspect(settings).expect("valid").table();
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
        table.lines().rev().take(4).map(|line| line[20..].to_owned()).collect()
    };
    for method in [Method::YARN, Method::NTK] {
        let rows = rows(&InspectSettings { method, ..settings.clone() });
        assert!((0..3).all(|step| rows[step] != rows[step + 1]), "{}: {rows:#?}", method.name());
    }
    let still = rows(&InspectSettings { dype: None, ..settings });
    assert!(still.iter().all(|row| *row == still[0]), "{still:#?}");
}

#[test]
fn the_widest_table_fits_80_columns() {
    let settings = InspectSettings {
        method: Method::NTK,
        dype: Some(DypeSettings { scale: Some(1.25), exponent: Some(0.75), thresholds: Thresholds::Power }),
        size: ImageSize::new(65_536, 65_536).expect("valid"),
        base_resolution_px: 16,
        axes_dim: [16, 256, 256],
        t: vec![1.0; 10_000],
        ..small()
    };
    let table = inspect(&settings).expect("valid").table();
    let widest = table.lines().map(str::len).max();
    assert!(widest <= Some(80), "{widest:?}\n{}", &table[..800]);
}

#[test]
fn a_small_picture_says_that_nothing_acts() {
    let settings = InspectSettings { size: ImageSize::new(128, 128).expect("valid"), ..small() };
    let inspection = inspect(&settings).expect("valid");
    assert!(!inspection.extrapolates());
    assert!(inspection.table().contains("has an effect"), "{}", inspection.table());
}

#[test]
fn settings_that_no_run_has_are_errors_with_a_hint() {
    let wrong_scale = Some(DypeSettings { scale: Some(f64::NAN), ..DypeSettings::default() });
    let wrong = [
        InspectSettings { base_resolution_px: 15, ..small() },
        InspectSettings { dype: wrong_scale, ..small() },
        InspectSettings { t: vec![1.0, f64::NAN], ..small() },
    ];
    for settings in wrong {
        let error = inspect(&settings).expect_err("impossible");
        assert!(error.hint().is_some(), "{error}");
    }
}
