//! Comparisons.

use serde_json::Value;

use crate::{
    arguments, lines, names, provenance,
    support::program::{Place, Run, rgb8},
};

fn compare(place: &Place, args: &[&str]) -> Run {
    let mut all = vec!["compare".to_owned()];
    all.extend(arguments(args));
    place.dype(&all)
}

#[test]
fn one_picture_each_a_sheet_and_its_numbers() {
    let place = Place::new();
    let run = compare(&place, &["--prompt", "a lake", "--base-resolution", "32", "--steps", "2"]);
    let made = lines(run.succeeds());
    let labels = ["base", "ntk", "dy_ntk", "yarn", "dy_yarn"];
    let expected = labels.map(|label| format!("outputs/seed_42_method_{label}_res_64x64.png"));
    assert_eq!(made[..5], expected);
    assert_eq!(made[5..], ["outputs/compare_seed_42_res_64x64.png", "outputs/compare_seed_42_res_64x64.json"]);

    let text = std::fs::read_to_string(place.path(made[6])).expect("readable");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["sheet"], made[5]);
    for (index, label) in labels.iter().enumerate() {
        let one = &json["pictures"][index];
        assert_eq!((&one["method"], &one["path"]), (&(*label).into(), &made[index].into()));
        assert_eq!(one["settings"], provenance(&place.path(made[index]))["settings"]);
        assert_eq!(one["model"]["layout"], "diffusers");
        assert!(one["seconds"]["total"].as_f64() > Some(0.0));
        for measure in ["sharpness", "self_similarity", "spectrum_slope"] {
            assert!(one["measures"].get(measure).is_some(), "{measure}");
            assert!(json["measures"][measure].as_str().expect("explained").len() > 40);
        }
        assert!(one["measures"]["sharpness"].as_f64() > Some(0.0));
    }
    let pixels: Vec<_> = made[..5].iter().map(|path| rgb8(&place.path(path))).collect();
    assert!(pixels[1..].iter().all(|other| *other != pixels[0]), "beyond the training resolution methods differ");
    let sheet = image::open(place.path(made[5])).expect("a picture");
    assert!(sheet.width() > 5 * 256 && sheet.height() > 256, "five columns of 256 px");
    assert_eq!(names(&place.path("outputs")).len(), 7);
}

#[test]
fn methods_are_chosen_and_pictures_made_before_are_used() {
    let place = Place::new();
    let args = ["--prompt", "a lake", "--methods", "dy_yarn,base", "-o", "x/"];
    let first = compare(&place, &args);
    assert_eq!(lines(first.succeeds()).len(), 4);
    let again = compare(&place, &[&args[..], &["--resume", "--json"]].concat());
    assert!(!again.succeeds().stderr.contains("denoise"));
    let last: Value = serde_json::from_str(lines(&again).last().expect("a line")).expect("JSON");
    assert_eq!(last["pictures"][0]["existed"], true);
    assert_eq!(last["sheet"], "x/compare_seed_42_res_64x64_2.png", "nothing is replaced");
}

#[test]
fn comparisons_that_make_no_sense_are_refused() {
    let place = Place::new();
    compare(&place, &["--methods", "base,yarm"]).fails(2, &["yarm", "dy_yarn"]);
    compare(&place, &["--method", "base"]).fails(2, &["--method"]);
    compare(&place, &["-o", "x.png"]).fails(2, &["folder"]);
    assert_eq!(names(&place.path("")), [""; 0]);
}
