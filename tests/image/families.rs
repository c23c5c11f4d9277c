//! Every family that has an encoder begins with a picture, by its own conventions.

use std::fs;

use crate::support::{
    fixture,
    program::{Place, rgb8},
};

/// A picture of `strength` of the input by a model, its pixels.
fn made(place: &Place, model: &str, strength: &str) -> Vec<u8> {
    let (model, input) = (fixture(model).display().to_string(), fixture("img2img/input.png").display().to_string());
    let flags = ["--model", &model, "--image", &input, "--strength", strength, "--height", "48", "--width", "64"];
    let more = ["--prompt", "a lake", "--steps", "4", "--device", "cpu", "--overwrite", "-o", "x.png"];
    place.dype(&[&flags[..], &more].concat()).succeeds().tells(&["encode"]);
    rgb8(&place.path("x.png"))
}

#[test]
fn all_families_begin_with_a_picture() {
    for model in ["tiny-flux", "z-image/tiny", "flux2-klein/tiny", "qwen-image/tiny"] {
        let place = Place::new();
        let [weak, strong] = ["0.3", "0.9"].map(|strength| made(&place, model, strength));
        assert_eq!(weak.len(), 3 * 48 * 64);
        assert_ne!(weak, strong, "{model}");
        assert_eq!(made(&place, model, "0.3"), weak, "{model} again");
        fs::remove_file(place.path("x.png")).expect("made");
    }
}
