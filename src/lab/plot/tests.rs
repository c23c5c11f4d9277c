use super::*;
use crate::base::geometry::{ImageSize, LatentGeometry};
use crate::lab::{InspectSettings, inspect};
use crate::methods::{DypeSettings, Knobs, Method, Spectrum};

/// FLUX.1's axes at a size; t falls evenly in 28 steps.
fn settings(method: Method, dype: bool, height: usize, width: usize) -> InspectSettings {
    InspectSettings {
        method,
        dype: dype.then_some(DypeSettings::default()),
        knobs: Knobs::default(),
        proportional_with: None,
        size: ImageSize::new(height, width).expect("valid"),
        geometry: LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 },
        base_resolution_px: 1024,
        axes_dim: [16, 56, 56],
        theta: 10_000.0,
        mu: Some(1.15),
        t: (0..28).map(|step| 1.0 - f64::from(step) / 28.0).collect(),
        spectrum: None,
    }
}

fn flux(method: Method, dype: bool, height: usize, width: usize) -> Inspection {
    inspect(&settings(method, dype, height, width)).expect("valid")
}

/// How many pixels are exactly of this colour.
fn pixels_of(image: &RgbImage, color: Color) -> usize {
    image.pixels().filter(|pixel| pixel.0 == color).count()
}

#[test]
fn curves_are_few_and_reach_both_ends_of_the_schedule() {
    let inspection = flux(Method::YARN, true, 4096, 4096);
    let curves = curves(&inspection);
    assert_eq!(curves.len(), CURVES);
    assert_eq!((curves[0].step, curves[CURVES - 1].step), (1, 28));
    assert_eq!(super::curves(&flux(Method::YARN, false, 4096, 4096)).len(), 1);
}

#[test]
fn unlike_axes_get_a_panel_each() {
    let [square, wide] = [(2048, 2048), (2048, 4096)].map(|(h, w)| draw(&flux(Method::YARN, true, h, w)));
    assert!(wide.width() > square.width() + 600);
    assert_eq!(wide.height(), square.height());
    let native = draw(&flux(Method::YARN, true, 1024, 512));
    assert_eq!(native.width(), wide.width());
}

#[test]
fn amplitudes_that_differ_between_pairs_get_a_panel() {
    let falling: Vec<f64> = (0..128).map(|bin| f64::from(bin + 1).powi(-3)).collect();
    let spectrum = Spectrum { height: falling.clone(), width: falling.clone(), rings: falling };
    let settings =
        InspectSettings { spectrum: Some(spectrum), t: vec![0.5], ..settings(Method::SEGA, false, 4096, 4096) };
    let inspection = inspect(&settings).expect("valid");
    let panels = panels(&curves(&inspection));
    assert_eq!(panels.len(), 2, "{panels:?}");
    let (.., quantity) = panels[1];
    let axis = &inspection.steps[0].axes[0];
    let places: Vec<f64> = quantity.values(axis).into_iter().map(|value| quantity.place(value)).collect();
    assert!(places.iter().all(|place| (0.0..=1.0).contains(place)) && places.contains(&0.0), "{places:?}");
    let ticks = quantity.ticks();
    assert!(ticks.len() > 3 && ticks[0] == (1.0, "1".into()), "{ticks:?}");
    assert!(draw(&inspection).width() > draw(&flux(Method::SEGA, false, 4096, 4096)).width() + 600);
}

#[test]
fn every_curve_is_seen() {
    let inspection = flux(Method::NTK, true, 4096, 4096);
    let image = draw(&inspection);
    for step in curves(&inspection) {
        assert!(pixels_of(&image, color(step)) > 500, "t = {}", step.t);
    }
    assert_eq!(pixels_of(&image, [1, 2, 3]), 0);
}

#[test]
fn points_stay_inside_their_panel() {
    let inspection = flux(Method::NTK, true, 65_536, 16);
    let curves = curves(&inspection);
    let panel =
        Panel { left: 0.0, quantity: Quantity::Frequency { octaves: octaves(&curves) }, name: "height", axis: 0 };
    for step in &curves {
        for (pair, ratio) in ratios(&step.axes[0]).enumerate() {
            let [x, y] = panel.place(pair, 28, ratio);
            assert!((0.0..=PANEL[0]).contains(&x) && (MARGIN_TOP..=MARGIN_TOP + PANEL[1]).contains(&y), "{x}, {y}");
        }
    }
}

#[test]
fn a_picture_is_saved_as_png_and_a_file_for_a_folder_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inspection = flux(Method::YARN, true, 4096, 2048);
    let path = folder.path().join("plot.png");
    save(&inspection, &path).expect("written");
    assert_eq!(image::open(&path).expect("a picture").to_rgb8(), draw(&inspection));
    let error = save(&inspection, &path.join("plot.png")).expect_err("a file is no folder");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn numbers_are_short() {
    assert_eq!([4.0, 2.5, 1.0156].map(short), ["4", "2.5", "1.02"]);
    assert_eq!([0, 1, 3, 10].map(octave_name), ["1", "1/2", "1/8", "2^-10"]);
}

#[test]
fn all_text_fits_the_sheet() {
    let inspection = flux(Method::NTK, true, 65_536, 65_520);
    let mut long = inspection.clone();
    long.schedule = Some(crate::methods::DypeSchedule { scale: 0.123_456_789_012_345_6, exponent: 0.3 / 0.7 });
    for image in [draw(&inspection), draw(&long)] {
        let right = image.width() - 1;
        let edge = (0..image.height()).flat_map(|y| [20, right - 20, right].map(|x| image.get_pixel(x, y).0));
        assert!(edge.into_iter().all(|pixel| pixel == [255; 3]), "something reaches the edge");
    }
}

/// Writes pictures to look at: `PLOTS=folder cargo test --lib pictures_to_look_at -- --ignored`.
#[test]
#[ignore = "writes files for a reader's eyes"]
fn pictures_to_look_at() {
    let folder = std::env::var("PLOTS").expect("PLOTS names a folder");
    let cases = [
        ("yarn", flux(Method::YARN, true, 4096, 4096)),
        ("yarn_wide", flux(Method::YARN, true, 2048, 4096)),
        ("ntk", flux(Method::NTK, true, 4096, 4096)),
        ("static", flux(Method::YARN, false, 4096, 4096)),
        ("huge", flux(Method::NTK, true, 65_536, 512)),
        ("small", flux(Method::YARN, true, 1024, 512)),
    ];
    for (name, inspection) in cases {
        save(&inspection, &Path::new(&folder).join(format!("{name}.png"))).expect("written");
    }
}
