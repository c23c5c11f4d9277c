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
    let beside = ["png", "json", "html"].map(|ending| format!("outputs/compare_seed_42_res_64x64.{ending}"));
    assert_eq!(made[5..], beside);

    let text = std::fs::read_to_string(place.path(made[6])).expect("readable");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!([&json["sheet"], &json["page"]], [made[5], made[7]]);
    for (index, label) in labels.iter().enumerate() {
        let one = &json["pictures"][index];
        assert_eq!((&one["method"], &one["path"]), (&(*label).into(), &made[index].into()));
        assert_eq!(one["label"], *label);
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
    assert_eq!(names(&place.path("outputs")).len(), 8);
    let page = std::fs::read_to_string(place.path(made[7])).expect("readable");
    for label in labels {
        let name = format!("seed_42_method_{label}_res_64x64.png");
        assert!(
            page.contains(&format!("alt=\"{label}\" src=\"{name}\"")) && page.contains(&format!("<a href=\"{name}\">"))
        );
    }
    assert!(page.contains("<h1 dir=\"auto\">a lake</h1>") && page.contains("64 x 64 px, seed 42, "), "{page}");
}

/// Anything a recipe has may differ from column to column; prompts and names of folders are a stranger's.
#[test]
fn settings_are_compared_and_hostile_words_stay_words() {
    let place = Place::new();
    let prompt = "</script><img src=x onerror=alert(1)> \"a lake\"";
    let list = "base,dy_yarn:scaling=longest:amplitude=fading,yarn:proportional-attention,guidance=1.5";
    let args = ["--prompt", prompt, "--width", "96", "--base-resolution", "32", "--methods", list, "-o", "a #1% <b>/"];
    let run = compare(&place, &args);
    let made = lines(run.succeeds());
    run.tells(&[
        "comes on top of the amplitude of --method yarn",
        "of 4, dy_yarn:scaling=longest:amplitude=fading, seed 42",
    ]);
    assert_eq!(made.len(), 4 + 3, "{made:?}");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path(made[5])).expect("readable")).expect("JSON");
    let labels = ["base", "dy_yarn:scaling=longest:amplitude=fading", "yarn:proportional-attention", "guidance=1.5"];
    let methods = ["base", "dy_yarn", "yarn", "dy_yarn"];
    for (one, (label, method)) in json["pictures"].as_array().expect("pictures").iter().zip(labels.iter().zip(methods))
    {
        assert_eq!([&one["label"], &one["method"]], [label, method]);
    }
    let settings = |index: usize| &json["pictures"][index]["settings"];
    assert_eq!([&settings(1)["scaling"], &settings(1)["amplitude"]], ["longest", "fading"]);
    assert_eq!((&settings(2)["proportional_attention"], &settings(3)["guidance"]), (&true.into(), &1.5.into()));
    let page = std::fs::read_to_string(place.path(made[6])).expect("readable");
    assert!(
        page.contains("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; &quot;a lake&quot;")
            && !page.contains("<img src=x")
    );
    assert!(
        page.contains("src=\"seed_42_method_dy_yarn_res_64x96.png\"")
            && page.contains("src=\"seed_42_method_dy_yarn_res_64x96_2.png\"")
    );
    let idle = compare(&place, &["--methods", "base:scaling=longest,yarn:dype-scale=2", "--dry-run"]);
    idle.tells(&[
        "--methods base:scaling=longest: scaling has no effect",
        "yarn:dype-scale=2: dype_scale has no effect",
    ]);
    // With the pictures inside, the page is all there is to send.
    let inside = compare(&place, &[&args[..], &["--resume", "--embed", "--overwrite"]].concat());
    assert_eq!(lines(inside.succeeds()), made);
    let page = std::fs::read_to_string(place.path(made[6])).expect("readable");
    assert_eq!((page.matches("src=\"data:image/png;base64,").count(), page.matches("<a href").count()), (4, 0));
}

#[test]
fn methods_are_chosen_and_pictures_made_before_are_used() {
    let place = Place::new();
    let args = ["--prompt", "a lake", "--methods", "dy_yarn,base", "-o", "x/"];
    let first = compare(&place, &args);
    assert_eq!(lines(first.succeeds()).len(), 5);
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
    compare(&place, &["--methods", "base,yarn:scaling=wide"]).fails(2, &["scaling=wide", "longest"]);
    compare(&place, &["--methods", "base,yarn:width=128"])
        .fails(2, &["64x128 px", "one comparison", "--height and --width"]);
    compare(&place, &["--method", "base"]).fails(2, &["--method"]);
    compare(&place, &["-o", "x.png"]).fails(2, &["folder"]);
    assert_eq!(names(&place.path("")), [""; 0]);
}
