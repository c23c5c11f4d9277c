//! Where pictures and latents go, and what they hold.

use std::{fs, io::Cursor};

use dype::testing::output::{load_latents, read_provenance};

use crate::support::{
    fixture,
    program::{Place, rgb8},
};

#[test]
fn stdout_is_the_path_and_nothing_else() {
    let place = Place::new();
    assert_eq!(place.small(&["-o", "x.png", "-v"]).succeeds().stdout, "x.png\n");
    assert_eq!(place.names(), ["x.png"]);
}

#[test]
fn without_a_name_it_is_the_references_in_outputs() {
    let place = Place::new();
    let run = place.small(&["--seed", "3"]);
    assert_eq!(run.succeeds().stdout, "outputs/seed_3_method_dy_yarn_res_64x64.png\n");
    let run = place.small(&["--method", "ntk", "--no-dype"]);
    assert_eq!(run.succeeds().stdout, "outputs/seed_42_method_ntk_res_64x64.png\n");
    for name in ["seed_3_method_dy_yarn_res_64x64.png", "seed_42_method_ntk_res_64x64.png"] {
        assert!(place.path("outputs").join(name).is_file(), "{name}");
    }
}

#[test]
fn a_path_that_ends_in_a_slash_is_a_folder_and_is_made() {
    let place = Place::new();
    let run = place.small(&["-o", "new/walls/"]);
    assert_eq!(run.succeeds().stdout, "new/walls/seed_42_method_dy_yarn_res_64x64.png\n");
    assert!(place.path("new/walls/seed_42_method_dy_yarn_res_64x64.png").is_file());
    assert_eq!(place.small(&["--output", "other/x.png"]).succeeds().stdout, "other/x.png\n");
}

#[test]
fn the_ending_names_the_format() {
    let place = Place::new();
    let starts: [(&str, &[u8]); 4] =
        [("x.png", b"\x89PNG"), ("x.jpg", b"\xff\xd8\xff"), ("y.JPEG", b"\xff\xd8\xff"), ("x.webp", b"RIFF")];
    for (name, start) in starts {
        place.small(&["-o", name]).succeeds();
        assert!(fs::read(place.path(name)).expect("a picture").starts_with(start), "{name}");
    }
    assert!(rgb8(&place.path("x.webp")) == rgb8(&place.path("x.png")), "both are lossless");
}

#[test]
fn an_existing_file_is_kept_unless_it_may_be_overwritten() {
    let place = Place::new();
    fs::write(place.path("x.png"), "mine").expect("written");
    assert_eq!(place.small(&["-o", "x.png"]).succeeds().stdout, "x_2.png\n");
    assert_eq!(place.small(&["-o", "x.png"]).succeeds().stdout, "x_3.png\n");
    assert_eq!(fs::read(place.path("x.png")).expect("kept"), b"mine");
    assert_eq!(place.small(&["-o", "x.png", "--overwrite"]).succeeds().stdout, "x.png\n");
    assert!(rgb8(&place.path("x.png")) == rgb8(&place.path("x_2.png")));
    assert_eq!(place.names(), ["x.png", "x_2.png", "x_3.png"]);
}

#[test]
fn latents_are_saved_as_safetensors() {
    let place = Place::new();
    place.small(&["-o", "x.png", "--save-latents", "x.safetensors"]).succeeds();
    let latents = load_latents(&place.path("x.safetensors"), 64).expect("latents");
    assert_eq!(latents.dims(), [1, 16, 64]);
    place.small(&["-o", "y.png", "--save-latents", "x.safetensors", "-v"]).succeeds().tells(&["x_2.safetensors"]);
}

#[test]
fn a_picture_says_how_it_was_made() {
    let place = Place::new();
    place.small(&["-o", "x.png", "--seed", "9", "--prompt", "a lake, \"still\""]).succeeds();
    let json = read_provenance(&place.path("x.png")).expect("readable").expect("there");
    assert_eq!(json["program"], "dype");
    assert_eq!(json["program_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["model"]["model"], fixture("tiny-flux").display().to_string());
    assert_eq!(json["dtype"], "f32");
    let settings = &json["settings"];
    assert_eq!((&settings["seed"], &settings["steps"]), (&9.into(), &1.into()));
    assert_eq!((&settings["height"], &settings["width"]), (&64.into(), &64.into()));
    assert_eq!((&settings["prompt"], &settings["guidance"]), (&"a lake, \"still\"".into(), &4.5.into()));
    assert_eq!((&settings["dype_scale"], &settings["dype_exponent"]), (&1.0.into(), &2.0.into()));

    let bytes = fs::read(place.path("x.png")).expect("a picture");
    let reader = png::Decoder::new(Cursor::new(bytes)).read_info().expect("a PNG");
    let chunk = &reader.info().uncompressed_latin1_text[0];
    assert_eq!(chunk.keyword, "parameters");
    let lead = "a lake, \"still\"\nSteps: 1, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 4.5, Seed: 9, Size: 64x64, Model: ";
    assert!(chunk.text.starts_with(lead), "{}", chunk.text);
    assert!(chunk.text.contains("Position: dy_yarn"), "{}", chunk.text);
}
