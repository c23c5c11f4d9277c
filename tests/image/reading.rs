//! Pictures of every kind that is read, as Pillow reads them: turned as EXIF says, over white, 8 bits.

use std::fs;

use dype::testing::{
    base::{geometry::ImageSize, json::read_json},
    input::{look, open},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::support::fixture;

#[derive(Debug, Deserialize)]
struct Kind {
    file: String,
    height: usize,
    width: usize,
    /// Colours near the corners, row by row.
    corners: [[u8; 3]; 4],
}

#[test]
fn every_kind_of_picture_is_read_as_pillow_reads_it() {
    let kinds: Vec<Kind> = read_json(&fixture("img2img/kinds.json")).expect("golden");
    assert_eq!(kinds.len(), 20);
    for Kind { file, height, width, corners } in kinds {
        let path = fixture("img2img/kinds").join(&file);
        let seen = look(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(seen.size, ImageSize { height_px: height, width_px: width }, "{file}");
        assert_eq!(seen.is_animated, file.starts_with("film"), "{file}");
        let rgb8 = open(&path, Some(&seen.sha256), seen.size).expect("its own size").rgb8;
        assert_eq!(rgb8.len(), 3 * height * width);
        // Of JPEG both are right that are this near: decoders round in their own ways.
        let tolerance = if file.ends_with(".jpg") { 4 } else { 1 };
        let places = [(2, 2), (2, width - 3), (height - 3, 2), (height - 3, width - 3)];
        for ((row, column), expected) in places.into_iter().zip(corners) {
            let found = &rgb8[3 * (row * width + column)..][..3];
            let worst = found.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max();
            assert!(worst <= Some(tolerance), "{file} at {row}, {column}: {found:?} for {expected:?}");
        }
    }
}

#[test]
fn another_size_is_pillows_to_the_byte_and_another_file_refused() {
    let path = fixture("img2img/input.png");
    // `Image.resize((width, height), LANCZOS)` of Pillow 13.
    for ([height_px, width_px], sha256) in [
        ([31, 100], "fef5d1cfe0a11cc1763b2bf42d2b47298b4aa2e48076ef75fbf59515b2bf799a"),
        ([300, 401], "9c91ab003e4954e43c979e4e861272300e6eb1ea1032d8b841d214ec387e0e9c"),
        ([192, 300], "0e5eb097a817fd13dfe52b2603b8fe42242f0d35da712dafd26ca01d071b7ab8"),
        ([64, 256], "031408262bd520506eef7ee3672a68ab3d2eb85668d6aefd42156a96620d59d7"),
        ([768, 1024], "533d21e1771502bf8df5a14d1c743a39537236430e0dc5f1f2fef3f1afbcc171"),
    ] {
        let size = ImageSize { height_px, width_px };
        let resized = open(&path, None, size).expect("read");
        assert_eq!((resized.size, resized.rgb8.len()), (size, 3 * height_px * width_px));
        let digest: String = Sha256::digest(&resized.rgb8).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, sha256, "{height_px} x {width_px}");
    }
    let wanted = "0".repeat(64);
    let error = open(&path, Some(&wanted), ImageSize { height_px: 64, width_px: 64 }).expect_err("another").to_string();
    assert!(error.contains("input.png") && error.contains(&wanted), "{error}");
}

/// Every file with one byte changed, or cut: read or refused, and no panic.
#[test]
fn damaged_pictures_are_read_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x");
    let mut dice = 7u64;
    let mut draw = |below: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % below
    };
    for entry in fs::read_dir(fixture("img2img/kinds")).expect("pictures") {
        let whole = fs::read(entry.expect("an entry").path()).expect("a picture");
        for _ in 0..40 {
            let mut bytes = whole.clone();
            let at = draw(bytes.len());
            match draw(4) {
                0 => bytes.truncate(at),
                _ => bytes[at] = draw(256) as u8,
            }
            fs::write(&path, &bytes).expect("written");
            if let Err(error) = look(&path) {
                assert_eq!(error.exit_code(), 2, "{error}");
            }
        }
    }
}
