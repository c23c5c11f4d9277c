use super::*;
use crate::methods::Thresholds;

/// The small model of the fixtures' dimensions, 256 x 128 px on a training resolution of 128 px.
fn small() -> InspectSettings {
    InspectSettings {
        method: Method::YARN,
        dype: Some(DypeSettings::default()),
        size: ImageSize::new(256, 128).expect("valid"),
        geometry: LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 },
        base_resolution_px: 128,
        axes_dim: [4, 14, 4],
        theta: 10_000.0,
        mu: Some(1.15),
        t: vec![1.0, 0.1],
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
    // The slowest of 7 pairs is theta^(-6/7) / 2. At t = 1 gamma ends below pair 0; at t = 0.1 its ramp is pairs 1 to 4.
    let expected = "\
yarn, DyPE kappa = 1 t^2, 256 x 128 px, mu 1.15
  height    16 patches, scale 2.0000, amplitude 1.0693
  width      8 patches, scale 1.0000, amplitude 1.0000

                               height, rad/patch              width, rad/patch
step       t   kappa    lowest    highest native      lowest    highest native
   1  1.0000  1.0000  1.864e-4    1.000e0    1/7    1.000e-2    1.000e0    2/2
   2  0.1000  0.0100  1.864e-4    1.000e0    2/7    1.000e-2    1.000e0    2/2
";
    assert_eq!(inspect(&small()).expect("valid").table(), expected);
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
