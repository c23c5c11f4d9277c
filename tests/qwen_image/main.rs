//! Qwen-Image, and the language models of Qwen that other families read too, against what the references compute in float32.

#[path = "../support/mod.rs"]
mod support;

mod autoencoder;
mod files;
mod language;
mod positions;
mod runs;
mod transformer;

use dype::testing::models::{ModelRequest, Registry, qwen_image::QwenImage};

/// The tiny model, open.
fn tiny() -> QwenImage {
    let request = ModelRequest::new(support::fixture("qwen-image/tiny"));
    let (family, found) = Registry::default().find(&request).expect("found");
    assert_eq!(family.name(), "Qwen-Image");
    QwenImage::open(found).expect("opens")
}
