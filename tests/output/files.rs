//! Pictures on disk: rounding, formats, provenance, and files that are never half-written nor overwritten unasked.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::geometry::ImageSize,
    output::{
        Format, Parameters, Picture, Provenance, check_writable, load_latents, parameters_text, read_parameters,
        read_provenance, remove_temporary_files, save, save_latents, write_atomically,
    },
    recipe::reference_name,
};
use serde_json::json;

const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
const PROMPT: &str = "Gipfel über Wolken, 雪山 at \"dawn\" <&> 🏔\nsecond line";

fn size(height_px: usize, width_px: usize) -> ImageSize {
    ImageSize { height_px, width_px }
}

/// A smooth picture, so that JPEG stays close.
fn picture(size: ImageSize) -> Picture {
    let mut picture = Picture::blank(size);
    for (i, pixel) in picture.rgb8.chunks_exact_mut(3).enumerate() {
        let (row, column) = (i / size.width_px, i % size.width_px);
        pixel.copy_from_slice(&[row as u8, column as u8, (row + column) as u8]);
    }
    picture
}

/// A picture of decoded rows [H, W, 3].
fn from_rows(size: ImageSize, rows: &[f32]) -> Result<Picture, Error> {
    let mut picture = Picture::blank(size);
    picture.set_rows(0, rows)?;
    Ok(picture)
}

fn provenance() -> Provenance {
    let settings = [("Steps", "28".to_string()), ("Seed", "42".to_string()), ("Model", "a: b, c".to_string())];
    Provenance {
        parameters: parameters_text(PROMPT, &settings),
        json: json!({ "prompt": PROMPT, "seed": 18_446_744_073_709_551_615u64, "guidance": 4.5, "nested": [1, null] }),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn floats_become_bytes_as_the_image_processor_rounds_them() {
    // (x / 2 + 0.5).clamp(0, 1) · 255, halves to even: 0.5/255 -> 0, 1.5/255 -> 2, 2.5/255 -> 2.
    let at = |level: f32| level / 127.5 - 1.0;
    let cases = [(-1.0, 0), (1.0, 255), (-7.0, 0), (7.0, 255), (0.0, 128), (at(100.2), 100), (at(100.8), 101)];
    let row: Vec<f32> = cases.iter().flat_map(|(value, _)| [*value; 3]).collect();
    let picture = from_rows(size(1, cases.len()), &row).expect("a picture");
    assert_eq!((picture.height, picture.width), (1, cases.len()));
    for (pixel, (value, expected)) in picture.rgb8.chunks_exact(3).zip(cases) {
        assert_eq!(pixel, [expected; 3], "{value}");
    }
}

#[test]
fn the_golden_picture_is_made_from_the_golden_pixels() {
    // The pixels of a PNG as floats in [-1, 1] come back as themselves.
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/expected/run5.png");
    let golden = image::open(path).expect("a picture").to_rgb8();
    let (height, width) = (golden.height() as usize, golden.width() as usize);
    let floats: Vec<f32> = golden.as_raw().iter().map(|byte| f32::from(*byte) / 255.0 * 2.0 - 1.0).collect();
    let picture = from_rows(size(height, width), &floats).expect("a picture");
    assert!(picture.rgb8 == *golden.as_raw());
}

#[test]
fn bands_of_rows_make_the_whole_picture() {
    const LINE: usize = 6 * 3;
    // 10 rows of 6 pixels; the values of a fixed sequence, each within [-1, 1].
    let image: Vec<f32> = (0..10 * LINE).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let whole = from_rows(size(10, 6), &image).expect("a picture");
    let mut banded = Picture::blank(size(10, 6));
    for (first, rows) in [(0, 4), (4, 5), (9, 1)] {
        banded.set_rows(first, &image[first * LINE..][..rows * LINE]).expect("set");
    }
    assert_eq!(banded, whole);
    let error = banded.set_rows(8, &image[..4 * LINE]).expect_err("beyond the end");
    assert!(error.to_string().contains("from row 8"), "{error}");
    assert!(banded.set_rows(0, &image[..LINE - 1]).is_err(), "not a whole row");
    assert_eq!(banded, whole, "what does not fit changes nothing");
}

#[test]
fn pixels_that_are_not_finite_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = vec![0f32; 4 * 5 * 3];
        values[(2 * 5 + 3) * 3 + 1] = bad;
        let error = from_rows(size(4, 5), &values).expect_err("not finite");
        assert!(matches!(error, Error::Numeric { .. }));
        assert!(error.to_string().contains("row 2, column 3"), "{error}");
    }
}

#[test]
fn cropping_keeps_the_top_left() {
    let whole = picture(size(32, 48));
    let cropped = whole.clone().crop(size(17, 33));
    assert_eq!((cropped.height, cropped.width, cropped.rgb8.len()), (17, 33, 17 * 33 * 3));
    for row in 0..17 {
        assert_eq!(cropped.rgb8[row * 99..][..99], whole.rgb8[row * 144..][..99]);
    }
    assert_eq!(whole.clone().crop(size(32, 48)), whole);
}

#[test]
fn every_format_keeps_picture_and_provenance() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = picture(size(48, 80));
    for ending in ENDINGS {
        let path = folder.path().join(format!("x.{ending}"));
        assert_eq!(save(&path, &picture, &provenance(), false).expect("saved"), path);
        assert_eq!(read_provenance(&path).expect("readable"), Some(provenance().json), "{ending}");
        let text = read_parameters(&path).expect("readable").expect("a text");
        assert_eq!(text, Parameters::parse(&provenance().parameters), "{ending}");
        assert_eq!((text.above.as_str(), text.get("Seed"), text.get("Model")), (PROMPT, Some("42"), Some("a: b, c")));
        let read = image::open(&path).expect("a picture").to_rgb8();
        assert_eq!((read.width(), read.height()), (80, 48));
        let furthest = read.as_raw().iter().zip(&picture.rgb8).map(|(a, b)| a.abs_diff(*b)).max();
        let allowed = if ending.starts_with('j') { 12 } else { 0 };
        assert!(furthest.expect("pixels") <= allowed, "{ending}: {furthest:?}");
    }
    assert_eq!(names(folder.path()).len(), ENDINGS.len());
}

#[test]
fn the_format_is_told_by_content_when_reading() {
    let folder = tempfile::tempdir().expect("a folder");
    for ending in ENDINGS {
        let path = save(&folder.path().join(format!("x.{ending}")), &picture(size(16, 16)), &provenance(), true);
        let renamed = folder.path().join("renamed.bin");
        fs::rename(path.expect("saved"), &renamed).expect("renamed");
        assert_eq!(read_provenance(&renamed).expect("readable"), Some(provenance().json));
    }
}

#[test]
fn parameters_are_where_other_tools_look_for_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = format!("{PROMPT}\nSteps: 28, Seed: 42, Model: \"a: b, c\"");
    let saved = |name: &str, provenance: &Provenance| {
        let path = save(&folder.path().join(name), &picture(size(16, 16)), provenance, true).expect("saved");
        fs::read(path).expect("readable")
    };
    for (name, provenance, chunk) in [
        ("wide.png", provenance(), "iTXt"),
        ("latin.png", Provenance { parameters: "Über\nSteps: 1".into(), json: json!({}) }, "tEXt"),
    ] {
        let bytes = saved(name, &provenance);
        let at = bytes.windows(14).position(|w| w == [chunk.as_bytes(), b"parameters"].concat());
        assert!(at.is_some(), "{name}");
        let reader = png::Decoder::new(io::Cursor::new(&bytes)).read_info().expect("a PNG");
        let info = reader.info();
        let found = match chunk {
            "tEXt" => info.uncompressed_latin1_text[0].text.clone(),
            _ => info.utf8_text[0].get_text().expect("text"),
        };
        assert_eq!(found, provenance.parameters);
    }
    for name in ["x.jpg", "x.webp"] {
        let bytes = saved(name, &provenance());
        assert_eq!(user_comment(&bytes), expected, "{name}");
    }
}

/// The EXIF user comment of a file, found by its TIFF header and read as EXIF 2.3 lays it out.
fn user_comment(bytes: &[u8]) -> String {
    let tiff = bytes.windows(8).position(|w| w == b"MM\0\x2a\0\0\0\x08").expect("a TIFF header");
    let tiff = &bytes[tiff..];
    let u16_at = |at: usize| u16::from_be_bytes([tiff[at], tiff[at + 1]]);
    let u32_at = |at: usize| u32::from_be_bytes([tiff[at], tiff[at + 1], tiff[at + 2], tiff[at + 3]]) as usize;
    // Tag, type, count and value or place of each entry of a folder.
    let folder = |at: usize| -> Vec<(u16, u16, usize, usize)> {
        let entry = |i: usize| at + 2 + 12 * i;
        let all: Vec<_> = (0..usize::from(u16_at(at)))
            .map(|i| (u16_at(entry(i)), u16_at(entry(i) + 2), u32_at(entry(i) + 4), entry(i) + 8))
            .collect();
        assert!(all.is_sorted_by_key(|(tag, ..)| *tag), "TIFF wants them in order");
        assert_eq!(u32_at(entry(all.len())), 0, "no further folder");
        all
    };
    let find = |entries: &[(u16, u16, usize, usize)], tag| *entries.iter().find(|entry| entry.0 == tag).expect("there");
    let picture = folder(8);
    // What EXIF asks of every file: resolution (72/1 dpi), its unit, where colours are sampled.
    for tag in [0x011a, 0x011b] {
        let (_, kind, count, at) = find(&picture, tag);
        assert_eq!((kind, count, u32_at(u32_at(at)), u32_at(u32_at(at) + 4)), (5, 1, 72, 1));
    }
    let short = |entries: &[(u16, u16, usize, usize)], tag| {
        let (_, kind, count, at) = find(entries, tag);
        assert_eq!((kind, count), (3, 1));
        u16_at(at)
    };
    assert_eq!((short(&picture, 0x0128), short(&picture, 0x0213)), (2, 1));
    let (_, kind, _, at) = find(&picture, 0x8769);
    assert_eq!(kind, 4);
    let own = folder(u32_at(at));
    for (tag, bytes) in [(0x9000, b"0232"), (0x9101, b"\x01\x02\x03\0"), (0xa000, b"0100")] {
        let (_, kind, count, at) = find(&own, tag);
        assert_eq!((kind, count, &tiff[at..at + 4]), (7, 4, &bytes[..]));
    }
    assert_eq!(short(&own, 0xa001), 1, "sRGB");
    let side = |tag| u32_at(find(&own, tag).3);
    assert!(side(0xa002) > 0 && side(0xa003) > 0, "width and height");
    let (_, kind, length, at) = find(&own, 0x9286);
    assert_eq!(kind, 7, "UserComment, UNDEFINED");
    let comment = &tiff[u32_at(at)..][..length];
    assert_eq!(&comment[..8], b"UNICODE\0");
    let units: Vec<u16> = comment[8..].chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).expect("UTF-16")
}

#[test]
fn jpeg_keeps_full_colour_resolution() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = save(&folder.path().join("x.jpg"), &picture(size(16, 16)), &provenance(), true).expect("saved");
    let bytes = fs::read(path).expect("readable");
    let frame = bytes.windows(4).position(|w| w == [0xff, 0xc0, 0x00, 0x11]).expect("a baseline frame");
    let samplings = [bytes[frame + 11], bytes[frame + 14], bytes[frame + 17]];
    assert_eq!(samplings, [0x11; 3], "4:4:4");
}

#[test]
fn very_long_prompts_fit_into_every_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let prompt = "山 and 🏔, ".repeat(30_000);
    let long = Provenance { parameters: format!("{prompt}\nSteps: 1"), json: json!({ "prompt": prompt }) };
    for ending in ENDINGS {
        let path =
            save(&folder.path().join(format!("x.{ending}")), &picture(size(16, 16)), &long, true).expect("saved");
        assert_eq!(read_provenance(&path).expect("readable"), Some(long.json.clone()), "{ending}");
        assert!(image::open(&path).is_ok(), "{ending}");
    }
}

#[test]
fn pictures_of_others_have_no_provenance_and_other_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = image::RgbImage::new(8, 8);
    for ending in ENDINGS {
        let path = folder.path().join(format!("x.{ending}"));
        plain.save(&path).expect("saved");
        assert_eq!(read_provenance(&path).expect("readable"), None, "{ending}");
        assert_eq!(read_parameters(&path).expect("readable"), None, "{ending}");
    }
    let missing = read_provenance(&folder.path().join("missing.png")).expect_err("missing");
    assert!(matches!(missing, Error::Disk { .. }));
    let other = folder.path().join("other");
    let text = "RIFF....WEB".repeat(4).into_bytes();
    for bytes in [&b""[..], b"\x89PNG", b"hello, world, this is text", &text] {
        fs::write(&other, bytes).expect("written");
        assert!(matches!(read_provenance(&other), Err(Error::Request { .. })), "{bytes:?}");
    }
}

#[test]
fn damaged_pictures_never_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let damaged = folder.path().join("damaged");
    for ending in ["png", "jpg", "webp"] {
        let path = save(&folder.path().join(format!("x.{ending}")), &picture(size(16, 16)), &provenance(), true);
        let bytes = fs::read(path.expect("saved")).expect("readable");
        for cut in (0..bytes.len().min(1500)).step_by(7) {
            fs::write(&damaged, &bytes[..cut]).expect("written");
            if let Ok(Some(json)) = read_provenance(&damaged) {
                assert_eq!(json, provenance().json);
            }
            if let Ok(Some(text)) = read_parameters(&damaged) {
                assert_eq!(text, Parameters::parse(&provenance().parameters));
            }
            let mut flipped = bytes.clone();
            flipped[cut] ^= 0xff;
            fs::write(&damaged, flipped).expect("written");
            let _ = (read_provenance(&damaged), read_parameters(&damaged));
        }
    }
}

#[test]
fn endings_decide_the_format_and_unknown_ones_are_named() {
    for (name, format) in [
        ("a.png", Format::Png),
        ("a.PNG", Format::Png),
        ("a.jpg", Format::Jpeg),
        ("b/a.jpeg", Format::Jpeg),
        ("a.webp", Format::Webp),
    ] {
        assert_eq!(Format::from_path(Path::new(name)).expect("known"), format);
    }
    for (name, named) in [("a.gif", ".gif"), ("a", "no ending"), ("png", "no ending"), ("a.png.", "\"a.png.\"")] {
        let error = Format::from_path(Path::new(name)).expect_err("unknown");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.hint().expect("a hint").contains(".png"));
    }
}

#[test]
fn sizes_beyond_a_format_are_refused_before_the_run() {
    assert!(Format::Png.check_size(size(65_536, 65_536)).is_ok());
    assert!(Format::Jpeg.check_size(size(65_535, 16)).is_ok());
    assert!(Format::Webp.check_size(size(16, 16_384)).is_ok());
    for (format, size, most) in [(Format::Jpeg, size(16, 65_536), "65535"), (Format::Webp, size(16_385, 16), "16384")] {
        let error = format.check_size(size).expect_err("too large");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(most), "{error}");
    }
}

#[test]
fn an_existing_file_is_kept_unless_overwriting_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.b.txt");
    let write = |text: &'static str, overwrite| {
        write_atomically(&path, overwrite, |file| file.write_all(text.as_bytes())).expect("written")
    };
    assert_eq!(write("one", false), path);
    assert_eq!(write("two", false), folder.path().join("a.b_2.txt"));
    assert_eq!(write("three", false), folder.path().join("a.b_3.txt"));
    assert_eq!(write("four", true), path);
    assert_eq!(fs::read_to_string(&path).expect("readable"), "four");
    assert_eq!(fs::read_to_string(folder.path().join("a.b_2.txt")).expect("readable"), "two");
    assert_eq!(names(folder.path()), ["a.b.txt", "a.b_2.txt", "a.b_3.txt"]);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.png");
    fs::write(&path, "old").expect("written");
    for overwrite in [false, true] {
        let error = write_atomically(&path, overwrite, |file| {
            file.write_all(&[7; 100_000])?;
            assert_eq!(names(folder.path()).len(), 2, "a temporary file in the same folder");
            assert!(names(folder.path())[0].starts_with(".x.png.dype-"));
            Err(io::ErrorKind::StorageFull.into())
        })
        .expect_err("full");
        assert!(matches!(&error, Error::Disk { path: named, .. } if *named == path), "{error}");
        assert!(error.hint().expect("a hint").contains("space"));
        assert_eq!(names(folder.path()), ["x.png"]);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
    }
}

#[test]
fn long_and_missing_names_are_handled() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = folder.path().join("new").join(format!("{}.txt", "ü".repeat(120)));
    assert_eq!(write_atomically(&long, false, |file| file.write_all(b"x")).expect("written"), long);
    assert!(matches!(write_atomically(Path::new("/"), false, |_| Ok(())), Err(Error::Request { .. })));
}

#[test]
fn folders_are_checked_and_created() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = folder.path().join("a/b");
    check_writable(&new).expect("created");
    assert!(new.is_dir());
    assert!(names(&new).is_empty());
    fs::write(folder.path().join("file"), "").expect("written");
    for path in ["file", "file/below"] {
        let error = check_writable(&folder.path().join(path)).expect_err("a file");
        assert!(matches!(error, Error::Disk { .. }));
        assert!(error.to_string().contains("file"), "{error}");
    }
}

/// Where the child processes of the next two tests work.
const CHILD_FOLDER: &str = "DYPE_TEST_CHILD_FOLDER";

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test's program"));
    command.args([test, "--exact", "--ignored"]).env(CHILD_FOLDER, folder);
    command
}

#[test]
fn processes_never_overwrite_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let children: Vec<_> =
        (0..4).map(|_| child("files::child_writes_25_files", folder.path()).spawn().expect("started")).collect();
    for mut child in children {
        assert!(child.wait().expect("ended").success());
    }
    let names = names(folder.path());
    assert_eq!(names.len(), 100, "{names:?}");
    let mut contents: Vec<String> =
        names.iter().map(|name| fs::read_to_string(folder.path().join(name)).expect("readable")).collect();
    contents.sort();
    contents.dedup();
    assert_eq!(contents.len(), 100, "each file has one writer");
}

#[test]
#[ignore = "started by processes_never_overwrite_each_other"]
fn child_writes_25_files() {
    let folder = PathBuf::from(std::env::var_os(CHILD_FOLDER).expect("the parent's folder"));
    for i in 0..25 {
        let text = format!("{} {i}", std::process::id());
        write_atomically(&folder.join("x.txt"), false, |file| file.write_all(text.as_bytes())).expect("written");
    }
}

#[test]
fn an_interrupted_process_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(child("files::child_is_interrupted", folder.path()).status().expect("ended").success());
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
#[ignore = "started by an_interrupted_process_leaves_nothing_behind"]
fn child_is_interrupted() {
    let folder = PathBuf::from(std::env::var_os(CHILD_FOLDER).expect("the parent's folder"));
    let error = write_atomically(&folder.join("x.txt"), false, |file| {
        file.write_all(b"half")?;
        assert_eq!(names(&folder).len(), 1);
        remove_temporary_files();
        assert!(names(&folder).is_empty());
        Ok(())
    });
    assert!(matches!(error, Err(Error::Disk { .. })));
    assert!(write_atomically(&folder.join("y.txt"), false, |_| Ok(())).is_err(), "nothing new after the end");
}

#[test]
fn names_are_those_of_the_reference() {
    let size = size(1280, 256);
    assert_eq!(reference_name(42, "yarn", true, size), "seed_42_method_dy_yarn_res_1280x256.png");
    assert_eq!(reference_name(42, "ntk", false, size), "seed_42_method_ntk_res_1280x256.png");
    assert_eq!(reference_name(0, "base", true, size), "seed_0_method_base_res_1280x256.png");
}

#[test]
fn latents_are_kept_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latents.safetensors");
    let latents = Tensor::randn(0f32, 1.0, (1, 12, 64), &Device::Cpu).expect("a tensor");
    assert_eq!(save_latents(&path, &latents, false).expect("saved"), path);
    let same = |a: &Tensor, b: &Tensor| {
        let values = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
        a.dims() == b.dims() && values(a) == values(b)
    };
    assert!(same(&load_latents(&path, 64).expect("loaded"), &latents));
    let by_candle = candle_core::safetensors::load(&path, &Device::Cpu).expect("loaded");
    assert!(same(&by_candle["latents"], &latents));
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/expected/run0.safetensors");
    assert!(matches!(load_latents(&golden, 64), Err(Error::Model { .. })), "no key `latents`");

    let bad = folder.path().join("bad.safetensors");
    let save_as = |tensor: Tensor| {
        let map = std::collections::HashMap::from([("latents".to_string(), tensor)]);
        candle_core::safetensors::save(&map, &bad).expect("saved");
    };
    let flat = latents.flatten_all().expect("flat");
    for tensor in [
        latents.to_dtype(DType::BF16).expect("bf16"),
        latents.squeeze(0).expect("squeezed"),
        flat.reshape((1, 24, 32)).expect("reshaped"),
        (&latents * f64::NAN).expect("scaled"),
    ] {
        save_as(tensor);
        assert!(matches!(load_latents(&bad, 64), Err(Error::Model { .. })));
    }
    fs::write(&bad, "nonsense").expect("written");
    assert!(matches!(load_latents(&bad, 64), Err(Error::Model { .. })));
    assert!(matches!(load_latents(&folder.path().join("missing"), 64), Err(Error::Disk { .. })));
    assert!(save_latents(&path, &flat, true).is_err());
}
