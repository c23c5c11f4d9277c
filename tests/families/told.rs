//! What pictures of a family say of themselves, and what is shown of them on the way.

use std::fs;

use serde_json::{Value, json};

use super::{
    run,
    support::{copy_folder, fixture, program::Place},
};

#[test]
fn a_map_of_colours_in_the_autoencoders_config_brings_previews_of_patched_latents() {
    let place = Place::new();
    let model = place.path("klein");
    copy_folder(&fixture("flux2-klein/tiny"), &model);
    let args =
        ["--model", "klein", "-p", "a cat", "--height", "64", "--width", "96", "--steps", "2", "--device", "cpu"];
    let make = |picture: &str| {
        let run = run(place.command(&[&args[..], &["--preview", "p.png", "-o", picture]].concat()));
        run.succeeds();
    };
    make("x.png");
    assert!(!place.path("p.png").exists(), "no map is inside the program");
    // What is not followed is not told.
    let told = place.dype(&["info", "x.png"]);
    let line = told.succeeds().stdout.lines().find(|line| line.starts_with("schedule")).expect("told").to_owned();
    assert!(line.contains("mu by tokens and steps") && !line.contains("1.15"), "{line}");
    // One channel of 32 makes red.
    let config = model.join("vae/config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).expect("a config")).expect("JSON");
    let rows: Vec<[f64; 3]> = (0..32).map(|channel| [if channel == 3 { 0.5 } else { 0.0 }, 0.0, 0.0]).collect();
    value["latent_rgb_factors"] = json!(rows);
    fs::write(&config, value.to_string()).expect("written");
    make("y.png");
    let preview = image::open(place.path("p.png")).expect("a preview").to_rgb8();
    assert_eq!(preview.dimensions(), (6, 4), "a pixel for each token");
    assert!(preview.pixels().all(|pixel| pixel[1] == 128 && pixel[2] == 128));
    assert!(preview.pixels().any(|pixel| pixel[0] != 128));
}
