//! `--int8-products`: what becomes of pictures, and where it is refused.

use dype::testing::output::load_latents;

use crate::{
    runs::Golden,
    support::{
        golden::differences,
        program::{Place, rgb8},
        relative_error, values,
    },
};

const FLAG: &str = "--int8-products";

/// A run of few bits in this number type, or in none that is said.
fn args(file: &str, dtype: Option<&str>, more: &[&str]) -> Vec<String> {
    let mut args = Golden::of(file).args();
    let at = args.iter().position(|word| word == "--dtype").expect("its flag");
    args.splice(at..at + 2, dtype.into_iter().flat_map(|dtype| ["--dtype".to_owned(), dtype.to_owned()]));
    for word in more {
        // A flag that is there already takes another value.
        if let Some(at) = args.iter().position(|known| known == word).filter(|_| word.starts_with('-')) {
            args.drain(at..at + 2);
        }
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

#[test]
fn a_picture_is_a_little_off_and_says_so() {
    let place = Place::new();
    let made = |dtype, more: &[&str]| {
        place.dype(&args("narrow-Q8_0.gguf", dtype, &[more, &["--overwrite"]].concat())).succeeds();
        (rgb8(&place.path("x.png")), values(&load_latents(&place.path("x.safetensors"), 64).expect("latents")))
    };
    let (pixels, latents) = made(Some("f32"), &[]);
    let (rounded, of_bf16) = made(Some("bf16"), &[]);
    let (found, of_int8) = made(None, &[FLAG]);
    let [bf16, int8] = [&of_bf16, &of_int8].map(|found| relative_error(found, &latents));
    assert!(int8 > bf16 && int8 < 0.05, "latents: {int8:e} after {bf16:e} in bf16");
    let [bf16, int8] = [&rounded, &found].map(|found| differences(found, &pixels).0);
    assert!(int8 > 0.0 && int8 < 2.0, "levels of 255: {int8} after {bf16} in bf16");
    for words in [["products", "in 8 bits where weights are Q8_0"], ["made by", "on cpu in bf16"]] {
        let said = place.dype(&["info", "x.png"]).succeeds().stdout.clone();
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
    place.dype(&args("narrow-Q8_0.gguf", None, &[FLAG, "--weights", "stream", "-o", "y.png"])).succeeds();
    assert!(rgb8(&place.path("y.png")) == found, "streamed");
    place.dype(&["replay", "x.png", "-o", "z.png", "--device", "cpu"]).succeeds();
    assert!(rgb8(&place.path("z.png")) == found, "made again from what it says");
}

#[test]
fn it_is_refused_where_it_can_mean_nothing() {
    let place = Place::new();
    let fails = |file: &str, dtype, words: &[&str]| {
        for more in [&[FLAG][..], &[FLAG, "--dry-run"]] {
            place.dype(&args(file, dtype, more)).fails(2, words);
        }
    };
    fails("narrow-Q8_0.gguf", Some("f32"), &["--int8-products alone computes in bf16"]);
    fails("narrow-Q8_0.gguf", Some("f16"), &["another --dtype rounds nothing"]);
    fails("narrow-Q4_0-sdcpp.gguf", None, &["the transformer has none", "--type q8_0"]);
    assert!(place.names().is_empty());
    let plan = place.dype(&args("narrow-Q8_0.gguf", None, &[FLAG, "--dry-run"]));
    let said = &plan.succeeds().stdout;
    assert!(said.contains("int8") && said.contains("in 8 bits where weights are Q8_0"), "{said}");
}
