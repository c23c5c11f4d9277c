//! The flags that say what picture.

use crate::support::program::{Place, rgb8};

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_another_picture() {
    let place = Place::new();
    for name in ["a.png", "b.png"] {
        place.small(&["--seed", "7", "-o", name]).succeeds();
    }
    let read = |name| std::fs::read(place.path(name)).expect("a picture");
    assert!(read("a.png") == read("b.png"));
    place.small(&["--seed", "8", "-o", "c.png"]).succeeds();
    assert!(rgb8(&place.path("c.png")) != rgb8(&place.path("a.png")));
}

#[test]
fn seeds_have_64_bits_of_which_the_cpu_generator_of_torch_takes_32() {
    let place = Place::new();
    let seeds = ["18446744073709551615", "4294967295"];
    let [long, short] = seeds.map(|seed| place.pixels(&["--seed", seed]));
    assert!(long == short, "mt19937 is seeded with the low half: at::mt19937::init_with_uint32");
    let [long, short] = seeds.map(|seed| place.pixels(&["--seed", seed, "--rng", "torch-cuda:h100"]));
    assert!(long != short, "Philox takes all of it");
}

#[test]
fn steps_are_as_many_as_asked() {
    let place = Place::new();
    let run = place.small(&["--steps", "3"]);
    run.succeeds().tells(&["step 1/3", "step 2/3", "step 3/3", "denoise   3 steps"]);
    place.small(&["--steps", "1"]).succeeds().tells(&["denoise   1 step,"]);
}

#[test]
fn height_comes_before_width() {
    let place = Place::new();
    place.small(&["--height", "32", "--width", "96", "-o", "x.png"]).succeeds();
    assert_eq!(image::image_dimensions(place.path("x.png")).expect("a picture"), (96, 32));
}

#[test]
fn sizes_between_multiples_of_16_are_cropped_and_one_line_says_so() {
    let place = Place::new();
    let run = place.small(&["--height", "33", "--width", "50", "-o", "x.png"]);
    run.succeeds().tells(&["note: 33 x 50 px is computed as 48 x 64 (multiples of 16) and cropped"]);
    assert_eq!(run.stderr.matches("cropped").count(), 1);
    assert_eq!(image::image_dimensions(place.path("x.png")).expect("a picture"), (50, 33));
    let whole = place.small(&["--height", "48", "--width", "64", "-o", "whole.png"]);
    assert!(!whole.succeeds().stderr.contains("cropped"));
    let (cropped, whole) = (rgb8(&place.path("x.png")), rgb8(&place.path("whole.png")));
    for row in 0..33 {
        assert_eq!(cropped[row * 150..][..150], whole[row * 192..][..150], "row {row}");
    }
}

#[test]
fn the_prompt_and_guidance_are_followed() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    assert!(place.pixels(&["--prompt", "a desert in the evening"]) != usual);
    assert!(place.pixels(&["--guidance", "1"]) != usual);
    assert!(place.pixels(&["--guidance", "4.5"]) == usual, "4.5 is the default");
}

#[test]
fn a_dash_reads_the_prompt_from_stdin() {
    let place = Place::new();
    let usual = place.pixels(&["--prompt", "two lines\nof text"]);
    let run = place.small_with_input(&["--prompt", "-", "-o", "piped.png"], b"two lines\nof text\n");
    run.succeeds();
    assert!(rgb8(&place.path("piped.png")) == usual, "the last line break is no part of it");
}

#[test]
fn a_prompt_that_is_no_text_is_a_request_that_makes_no_sense() {
    let place = Place::new();
    place.small_with_input(&["--prompt", "-"], b"caf\xe9").fails(2, &["stdin", "not UTF-8", "iconv"]);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_prompt_that_is_cut_says_which_words_were_lost() {
    let place = Place::new();
    let long = format!("a lake {}and one last heron", "with many tall reeds ".repeat(12));
    let run = place.small(&["--prompt", &long]);
    run.succeeds().tells(&["warning: T5 reads 32 tokens", "one last heron\"", "raise --max-sequence-length"]);
    let whole = place.small(&["--prompt", &long, "--max-sequence-length", "512"]);
    assert!(!whole.succeeds().stderr.contains("warning:"), "{}", whole.stderr);
    whole.tells(&["note: CLIP reads 77 tokens", "T5 reads them"]);
}

#[test]
fn the_number_of_text_tokens_is_as_asked() {
    let place = Place::new();
    let run = place.small(&["--max-sequence-length", "40"]);
    run.succeeds().tells(&["text      40 tokens"]);
    assert_ne!(
        rgb8(&place.path(run.stdout.trim_end())),
        place.pixels(&[]),
        "padding is attended to, as in the reference"
    );
}

#[test]
fn noise_comes_from_the_source_that_was_named() {
    let place = Place::new();
    let usual = place.pixels(&[]);
    assert!(place.pixels(&["--rng", "torch-cpu"]) == usual);
    let cuda = place.pixels(&["--rng", "torch-cuda:h100"]);
    assert!(cuda != usual);
    assert!(place.pixels(&["--rng", "torch-cuda:132x2048"]) == cuda, "an H100 by its numbers");
}

#[test]
fn the_last_of_a_repeated_flag_wins() {
    let place = Place::new();
    assert!(place.pixels(&["--seed", "1", "--seed", "2"]) == place.pixels(&["--seed", "2"]));
}
